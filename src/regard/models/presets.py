"""Names of models and their configurations: data only."""

from types import MappingProxyType

from regard.models.vit import ViTConfig

PRESETS: MappingProxyType[str, ViTConfig] = MappingProxyType(
    {
        # Dosovitskiy et al. 2020, table 1, and the smaller ones of DeiT (Touvron et al. 2020); the names are timm's.
        "vit_tiny_patch16_224": ViTConfig(embed_dim=192, num_heads=3),
        "vit_small_patch16_224": ViTConfig(embed_dim=384, num_heads=6),
        "vit_base_patch16_224": ViTConfig(),
        "vit_large_patch16_224": ViTConfig(embed_dim=1024, depth=24, num_heads=16),
        "vit_huge_patch14_224": ViTConfig(patch_size=14, embed_dim=1280, depth=32, num_heads=16),
        # For images of 28 to 64 pixels, from scratch.
        "vit_mini_patch4_32": ViTConfig(
            img_size=32,
            patch_size=4,
            num_classes=10,
            embed_dim=128,
            depth=6,
            num_heads=4,
            mlp_ratio=2.0,
            pool="avg",
            position_std=1.0,
        ),
        # For scikit-learn's digits of 8 × 8 pixels.
        "vit_pico_patch2_8": ViTConfig(
            img_size=8,
            patch_size=2,
            in_chans=1,
            num_classes=10,
            embed_dim=64,
            depth=3,
            num_heads=4,
            pool="avg",
            position_std=1.0,
        ),
    }
)
