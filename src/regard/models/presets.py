"""Names of models and their configurations, and old names: data only."""

from dataclasses import replace
from types import MappingProxyType

from regard.models.detr import DETRConfig
from regard.models.dn_detr import DNDETRConfig
from regard.models.fnet import FNetConfig
from regard.models.language import LanguageModelConfig
from regard.models.recurrent import RecurrentConfig
from regard.models.sasa_resnet import SASA_RESNETS, SASAResNetConfig
from regard.models.transformer import TransformerConfig
from regard.models.vit import DINOV2, ViTConfig

ModelConfig = (
    ViTConfig
    | SASAResNetConfig
    | DETRConfig
    | DNDETRConfig
    | FNetConfig
    | TransformerConfig
    | LanguageModelConfig
    | RecurrentConfig
)

# Vaswani et al. 2017, table 3, with the vocabulary of section 5.1, which source and target share.
TRANSFORMER_BASE = TransformerConfig(src_vocab=37_000, tgt_vocab=37_000, share="all")

# Tolstikhin et al. 2021, table 1: no positions, since each token has weights of its own.
MIXER_B16 = ViTConfig(mixer="mlp", pool="avg", positions="none")

DN_DETR_MINI = DNDETRConfig(
    num_classes=10,
    backbone="resnet18_narrow",
    frozen_norm=False,
    strides=(8, 16),
    embed_dim=128,
    decoder_depth=3,
    num_queries=30,
    num_denoising=30,
)

PRESETS: MappingProxyType[str, ModelConfig] = MappingProxyType(
    {
        # Dosovitskiy et al. 2020, table 1, and the smaller ones of DeiT (Touvron et al. 2020); the names are timm's.
        "vit_tiny_patch16_224": ViTConfig(embed_dim=192, num_heads=3),
        "vit_small_patch16_224": ViTConfig(embed_dim=384, num_heads=6),
        "vit_base_patch16_224": ViTConfig(),
        "vit_large_patch16_224": ViTConfig(embed_dim=1024, depth=24, num_heads=16),
        "vit_huge_patch14_224": ViTConfig(patch_size=14, embed_dim=1280, depth=32, num_heads=16),
        # Tolstikhin et al. 2021, table 1; the names are timm's.
        "mixer_s32_224": replace(MIXER_B16, patch_size=32, embed_dim=512, depth=8),
        "mixer_s16_224": replace(MIXER_B16, embed_dim=512, depth=8),
        "mixer_b32_224": replace(MIXER_B16, patch_size=32),
        "mixer_b16_224": MIXER_B16,
        "mixer_l32_224": replace(MIXER_B16, patch_size=32, embed_dim=1024, depth=24),
        "mixer_l16_224": replace(MIXER_B16, embed_dim=1024, depth=24),
        "mixer_h14_224": replace(MIXER_B16, patch_size=14, embed_dim=1280, depth=32),
        **DINOV2,
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
        # For photographs, a fiftieth of what DINOv2 ViT-S/14 computes at 224 pixels: what `regard pretrain` teaches.
        "vit_mini_patch8_64": ViTConfig(
            img_size=64, patch_size=8, num_classes=10, embed_dim=192, depth=4, num_heads=3, position_std=1.0
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
        **SASA_RESNETS,
        # Carion et al. 2020, table 1; the classes are COCO's, whose ids go up to 90.
        "detr_resnet50": DETRConfig(),
        "detr_resnet50_dc5": DETRConfig(dilated=True),
        "detr_resnet101": DETRConfig(backbone="resnet101"),
        # For images of about 128 pixels, from scratch.
        "detr_mini": DETRConfig(
            num_classes=10,
            backbone="resnet10t",
            dilated=True,
            frozen_norm=False,
            embed_dim=128,
            num_heads=4,
            depth=3,
            decoder_depth=3,
            mlp_ratio=4.0,
            num_queries=25,
        ),
        # A DN-DETR for the same images, which learns from few of them.
        "dn_detr_mini": DN_DETR_MINI,
        "dn_detr_mini_lite0": replace(DN_DETR_MINI, backbone="tf_efficientnet_lite0", frozen_norm=True),
        # For photographs, on features of a frozen DINOv2: no encoder, since its tokens have seen each other.
        "dn_detr_dinov2": DNDETRConfig(
            backbone="dinov2_vits14",
            backbone_blocks=(6, 12),
            strides=(14, 28),
            embed_dim=160,
            depth=0,
            decoder_depth=3,
            num_queries=30,
            num_denoising=30,
        ),
        # Of the size of RT-DETR-R50 (Lv et al. 2023, table 2).
        "dn_detr_resnet50": DNDETRConfig(),
        # Lee-Thorp et al. 2021, table 8.
        "fnet_base": FNetConfig(),
        "fnet_large": FNetConfig(embed_dim=1024, depth=24),
        "transformer_base": TRANSFORMER_BASE,
        "transformer_big": replace(TRANSFORMER_BASE, embed_dim=1024, num_heads=16, dropout=0.3),
        # For short texts, letter by letter (258 bytes and signs), from scratch.
        "transformer_mini": replace(
            TRANSFORMER_BASE,
            src_vocab=259,
            tgt_vocab=259,
            embed_dim=128,
            num_heads=4,
            depth=3,
            decoder_depth=2,
            dropout=0.0,
            norm="pre",
        ),
        # The recurrent baseline of about the same size.
        "recurrent_mini": RecurrentConfig(src_vocab=259, tgt_vocab=259, embed_dim=256, depth=1, dropout=0.0),
        "language_mini": LanguageModelConfig(vocab_size=259, context=256, embed_dim=192, num_heads=6, depth=4),
    }
)

# Old names, which run folders may hold, and the names of today. timm has other models under the old names.
RENAMED: MappingProxyType[str, str] = MappingProxyType(
    {f"resnet{layers}": f"sasa_baseline_resnet{layers}" for layers in (26, 38, 50)}
)
