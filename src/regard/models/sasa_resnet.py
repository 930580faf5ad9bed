"""SASA-ResNet: ResNets whose spatial convolutions are local attention (Ramachandran et al. 2019, section 3)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from annotated_types import Len
from jaxtyping import Float
from torch import Tensor, nn

from regard.errors import RegardError
from regard.layers import (
    DropPath,
    LocalAttention2d,
    StemAttention2d,
    Tap,
    checkpointed,
    first_input,
    freeze,
    layer_taps,
    record,
)
from regard.models.bounds import CountOrNone, Depths, Rate, Side, Width
from regard.models.image_model import StageModel

EXPANSION = 4
"""A block's output has so many times the channels of its spatial layer."""

Kind = Literal["conv", "attention"]


@dataclass(frozen=True)
class SASAResNetConfig:
    """All that a SASA-ResNet is built from; names are timm's where it has them."""

    img_size: Side | tuple[Side, Side] = 224
    """Pixels, which only `flops` uses: images may have any size."""
    in_chans: Width = 3
    num_classes: CountOrNone = 1000
    """With 0 there is no head, and the pooled features come out."""
    embed_dim: Width = 64
    """Channels of the stem and of the first stage's spatial layers; each further stage has twice as many."""
    depths: Depths = (3, 4, 6, 3)
    """Blocks of each stage."""
    stem: Literal["conv", "attention", "small"] = "conv"
    """7 × 7 convolution and pooling; attention with mixed values and pooling (eq. 4); or, for images of few pixels,
    a 3 × 3 convolution that keeps the resolution."""
    stages: Annotated[tuple[Kind, ...], Len(1)] = ("attention",)
    """The kind of the spatial layers, one for all stages or one a stage.

    The paper's best has convolutions early and attention late (table 3)."""
    num_heads: Width = 8
    window: Width = 7
    drop_path: Rate = 0.0
    """Rate in the last block; it rises linearly from zero."""

    @property
    def depth(self) -> int:
        """Layers, as the names of ResNets count them."""
        return 3 * sum(self.depths) + 2


