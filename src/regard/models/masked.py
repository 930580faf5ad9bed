"""Masked image modelling: a ViT, with any token mixer, learns to see what was hidden from it.

Each model takes `order`, the patches of every image in a random order, of which the last are hidden. It returns the
values of all patches as it expects them, and which were hidden. What a hidden patch holds, NaN even, goes nowhere.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from regard.errors import RegardError, is_out_of_memory
from regard.layers import Block, Grid, SinePositions, checkpointed
from regard.mixers import create_mixer, options_for
from regard.models.vit import ViT, ViTConfig
from regard.ops import hidden_patches, patches_of

DECODER_HEAD_DIM = 32
Expected = tuple[Float[Tensor, "batch patches values"], Bool[Tensor, "batch patches"]]


class MaskedAutoencoder(nn.Module):
    """MAE (He et al. 2022, section 3): the encoder gets the visible patches alone, a small decoder all places.

    The decoder has `decoder_depth` blocks of attention of width `decoder_dim`, one mask token for every hidden place,
    and fixed positions. RegardError for a ViT whose mixers cannot leave tokens out.
    """

    def __init__(self, vit: ViT, *, mask_ratio: float, decoder_dim: int, decoder_depth: int) -> None:
        super().__init__()
        unable = mixers_that_need_all(vit.config)
        if unable:
            raise RegardError(
                f"pretrain.method: mae leaves tokens out, which the mixer {unable[0]} cannot do without; simmim serves "
                "every mixer"
            )
        self.vit, self.mask_ratio = vit, mask_ratio
        self.decoder_embed = nn.Linear(vit.config.embed_dim, decoder_dim)
        self.mask_token = nn.Parameter(torch.empty(1, 1, decoder_dim))
        self.decoder_positions = SinePositions(decoder_dim)
        self.decoder_blocks = nn.ModuleList(
            Block(
                decoder_dim,
                create_mixer(
                    "attention", decoder_dim, num_heads=max(decoder_dim // DECODER_HEAD_DIM, 1), grid=vit.grid
                ),
                mlp_ratio=4.0,
                drop_path=0.0,
                layer_scale=None,
            )
            for _ in range(decoder_depth)
        )
        self.decoder_norm = nn.LayerNorm(decoder_dim)
        self.decoder_head = nn.Linear(decoder_dim, _values(vit))
        for part in (self.decoder_embed, self.decoder_blocks, self.decoder_head):
            part.apply(vit.init_weights)
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(
        self, images: Float[Tensor, "batch in_chans height width"], order: Int64[Tensor, "batch patches"]
    ) -> Expected:
        visible, hidden = hidden_patches(order, self.mask_ratio)
        x, grid = embedded(self.vit, images, hidden)
        prefix, patches = x[:, : grid.prefix], taken(x[:, grid.prefix :], visible)
        x = torch.cat([prefix, patches], dim=1)
        for block in self.vit.blocks:
            x = checkpointed(self.vit.gradient_checkpointing, block, x)
        x = self.decoder_embed(self.vit.norm(x))
        patches = put_back(x[:, grid.prefix :], visible, self.mask_token, grid.num_patches)
        x = torch.cat([x[:, : grid.prefix], patches], dim=1)
        x = x + self.decoder_positions(grid)
        for decoder_block in self.decoder_blocks:
            x = decoder_block(x, grid=grid)
        return self.decoder_head(self.decoder_norm(x[:, grid.prefix :])), hidden


class SimMIM(nn.Module):
    """SimMIM (Xie et al. 2022, section 3): a mask token in the place of each hidden patch, and a linear head.

    All tokens stay where they are, so that every mixer can learn by it.
    """

    def __init__(self, vit: ViT, *, mask_ratio: float) -> None:
        super().__init__()
        self.vit, self.mask_ratio = vit, mask_ratio
        self.mask_token = nn.Parameter(torch.empty(1, 1, vit.config.embed_dim))
        nn.init.normal_(self.mask_token, std=0.02)
        self.decoder_head = nn.Linear(vit.config.embed_dim, _values(vit))
        self.decoder_head.apply(vit.init_weights)

    def forward(
        self, images: Float[Tensor, "batch in_chans height width"], order: Int64[Tensor, "batch patches"]
    ) -> Expected:
        _, hidden = hidden_patches(order, self.mask_ratio)
        tokens, grid = encoded(self.vit, images, hidden, self.mask_token)
        return self.decoder_head(tokens[:, grid.prefix :]), hidden


def embedded(
    vit: ViT,
    images: Float[Tensor, "batch in_chans height width"],
    hidden: Bool[Tensor, "batch patches"],
    mask_token: Float[Tensor, "1 1 embed_dim"] | None = None,
) -> tuple[Float[Tensor, "batch tokens embed_dim"], Grid]:
    """The input of the first block, with `mask_token` (or the embedding of a black patch) for what is hidden."""
    grid = vit.patch_embed.grid(*images.shape[-2:], prefix=vit.grid.prefix)
    # Zeros before the projection: NaN times a gradient of zero would be NaN in the gradient of its weights.
    patches = patches_of(images, vit.config.patch_size).masked_fill(hidden[..., None], 0.0)
    projection = vit.patch_embed.proj
    x = F.linear(patches, projection.weight.flatten(1), projection.bias)
    if mask_token is not None:
        x = torch.where(hidden[..., None], mask_token.to(x.dtype), x)
    return vit.placed(x, grid), grid


def encoded(
    vit: ViT, images: Tensor, hidden: Bool[Tensor, "batch patches"], mask_token: Tensor
) -> tuple[Float[Tensor, "batch tokens embed_dim"], Grid]:
    """All tokens after the last norm, of images with mask tokens."""
    x, grid = embedded(vit, images, hidden, mask_token)
    for block in vit.blocks:
        x = checkpointed(vit.gradient_checkpointing, block, x, grid=grid)
    return vit.norm(x), grid


def taken(
    patches: Float[Tensor, "batch patches embed_dim"], places: Int64[Tensor, "batch visible"]
) -> Float[Tensor, "batch visible embed_dim"]:
    """The patches at these places of each image."""
    return patches.gather(1, places[..., None].expand(-1, -1, patches.shape[2]))


def put_back(
    patches: Float[Tensor, "batch visible embed_dim"],
    places: Int64[Tensor, "batch visible"],
    mask_token: Float[Tensor, "1 1 embed_dim"],
    num_patches: int,
) -> Float[Tensor, "batch patches embed_dim"]:
    """The inverse of `taken`: each patch at its place again, and the mask token at all other places."""
    everywhere = mask_token.to(patches.dtype).expand(patches.shape[0], num_patches, -1)
    return everywhere.scatter(1, places[..., None].expand(-1, -1, patches.shape[2]), patches)


def mixers_that_need_all(config: ViTConfig) -> list[str]:
    """The mixers of a ViT for which a set of tokens without the others is no input.

    A mixer can leave tokens out if it needs no grid, takes any number of tokens, and gives each the same output in
    whatever order they come.
    """
    names = (config.mixer,) if isinstance(config.mixer, str) else tuple(dict.fromkeys(config.mixer))
    return [name for name in names if not _takes_sets(name, config)]


def _takes_sets(name: str, config: ViTConfig) -> bool:
    grid, options = Grid(2, 3), options_for(name, config.mixer_options)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        try:
            mixer = create_mixer(name, 8, num_heads=1, grid=grid, options=options).eval()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise RegardError(f"model.mixer_options: with these the mixer {name} is larger than memory") from None
        x, order = torch.randn(1, 5, 8), torch.tensor([3, 1, 4, 0, 2])
        try:
            return torch.allclose(mixer(x[:, order]), mixer(x)[:, order], atol=1e-4)
        except (RegardError, RuntimeError):
            return False


def _values(vit: ViT) -> int:
    """Of one patch."""
    return vit.config.patch_size**2 * vit.config.in_chans
