"""The isotropic encoder: ViT (Dosovitskiy et al. 2020), with any token mixer in the place of attention."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Annotated, Any, Literal

import torch
from annotated_types import Interval
from jaxtyping import Float
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from regard.errors import RegardError, unknown
from regard.layers import Block, Grid, LearnedPositions, PatchEmbed, SinePositions, Trace
from regard.mixers import create_mixer, one_each, options_for
from regard.models.image_model import TokenModel


@dataclass(frozen=True)
class ViTConfig:
    """All that a ViT is built from; the names are timm's where timm has one."""

    img_size: PositiveInt | tuple[PositiveInt, PositiveInt] = 224
    """Pixels, one number or (height, width)."""
    patch_size: PositiveInt = 16
    in_chans: PositiveInt = 3
    num_classes: NonNegativeInt = 1000
    """With 0 there is no head, and the pooled features come out."""
    embed_dim: PositiveInt = 768
    depth: PositiveInt = 12
    num_heads: PositiveInt = 12
    mlp_ratio: PositiveFloat = 4.0
    mixer: str | tuple[str, ...] = "attention"
    """A name of MIXERS, or one a block."""
    mixer_options: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the mixer's constructor; or a table of them under each mixer's name, for models that mix or vary."""
    pool: Literal["token", "avg", "token_avg", "distilled"] = "token"
    """What the head reads: a class token; the mean over the patches; one beside the other (DINOv2's linear probe); or
    the class token, while a second head reads the first register and the two are averaged (DeiT's distillation)."""
    class_token: bool | None = None
    """Whether there is one; where the head reads it, unless given."""
    num_registers: NonNegativeInt = 0
    """Learned tokens behind the class token that stand for no patch (Darcet et al. 2023); DeiT's distillation token."""
    fc_norm: bool = False
    """The last norm comes after the pooling (timm's name), not before."""
    norm_eps: PositiveFloat = 1e-6
    """Of all norms; transformers' ViT and DeiT were trained with 1e-12."""
    positions: Literal["learned", "sine", "none"] = "learned"
    position_std: PositiveFloat = 0.02
    """Deviation that learned positions start with; a small model from scratch wants them as large as its tokens."""
    antialias: bool = True
    """Of learned positions that are resampled for another grid; DINOv2 was trained without."""
    drop_path: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    """Rate in the last block; it rises linearly from zero."""
    layer_scale: PositiveFloat | None = None
    """Initial value of LayerScale, or none of it."""


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
        rates = [config.drop_path * i / max(config.depth - 1, 1) for i in range(config.depth)]
        self.blocks: Sequence[Block] = nn.ModuleList(  # type: ignore[assignment] # it is one, but not by name
            Block(
                dim,
                create_mixer(
                    name,
                    dim,
                    num_heads=config.num_heads,
                    grid=self.grid,
                    options=options_for(name, config.mixer_options),
                ),
                mlp_ratio=config.mlp_ratio,
                drop_path=rate,
                layer_scale=config.layer_scale,
                norm_eps=config.norm_eps,
            )
            for name, rate in zip(mixers, rates, strict=True)
        )
        self.norm = nn.Identity() if config.fc_norm else nn.LayerNorm(dim, eps=config.norm_eps)
        self.fc_norm = nn.LayerNorm(self.num_features, eps=config.norm_eps) if config.fc_norm else nn.Identity()
        self.head = nn.Linear(self.num_features, config.num_classes) if config.num_classes else nn.Identity()
        if config.pool == "distilled":
            self.head_dist = nn.Linear(dim, config.num_classes) if config.num_classes else nn.Identity()
        self.apply(_init_weights)

    @property
    def num_features(self) -> int:
        """Channels of what the head reads."""
        return self.config.embed_dim * (2 if self.config.pool == "token_avg" else 1)

    def forward(
        self, images: Float[Tensor, "batch in_chans height width"], *, trace: Trace | None = None
    ) -> Float[Tensor, "batch num_classes"]:
        """Logits. A dict given as `trace` receives every intermediate that `intermediate_names` lists."""
        # The head reads the class token alone, so the last block need not finish the others: a gain of one MLP.
        reads_one = self.config.pool == "token" and trace is None
        tokens = self._encode(images, first=1 if reads_one else None, trace=trace)
        return self.forward_head(tokens, trace=trace)

    def forward_features(
        self, images: Float[Tensor, "batch in_chans height width"], *, trace: Trace | None = None
    ) -> Float[Tensor, "batch tokens embed_dim"]:
        """All tokens after the last norm, the prefix first. Images may have any size that patches tile."""
        return self._encode(images, first=None, trace=trace)

    def _encode(self, images: Tensor, *, first: int | None, trace: Trace | None) -> Tensor:
        """The last block's `first` tokens, or all of them."""
        height, width = images.shape[-2:]
        grid = self.patch_embed.grid(height, width, prefix=self.grid.prefix)
        x = self.patch_embed(images)
        _record(trace, patches=x)
        prefix = [token.expand(len(x), -1, -1) for token in self._prefix_tokens()]
        x = torch.cat([*prefix, x], dim=1) if prefix else x
        if self.pos_embed is not None:
            x = x + self.pos_embed(grid)
        _record(trace, embedding=x)
        for i, block in enumerate(self.blocks):
            kept = first if i + 1 == self.config.depth else None
            if self.gradient_checkpointing and torch.is_grad_enabled() and trace is None:
                x = checkpoint(block, x, grid=grid, first=kept, use_reentrant=False)
                continue
            inside: Trace | None = None if trace is None else {}
            x = block(x, grid=grid, first=kept, trace=inside)
            _record(trace, **{f"blocks.{i}.{name}": tensor for name, tensor in (inside or {}).items()})
            _record(trace, **{f"blocks.{i}": x})
        x = self.norm(x)
        _record(trace, features=x)
        return x

    def _prefix_tokens(self) -> list[Tensor]:
        return [getattr(self, name) for name in ("cls_token", "reg_token") if hasattr(self, name)]

    def pool(self, tokens: Float[Tensor, "batch tokens embed_dim"]) -> Float[Tensor, "batch num_features"]:
        """What the head reads of all tokens: a feature vector an image."""
        kind, patches = self.config.pool, tokens[:, self.grid.prefix :]
        if kind == "token_avg":
            pooled = torch.cat([tokens[:, 0], patches.mean(1)], dim=1)
        else:
            pooled = patches.mean(1) if kind == "avg" else tokens[:, 0]
        return self.fc_norm(pooled)

    def forward_head(
        self,
        tokens: Float[Tensor, "batch tokens embed_dim"],
        pre_logits: bool = False,
        *,
        trace: Trace | None = None,
    ) -> Float[Tensor, "batch outputs"]:
        """Logits of the pooled tokens; with a distillation token, the mean of both. `pre_logits`: the pooled tokens."""
        pooled = self.pool(tokens)
        if pre_logits:
            return pooled
        logits = self.head(pooled)
        if self.config.pool == "distilled":
            logits = (logits + self.head_dist(tokens[:, 1])) / 2
        _record(trace, pre_logits=pooled, logits=logits)
        return logits

    def intermediate_names(self) -> list[str]:
        """What a `trace` receives, in the order of computation."""
        inside = [
            f"blocks.{i}{part}" for i in range(self.config.depth) for part in (".mixer_input", ".mixer_output", "")
        ]
        return ["patches", "embedding", *inside, "features", "pre_logits", "logits"]

    def intermediates(
        self, images: Float[Tensor, "batch in_chans height width"], names: Sequence[str] | None = None
    ) -> dict[str, Tensor]:
        """The named intermediates of one forward pass (all of them unless `names` picks)."""
        known = self.intermediate_names()
        for name in names or ():
            if name not in known:
                raise unknown("intermediate", name, known)
        trace: Trace = {}
        self(images, trace=trace)
        return trace if names is None else {name: trace[name] for name in names}

    def layer_number(self, name: str) -> int:
        """How deep a parameter lies: 0 before the blocks, i + 1 in block i, and behind the last of them depth + 1."""
        part, _, rest = name.partition(".")
        if part == "blocks":
            return int(rest.partition(".")[0]) + 1
        return self.config.depth + 1 if part in ("norm", "fc_norm", "head", "head_dist") else 0

    def flops(self) -> int:
        """Operations for one image of the built size: a multiply and an add are two; norms and softmax are left out.

        By the definition, with every token through every block.
        """
        inside = sum(block.flops(self.grid) for block in self.blocks)
        head = 2 * self.head.weight.numel() if isinstance(self.head, nn.Linear) else 0
        return self.patch_embed.flops(self.grid) + inside + head


def _has_class_token(config: ViTConfig) -> bool:
    """RegardError where the head would read a token that is not there."""
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
    """Variance 1 / fan-in (LeCun), so that width does not matter: 0.02, usual at 768, stalls an encoder of 64."""
    if isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.trunc_normal_(module.weight, std=module.weight[0].numel() ** -0.5)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _record(trace: Trace | None, **tensors: Tensor) -> None:
    if trace is not None:
        trace |= tensors