class Bottleneck(nn.Module):
    """1 × 1 convolution, spatial layer, 1 × 1 convolution, each with batch norm, in a residual block (He et al. 2015).

    The names are those of torchvision and timm.
    """

    def __init__(self, in_chans: int, chans: int, spatial: nn.Module, stride: int, drop_path: float = 0.0) -> None:
        super().__init__()
        self.stride = stride
        self.conv1 = nn.Conv2d(in_chans, chans, kernel_size=1, bias=False)
        self.bn1 = nn.BatchNorm2d(chans)
        self.conv2 = spatial
        self.bn2 = nn.BatchNorm2d(chans)
        self.conv3 = nn.Conv2d(chans, EXPANSION * chans, kernel_size=1, bias=False)
        self.bn3 = nn.BatchNorm2d(EXPANSION * chans)
        self.drop_path = DropPath(drop_path)
        self.downsample = None
        if stride != 1 or in_chans != EXPANSION * chans:
            shortcut = nn.Conv2d(in_chans, EXPANSION * chans, kernel_size=1, stride=stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(EXPANSION * chans))

    def forward(
        self, x: Float[Tensor, "batch in_chans height width"]
    ) -> Float[Tensor, "batch out_chans height2 width2"]:
        skip = x if self.downsample is None else self.downsample(x)
        x = self.bn1(self.conv1(x)).relu()
        x = self.bn2(self.conv2(x)).relu()
        return (self.drop_path(self.bn3(self.conv3(x))) + skip).relu()

    def flops(self, height: int, width: int) -> int:
        shrunk = -(-height // self.stride) * -(-width // self.stride)
        of_spatial = (
            self.conv2.flops(height, width)
            if isinstance(self.conv2, LocalAttention2d)
            else 2 * shrunk * _numel(self.conv2)
        )
        shortcut = 0 if self.downsample is None else _numel(self.downsample[0])
        return 2 * height * width * _numel(self.conv1) + of_spatial + 2 * shrunk * (_numel(self.conv3) + shortcut)


class Stem(nn.Module):
    """The first layer, a batch norm, and pooling."""

    def __init__(self, kind: str, in_chans: int, chans: int, num_heads: int) -> None:
        super().__init__()
        if kind == "attention":
            self.conv1: nn.Module = StemAttention2d(in_chans, chans, num_heads=num_heads)
            self.pool: nn.Module = nn.MaxPool2d(4, stride=4, ceil_mode=True)
        elif kind == "conv":
            self.conv1 = nn.Conv2d(in_chans, chans, kernel_size=7, stride=2, padding=3, bias=False)
            self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        else:
            self.conv1 = nn.Conv2d(in_chans, chans, kernel_size=3, padding=1, bias=False)
            self.pool = nn.Identity()
        self.bn1 = nn.BatchNorm2d(chans)
        self.stride, self.reduction = {"attention": (1, 4), "conv": (2, 4), "small": (1, 1)}[kind]

    def forward(self, x: Float[Tensor, "batch in_chans height width"]) -> Float[Tensor, "batch chans rows columns"]:
        return self.pool(self.bn1(self.conv1(x)).relu())

    def flops(self, height: int, width: int) -> int:
        if isinstance(self.conv1, StemAttention2d):
            return self.conv1.flops(height, width)
        return 2 * -(-height // self.stride) * -(-width // self.stride) * _numel(self.conv1)


class SASAResNet(StageModel):
    """Stem, stages of bottleneck blocks, mean over the pixels, linear head. Where all stages are "conv" it is a ResNet.

    Where a block's convolution would stride, its attention is followed by pooling; so attention works at the larger
    resolution, as the paper's counts of operations imply. RegardError for channels that the heads do not divide, and
    for a wrong number of `stages`.
    """

    def __init__(self, config: SASAResNetConfig) -> None:
        super().__init__()
        self.config = config
        kinds = config.stages if len(config.stages) > 1 else config.stages * len(config.depths)
        if len(kinds) != len(config.depths):
            raise RegardError(f"SASA-ResNet: stages must name one kind, or {len(config.depths)}; got {len(kinds)}")
        self.stem = Stem(config.stem, config.in_chans, config.embed_dim, config.num_heads)
        blocks: list[nn.Module] = []
        chans = config.embed_dim
        for stage, (kind, depth) in enumerate(zip(kinds, config.depths, strict=True)):
            width = config.embed_dim * 2**stage
            for i in range(depth):
                stride = 2 if stage and i == 0 else 1
                rate = config.drop_path * len(blocks) / max(sum(config.depths) - 1, 1)
                blocks.append(Bottleneck(chans, width, _spatial(kind, width, stride, config), stride, rate))
                chans = EXPANSION * width
        self.blocks: Sequence[Bottleneck] = nn.ModuleList(blocks)  # type: ignore[assignment] # it is one, not by name
        self.out_chans = chans
        self.reduction = self.stem.reduction * 2 ** (len(config.depths) - 1)
        self.head = nn.Linear(chans, config.num_classes) if config.num_classes else nn.Identity()
        self.apply(self.init_weights)

    def init_weights(self, module: nn.Module) -> None:
        _init_weights(module)

    def forward(self, images: Float[Tensor, "batch in_chans height width"]) -> Float[Tensor, "batch num_classes"]:
        """Logits."""
        return self.forward_head(self.forward_features(images))

    def forward_features(
        self, images: Float[Tensor, "batch in_chans height width"]
    ) -> Float[Tensor, "batch out_chans rows columns"]:
        """The last block's output: each of its pixels stands for `reduction` × `reduction` of the image."""
        x = self.stem(images)
        for block in self.blocks:
            x = checkpointed(self.gradient_checkpointing, block, x)
        return x

    def forward_head(
        self, features: Float[Tensor, "batch out_chans rows columns"], pre_logits: bool = False
    ) -> Float[Tensor, "batch outputs"]:
        """Logits of the mean over the pixels; `pre_logits`: the mean alone."""
        means = features.mean((2, 3))
        return means if pre_logits else self.head(means)

    def freeze_first(self, count: int) -> None:
        """Stops the stem and the first `count` stages from learning. RegardError for more stages than there are."""
        depths = self.config.depths
        if not 1 <= count <= len(depths):
            raise RegardError(f"model.freeze is {count}; it can be 1 to {len(depths)} stages of this network")
        frozen = ("stem.", *(f"blocks.{number}." for number in range(sum(depths[:count]))))
        freeze(self, lambda name: name.startswith(frozen))

    def intermediate_names(self) -> list[str]:
        """The names that `intermediates` knows, in the order of computation."""
        return [*self._taps(), "logits"]

    def intermediates(
        self, images: Float[Tensor, "batch in_chans height width"], names: Sequence[str] | None = None
    ) -> dict[str, Tensor]:
        """The named intermediates of one forward pass (all of them unless `names` picks).

        RegardError for an unknown name.
        """
        return record(self._taps(), ["logits"], lambda: [self(images)], names)

    def _taps(self) -> dict[str, Tap]:
        blocks = layer_taps("blocks", self.blocks)
        return {"stem": Tap(self.stem), **blocks, "pre_logits": Tap(self.head, first_input)}

    def flops(self, height: int | None = None, width: int | None = None) -> int:
        """Operations for one image, of the configured size unless given: a multiply and an add are two.

        Norms, softmax and pooling are left out. So counted, the paper's tables come out; see `LocalAttention2d.flops`.
        """
        size = self.config.img_size
        built = (size, size) if isinstance(size, int) else size
        height, width = height or built[0], width or built[1]
        head = 2 * self.head.weight.numel() if isinstance(self.head, nn.Linear) else 0
        total = self.stem.flops(height, width) + head
        height, width = -(-height // self.stem.reduction), -(-width // self.stem.reduction)
        for block in self.blocks:
            total += block.flops(height, width)
            height, width = -(-height // block.stride), -(-width // block.stride)
        return total


def _spatial(kind: str, chans: int, stride: int, config: SASAResNetConfig) -> nn.Module:
    if kind == "conv":
        return nn.Conv2d(chans, chans, kernel_size=3, stride=stride, padding=1, bias=False)
    return LocalAttention2d(chans, chans, num_heads=config.num_heads, window=config.window, stride=stride)


def _init_weights(module: nn.Module) -> None:
    """He et al. 2015: variance 2 / fan-out before a ReLU; the maps to q, k and v have variance 1 / fan-in."""
    if isinstance(module, LocalAttention2d | StemAttention2d):
        projection = module.qkv if isinstance(module, LocalAttention2d) else module.qk
        nn.init.normal_(projection.weight, std=projection.in_channels**-0.5)
    elif isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.01)
        nn.init.zeros_(module.bias)


def _numel(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


_DEPTHS = {26: (1, 2, 4, 1), 38: (2, 3, 5, 2), 50: (3, 4, 6, 3)}

# The paper's, with either stem, and its convolutional baselines, which are not timm's ResNets.
SASA_RESNETS: dict[str, SASAResNetConfig] = {
    **{f"sasa_resnet{layers}": SASAResNetConfig(depths=depths) for layers, depths in _DEPTHS.items()},
    **{f"sasa_resnet{n}_stem": SASAResNetConfig(depths=depths, stem="attention") for n, depths in _DEPTHS.items()},
    **{f"sasa_baseline_resnet{n}": SASAResNetConfig(depths=depths, stages=("conv",)) for n, depths in _DEPTHS.items()},
}

# For images of 8 to 64 pixels, from scratch.
_SMALL = SASAResNetConfig(
    img_size=8, in_chans=1, num_classes=10, embed_dim=16, depths=(1, 1, 1, 1), stem="small", num_heads=2, window=5
)
SASA_RESNETS |= {"sasa_resnet14_small": _SMALL, "resnet14_small": replace(_SMALL, stages=("conv",))}
