"""The isotropic encoder: ViT (Dosovitskiy et al. 2020), with any token mixer in the place of attention."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from regard.errors import RegardError
from regard.layers import (
    Block,
    Grid,
    LearnedPositions,
    PatchEmbed,
    SinePositions,
    Tap,
    checkpointed,
    first_input,
    freeze,
    layer_taps,
    record,
)
from regard.mixers import create_mixer, one_each, options_for
from regard.models.bounds import CountOrNone, Depth, Rate, Ratio, Side, Width
from regard.models.image_model import TokenModel


@dataclass(frozen=True)
class ViTConfig:
    """All that a ViT is built from; names are timm's where it has them."""

    img_size: Side | tuple[Side, Side] = 224
    """Pixels, one number or (height, width)."""
    patch_size: Side = 16
    in_chans: Width = 3
    num_classes: CountOrNone = 1000
    """With 0 there is no head, and the pooled features come out."""
    embed_dim: Width = 768
    depth: Depth = 12
    num_heads: Width = 12
    mlp_ratio: Ratio = 4.0
    mixer: str | tuple[str, ...] = "attention"
    """A name of MIXERS, or one a block."""
    mixer_options: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the mixer's constructor; or, for several mixers, a table of them under each mixer's name."""
    pool: Literal["token", "avg", "token_avg", "distilled"] = "token"
    """What the head reads: "token", the class token; "avg", the mean over the patches; "token_avg", both, concatenated
    (DINOv2's linear probe); "distilled", the class token, while a second head reads the first register and the logits
    are averaged (DeiT)."""
    class_token: bool | None = None
    """Whether there is one. Unless given, there is one if the head reads it."""
    num_registers: CountOrNone = 0
    """Learned tokens without a patch, behind the class token (Darcet et al. 2023); DeiT's distillation token is one."""
    fc_norm: bool = False
    """The last norm comes after the pooling (timm's name), not before."""
    norm_eps: Ratio = 1e-6
    """The epsilon of all norms; transformers' ViT and DeiT were trained with 1e-12."""
    positions: Literal["learned", "sine", "none"] = "learned"
    position_std: Ratio = 0.02
    """Initial standard deviation of learned positions; 1, as large as the tokens, for a small model from scratch."""
    antialias: bool = True
    """Whether learned positions are resampled with antialiasing; DINOv2 was trained without."""
    drop_path: Rate = 0.0
    """Rate in the last block; it rises linearly from zero."""
    layer_scale: Ratio | None = None
    """Initial value of LayerScale; None for a model without it."""


_DINOV2_S = ViTConfig(
    img_size=518, patch_size=14, num_classes=0, embed_dim=384, num_heads=6, layer_scale=1.0, antialias=False
)
_DINOV2 = {
    "dinov2_vits14": _DINOV2_S,
    "dinov2_vitb14": replace(_DINOV2_S, embed_dim=768, num_heads=12),
    "dinov2_vitl14": replace(_DINOV2_S, embed_dim=1024, depth=24, num_heads=16),
}
# Oquab et al. 2023, table 17, and with the registers of Darcet et al. 2023; they have no head.
DINOV2: MappingProxyType[str, ViTConfig] = MappingProxyType(
    _DINOV2 | {f"{name}_reg4": replace(config, num_registers=4) for name, config in _DINOV2.items()}
)


class LastBlock(Block):
    """A block that need not finish the tokens which no head reads: a gain of one MLP."""

    def forward(
        self,
        x: Float[Tensor, "batch tokens embed_dim"],
        *,
        grid: Grid | None = None,
        mask: Bool[Tensor, "batch tokens"] | None = None,
        first: int | None = None,
    ) -> Float[Tensor, "batch outputs embed_dim"]:
        """All tokens, or only the `first` of them: all are mixed, and the `first` go through the MLP."""
        if first is None:
            return super().forward(x, grid=grid, mask=mask)
        mixed = self.mixer(self.norm1(x), grid=grid, mask=mask)
        x = x[:, :first] + self.drop_path(self.ls1(mixed[:, :first]))
        return x + self.drop_path(self.ls2(self.mlp(self.norm2(x))))


class ViT(TokenModel):
    """Patches, positions, `depth` pre-norm blocks, a norm, and a linear head (Dosovitskiy et al. 2020, eq. 1 to 4)."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.config = config
        height, width = (config.img_size,) * 2 if isinstance(config.img_size, int) else config.img_size
        mixers = one_each(config.mixer, config.depth, "block")
        dim = config.embed_dim

        has_class_token = _has_class_token(config)
        self.patch_embed = PatchEmbed(config.patch_size, config.in_chans, dim)
        self.grid = self.patch_embed.grid(height, width, prefix=has_class_token + config.num_registers)
        if has_class_token:
            self.cls_token = nn.Parameter(torch.empty(1, 1, dim))
            nn.init.normal_(self.cls_token, std=1e-6)
        if config.num_registers:
            self.reg_token = nn.Parameter(torch.empty(1, config.num_registers, dim))
            nn.init.normal_(self.reg_token, std=1e-6)
        self.pos_embed = _positions(config, self.grid)
        self.blocks: Sequence[Block] = nn.ModuleList(  # type: ignore[assignment] # it is one, but not by name
            (LastBlock if i + 1 == config.depth else Block)(
                dim,
                create_mixer(
                    name,
                    dim,
                    num_heads=config.num_heads,
                    grid=self.grid,
                    options=options_for(name, config.mixer_options),
                ),
                mlp_ratio=config.mlp_ratio,
                drop_path=config.drop_path * i / max(config.depth - 1, 1),
                layer_scale=config.layer_scale,
                norm_eps=config.norm_eps,
            )
            for i, name in enumerate(mixers)
        )
        self.norm = nn.Identity() if config.fc_norm else nn.LayerNorm(dim, eps=config.norm_eps)
        self.fc_norm = nn.LayerNorm(self.num_features, eps=config.norm_eps) if config.fc_norm else nn.Identity()
        self.head = nn.Linear(self.num_features, config.num_classes) if config.num_classes else nn.Identity()
        if config.pool == "distilled":
            self.head_dist = nn.Linear(dim, config.num_classes) if config.num_classes else nn.Identity()
        self.apply(self.init_weights)

    @property
    def num_features(self) -> int:
        """Channels of what the head reads."""
        return self.config.embed_dim * (2 if self.config.pool == "token_avg" else 1)

    def init_weights(self, module: nn.Module) -> None:
        _init_weights(module)

    def forward(self, images: Float[Tensor, "batch in_chans height width"]) -> Float[Tensor, "batch num_classes"]:
        """Logits."""
        return self.forward_head(self._encode(images, first=1 if self.config.pool == "token" else None))

    def forward_features(
        self, images: Float[Tensor, "batch in_chans height width"]
    ) -> Float[Tensor, "batch tokens embed_dim"]:
        """All tokens after the last norm, the prefix first. Images may have any size that patches tile."""
        return self._encode(images, first=None)

    def _encode(self, images: Tensor, *, first: int | None) -> Tensor:
        """The `first` tokens after the last norm, or all of them."""
        x, grid = self._embedded(images)
        *blocks, last = self.blocks
        for block in blocks:
            x = checkpointed(self.gradient_checkpointing, block, x, grid=grid)
        return self.norm(checkpointed(self.gradient_checkpointing, last, x, grid=grid, first=first))

    def after_blocks(
        self, images: Float[Tensor, "batch in_chans height width"], indices: Sequence[int]
    ) -> list[Float[Tensor, "batch tokens embed_dim"]]:
        """All tokens after each of these blocks, in the order of computation; without hooks, so that it exports."""
        x, grid = self._embedded(images)
        found = []
        for number in range(max(indices) + 1):
            x = checkpointed(self.gradient_checkpointing, self.blocks[number], x, grid=grid)
            if number in indices:
                found.append(x)
        return found

    def _embedded(self, images: Tensor) -> tuple[Tensor, Grid]:
        """The tokens before the first block, and their grid."""
        height, width = images.shape[-2:]
        grid = self.patch_embed.grid(height, width, prefix=self.grid.prefix)
        return self.placed(self.patch_embed(images), grid), grid

    def placed(
        self, patches: Float[Tensor, "batch patches embed_dim"], grid: Grid
    ) -> Float[Tensor, "batch tokens embed_dim"]:
        """The input of the first block: embedded patches behind the prefix tokens, each token with its position."""
        prefix = [token.expand(patches.shape[0], -1, -1) for token in self._prefix_tokens()]
        x = torch.cat([*prefix, patches], dim=1) if prefix else patches
        return x if self.pos_embed is None else x + self.pos_embed(grid)

    def _prefix_tokens(self) -> list[Tensor]:
        return [getattr(self, name) for name in ("cls_token", "reg_token") if hasattr(self, name)]

    def pool(self, tokens: Float[Tensor, "batch tokens embed_dim"]) -> Float[Tensor, "batch num_features"]:
        """The feature vector of each image, which the head reads."""
        kind, patches = self.config.pool, tokens[:, self.grid.prefix :]
        if kind == "token_avg":
            pooled = torch.cat([tokens[:, 0], patches.mean(1)], dim=1)
        else:
            pooled = patches.mean(1) if kind == "avg" else tokens[:, 0]
        return self.fc_norm(pooled)

    def forward_head(
        self, tokens: Float[Tensor, "batch tokens embed_dim"], pre_logits: bool = False
    ) -> Float[Tensor, "batch outputs"]:
        """Logits of the pooled tokens; with a distillation token, the mean of both. `pre_logits`: the pooled tokens."""
        pooled = self.pool(tokens)
        if pre_logits:
            return pooled
        logits = self.head(pooled)
        return (logits + self.head_dist(tokens[:, 1])) / 2 if self.config.pool == "distilled" else logits

    def intermediate_names(self) -> list[str]:
        """The names that `intermediates` knows, in the order of computation."""
        return [*self._taps(), "logits"]

    def intermediates(
        self, images: Float[Tensor, "batch in_chans height width"], names: Sequence[str] | None = None
    ) -> dict[str, Tensor]:
        """The named intermediates of one forward pass (all of them unless `names` picks).

        All tokens go through the last block. RegardError for an unknown name.
        """
        return record(self._taps(), ["logits"], lambda: [self.forward_head(self.forward_features(images))], names)

    def _taps(self) -> dict[str, Tap]:
        return {
            "patches": Tap(self.patch_embed),
            "embedding": Tap(self.blocks[0], first_input),
            **layer_taps("blocks", self.blocks),
            "features": Tap(self.norm),
            "pre_logits": Tap(self.fc_norm),
        }

    def freeze_first(self, count: int) -> None:
        """Stops patches, positions, prefix tokens and the first `count` blocks from learning.

        RegardError for more blocks than there are.
        """
        if not 1 <= count <= self.config.depth:
            raise RegardError(f"model.freeze is {count}; it can be 1 to {self.config.depth} blocks of this ViT")
        freeze(self, lambda name: self.layer_number(name) <= count)

    def layer_number(self, name: str) -> int:
        """The depth of a parameter in the model: 0 before the blocks, i + 1 in block i, depth + 1 behind the last."""
        part, _, rest = name.partition(".")
        if part == "blocks":
            return int(rest.partition(".")[0]) + 1
        return self.config.depth + 1 if part in ("norm", "fc_norm", "head", "head_dist") else 0

    def flops(self) -> int:
        """Operations for one image of the built size: a multiply and an add are two; norms and softmax are left out.

        Every token is counted in every block.
        """
        inside = sum(block.flops(self.grid) for block in self.blocks)
        head = 2 * self.head.weight.numel() if isinstance(self.head, nn.Linear) else 0
        return self.patch_embed.flops(self.grid) + inside + head


def _has_class_token(config: ViTConfig) -> bool:
    """Whether the model has a class token. RegardError where the head would read a token that is not there."""
    read = config.pool != "avg"
    if read and config.class_token is False:
        raise RegardError(f"model.pool: {config.pool} reads a class token, and class_token is false; avg does not")
    if config.pool == "distilled" and not config.num_registers:
        raise RegardError("model.pool: distilled reads a second token; set num_registers = 1")
    return read if config.class_token is None else config.class_token


def _positions(config: ViTConfig, grid: Grid) -> nn.Module | None:
    if config.positions == "learned":
        return LearnedPositions(grid, config.embed_dim, config.position_std, antialias=config.antialias)
    return SinePositions(config.embed_dim) if config.positions == "sine" else None


def _init_weights(module: nn.Module) -> None:
    """Variance 1 / fan-in (LeCun), for any width: with the usual deviation of 0.02 an encoder of width 64 stalls."""
    if isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.trunc_normal_(module.weight, std=module.weight[0].numel() ** -0.5)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
