"""Backbones, which make feature maps of images: convolutional networks of timm, SASA-ResNets, and ViTs."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from regard.errors import RegardError, one_line, unknown
from regard.layers.freezing import freeze
from regard.layers.frozen_norm import freeze_norms, fuse_norms
from regard.layers.grid import Grid
from regard.models.sasa_resnet import SASA_RESNETS, SASAResNet
from regard.models.vit import DINOV2, ViT

# timm's networks with fewer channels, for small images on a CPU: timm's name, and the arguments that differ.
NARROW: dict[str, tuple[str, dict[str, Any]]] = {
    "resnet18_narrow": ("resnet18", {"channels": (32, 64, 128, 256), "stem_width": 16, "stem_type": "deep"}),
}

SASA_BACKBONES = tuple(name for name, config in SASA_RESNETS.items() if "attention" in config.stages)


class TimmBackbone(nn.Module):
    """The last feature map of any of timm's models that has feature maps (`features_only`), with random weights.

    dilated: the last stage keeps the resolution of the one before and dilates instead (DETR's DC5).
    frozen_norm: batch norms are constants, fused into their convolutions, as DETR has them for pretrained weights.
    reductions: of the maps that `every_level` gives; timm cuts most networks behind the last of them.
    `out_chans` is the number of channels of the last map, and `reduction` its stride in pixels of the image;
    `level_chans` and `reductions` are those of each map.
    Raises RegardError for a name that timm does not have, and for a model that cannot be dilated or lacks such a map.
    """

    def __init__(
        self,
        name: str,
        *,
        dilated: bool = False,
        in_chans: int = 3,
        frozen_norm: bool = True,
        reductions: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.name, self.dilated, self.in_chans, self.frozen = name, dilated, in_chans, frozen_norm
        indices = (-1,) if reductions is None else _indices(name, reductions)
        self.body = create_body(name, dilated=dilated, in_chans=in_chans, pretrained=False, indices=indices)
        info: Any = self.body.feature_info
        self.level_chans: tuple[int, ...] = tuple(info.channels())
        self.reductions: tuple[int, ...] = tuple(info.reduction())
        self.out_chans, self.reduction = self.level_chans[-1], self.reductions[-1]
        if frozen_norm:
            freeze_norms(self.body)
            fuse_norms(self.body)
        self.body.to(memory_format=torch.channels_last)  # makes convolutions on a CPU a fifth faster

    def forward(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch out_chans rows columns"]:
        return self.every_level(images)[-1]

    def every_level(self, images: Float[Tensor, "batch channels height width"]) -> list[Tensor]:
        """The maps of all `reductions`, the finest first."""
        return list(self.body(images.contiguous(memory_format=torch.channels_last)))

    def freeze_stem(self) -> None:
        """Stops the stem and the first stage from learning, as DETR does with pretrained weights."""
        for name, parameter in self.body.named_parameters():
            if name.startswith(("conv1", "bn1", "layer1", "conv_stem", "stem", "blocks.0.", "blocks_0", "stages_0")):
                parameter.requires_grad_(False)

    def freeze_first(self, count: int) -> None:
        """Stops all up to the end of stage `count` from learning, where a stage ends with a feature map of stride 4 or
        more. RegardError for more stages than there are."""
        info: Any = self.body.feature_info
        ends = [stage["module"] for stage in info.info if stage["reduction"] >= 4]
        names = [name for name, _ in self.body.named_parameters()]
        # timm writes blocks.1 as blocks_1 where it makes a list of stages, and cuts what is behind the last map.
        starts = [(f"{end}.", f"{end.replace('.', '_')}.") for end in ends]
        last = [max((n for n, name in enumerate(names) if name.startswith(start)), default=-1) for start in starts]
        last = [place for place in last if place >= 0]
        if not 1 <= count <= len(last):
            raise RegardError(f"model.freeze is {count}; it can be 1 to {len(last)} stages of {self.name}")
        frozen = set(names[: last[count - 1] + 1])
        freeze(self.body, frozen.__contains__)

    def flops(self, height: int, width: int) -> int:
        """Operations for one image: those of the convolutions and linear maps, a multiply and an add being two."""
        from torch.utils.flop_counter import FlopCounterMode  # a tenth of a second that few need

        body = copy.deepcopy(self.body).to("meta")
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            body(torch.empty(1, self.in_chans, height, width, device="meta"))
        return counter.get_total_flops()


class SASABackbone(nn.Module):
    """The last feature map of a SASA-ResNet (`sasa_resnet50`, ...), with random weights; otherwise as `TimmBackbone`.

    RegardError for `dilated`: its attention pools where a convolution would stride.
    """

    def __init__(self, name: str, *, dilated: bool = False, in_chans: int = 3, frozen_norm: bool = True) -> None:
        super().__init__()
        if dilated:
            raise RegardError(f"model.backbone: {name} pools where it would stride, and cannot be dilated")
        self.name, self.dilated, self.in_chans, self.frozen = name, dilated, in_chans, frozen_norm
        self.body = SASAResNet(replace(SASA_RESNETS[name], in_chans=in_chans, num_classes=0))
        self.out_chans, self.reduction = self.body.out_chans, self.body.reduction
        self.level_chans, self.reductions = (self.out_chans,), (self.reduction,)
        if frozen_norm:
            freeze_norms(self.body)

    def forward(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch out_chans rows columns"]:
        return self.body.forward_features(images)

    def every_level(self, images: Float[Tensor, "batch channels height width"]) -> list[Tensor]:
        """The only map."""
        return [self(images)]

    def freeze_stem(self) -> None:
        """Stops the stem from learning."""
        self.body.stem.requires_grad_(False)

    def freeze_first(self, count: int) -> None:
        """As `SASAResNet.freeze_first`."""
        self.body.freeze_first(count)

    def flops(self, height: int, width: int) -> int:
        """Operations for one image, as `SASAResNet.flops` counts them."""
        return self.body.flops(height, width)


class ViTBackbone(nn.Module):
    """The patches of a ViT after its last norm, as a feature map (`dinov2_vits14`), with random weights.

    blocks: the blocks, counted from 1, whose patches are joined as channels of the map, each after the last norm; the
    last block alone unless given. Images that patches do not tile are padded with zeros, right and below. `frozen_norm`
    changes nothing, since a ViT has no batch norms. RegardError for `dilated`, and for a block that there is not.
    """

    def __init__(
        self,
        name: str,
        *,
        dilated: bool = False,
        in_chans: int = 3,
        frozen_norm: bool = True,
        blocks: Sequence[int] = (),
    ) -> None:
        super().__init__()
        if dilated:
            raise RegardError(f"model.backbone: {name} has one resolution throughout, and cannot be dilated")
        self.name, self.dilated, self.in_chans, self.frozen = name, dilated, in_chans, frozen_norm
        self.body, self.blocks = ViT(replace(DINOV2[name], in_chans=in_chans, num_classes=0)), tuple(blocks)
        depth = self.body.config.depth
        if list(blocks) != sorted({block for block in blocks if 1 <= block <= depth}):
            raise RegardError(
                f"model.backbone_blocks is {list(blocks)}; {name} has blocks 1 to {depth}, each named once, in order"
            )
        self.out_chans = self.body.config.embed_dim * max(len(self.blocks), 1)
        self.reduction = self.body.config.patch_size
        self.level_chans, self.reductions = (self.out_chans,), (self.reduction,)

    def forward(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch out_chans rows columns"]:
        height, width = images.shape[-2:]
        padded = nn.functional.pad(images, (0, -width % self.reduction, 0, -height % self.reduction))
        rows, columns = (side // self.reduction for side in padded.shape[-2:])
        if self.blocks:
            found = self.body.after_blocks(padded, [block - 1 for block in self.blocks])
            tokens = torch.cat([self.body.norm(one) for one in found], dim=2)
        else:
            tokens = self.body.forward_features(padded)
        patches = tokens[:, self.body.grid.prefix :].transpose(1, 2).unflatten(2, (rows, columns))
        return patches.contiguous() if self.blocks else patches

    def every_level(self, images: Float[Tensor, "batch channels height width"]) -> list[Tensor]:
        """The only map."""
        return [self(images)]

    def freeze_stem(self) -> None:
        """Stops patches, positions and prefix tokens from learning."""
        for name, parameter in self.body.named_parameters():
            if not name.startswith(("blocks.", "norm.")):
                parameter.requires_grad_(False)

    def freeze_but_last(self, blocks: int) -> None:
        """Stops all but the last `blocks` blocks and the last norm from learning. RegardError for too many blocks."""
        depth = self.body.config.depth
        if blocks > depth:
            raise RegardError(f"model.learn_blocks is {blocks}; {self.name} has {depth} blocks")
        learning = ("norm.", *(f"blocks.{number}." for number in range(depth - blocks, depth)))
        for name, parameter in self.body.named_parameters():
            parameter.requires_grad_(name.startswith(learning))

    def freeze_first(self, count: int) -> None:
        """As `ViT.freeze_first`."""
        self.body.freeze_first(count)

    def flops(self, height: int, width: int) -> int:
        """Operations for one image, as `ViT.flops` counts them."""
        rows, columns = (-(-side // self.reduction) for side in (height, width))
        grid = Grid(rows, columns, self.body.grid.prefix)
        return self.body.patch_embed.flops(grid) + sum(block.flops(grid) for block in self.body.blocks)


Backbone = TimmBackbone | SASABackbone | ViTBackbone


def create_backbone(
    name: str,
    *,
    dilated: bool = False,
    in_chans: int = 3,
    frozen_norm: bool = True,
    reductions: Sequence[int] | None = None,
    blocks: Sequence[int] = (),
) -> Backbone:
    """A SASA-ResNet or a DINOv2 by its preset's name, or else timm's model of that name. RegardError as theirs.

    With `reductions` it gives the maps of these strides. Strides above the network's coarsest are left out; RegardError
    for any other stride that the network lacks. `blocks` are those of a ViT whose patches are joined.
    """
    if blocks and name not in DINOV2:
        raise RegardError(f"model.backbone_blocks is for a backbone that is a ViT; {name} is none")
    if name in DINOV2 or name in SASA_BACKBONES:
        only: SASABackbone | ViTBackbone
        if name in DINOV2:
            only = ViTBackbone(name, dilated=dilated, in_chans=in_chans, frozen_norm=frozen_norm, blocks=blocks)
        else:
            only = SASABackbone(name, dilated=dilated, in_chans=in_chans, frozen_norm=frozen_norm)
        if reductions is not None and min(reductions) != only.reduction:
            raise RegardError(f"model.strides: {name} has one feature map, of stride {only.reduction}: begin with it")
        return only
    return TimmBackbone(name, dilated=dilated, in_chans=in_chans, frozen_norm=frozen_norm, reductions=reductions)


def vit_stride(name: str) -> int | None:
    """The stride of a ViT's only map; None for other networks."""
    return DINOV2[name].patch_size if name in DINOV2 else None


def timm_model(name: str) -> nn.Module:
    """timm's whole model, with random weights."""
    import timm

    return timm.create_model(name)


def create_body(
    name: str, *, dilated: bool, in_chans: int, pretrained: bool, indices: Sequence[int] | None = (-1,)
) -> nn.Module:
    """timm's model with the feature maps of `indices`, or all of them. RegardError as `TimmBackbone`."""
    import timm  # it takes a second to import

    _require_name(name)
    of_timm, options = NARROW.get(name, (name, {}))
    options = {**options, "output_stride": 16} if dilated else dict(options)
    if indices is not None:
        options["out_indices"] = tuple(indices)
    if pretrained and name in NARROW:
        raise RegardError(f"{name}: there are no pretrained weights; it is timm's {of_timm} with fewer channels")
    try:
        model: nn.Module = timm.create_model(
            of_timm, features_only=True, pretrained=pretrained, in_chans=in_chans, **options
        )
    except (NotImplementedError, AssertionError, RuntimeError, TypeError) as error:
        if pretrained:
            raise
        how = ", dilated," if dilated else ""
        raise RegardError(f"model.backbone: timm's {name} cannot be a backbone{how} here: {one_line(error)}") from None
    return model


def _indices(name: str, reductions: Sequence[int]) -> tuple[int, ...]:
    """The indices of timm's feature maps with these reductions; without those above the coarsest map."""
    with torch.device("meta"):
        whole: Any = create_body(name, dilated=False, in_chans=3, pretrained=False, indices=None)
    known: list[int] = whole.feature_info.reduction()
    missing = [reduction for reduction in reductions if reduction not in known and reduction < max(known)]
    found = tuple(known.index(reduction) for reduction in reductions if reduction in known)
    if missing or not found:
        raise RegardError(
            f"model.strides: {name} has no feature map of stride {(missing or list(reductions))[0]}; "
            f"it has {', '.join(map(str, known))}"
        )
    return found


def _require_name(name: str) -> None:
    import timm

    if name not in NARROW and not timm.is_model(name):
        raise unknown("backbone", name, [*timm.list_models(), *NARROW, *DINOV2, *SASA_BACKBONES])
