"""The hybrid encoder of RT-DETR (Lv et al. 2023, section 4.2): attention on the coarsest map, then convolutions.

The convolutions pass information from map to map. Two maps are fused by a plain residual block, where the paper has a
larger block.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from regard.layers import Activation, Grid
from regard.models.encoder_decoder import TransformerEncoder
from regard.ops import masked_sine_positions

Shape = tuple[int, int]


class Memory(NamedTuple):
    """The tokens of all maps, one map after the other, each read row by row."""

    tokens: Float[Tensor, "batch tokens embed_dim"]
    positions: Float[Tensor, "batch tokens embed_dim"] | None
    """Sine positions in the token's own map; None without `with_positions`."""
    mask: Bool[Tensor, "batch tokens"] | None
    """True where a token is real; None where all are."""
    shapes: tuple[Shape, ...]
    """(rows, columns) of each map."""
    extents: Float[Tensor, "batch levels 2"]
    """The image's width and height as fractions of each map's: 1 without padding, where strides tile the image."""


class Fuse(nn.Module):
    """A residual block: x + silu(bn(conv(x))) with a 3 × 3 convolution.

    One convolution, not two: a second makes a training step a tenth longer, and improves the detector by less.
    In training the norm's statistics include padded pixels, so that the amount of padding in a batch matters.
    """

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(embed_dim, embed_dim, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(embed_dim)

    def forward(
        self, x: Float[Tensor, "batch embed_dim rows columns"], real: Bool[Tensor, "batch 1 rows columns"] | None
    ) -> Float[Tensor, "batch embed_dim rows columns"]:
        """`x` is zero where `real` is False, and so is the output."""
        return x + _zero_padding(F.silu(self.bn(self.conv(x))), real)


class HybridEncoder(nn.Module):
    """Maps of several strides -> `Memory`. Strided convolutions make the maps that are coarser than the backbone's, and
    transposed ones the `finer` maps, each from the next coarser one (Li et al. 2022, "simple feature pyramid").

    First `depth` encoder layers attend within the backbone's coarsest map. Then, from coarse to fine, each map is
    enlarged, added to the next finer one and fused; then, from fine to coarse, each map is shrunk, added to the next
    coarser one and fused. `strides` are those of all maps, in pixels. `with_positions` gives the memory sine positions,
    which dense cross-attention adds to its keys.
    """

    def __init__(
        self,
        level_chans: Sequence[int],
        strides: Sequence[int],
        embed_dim: int,
        num_heads: int,
        depth: int,
        *,
        mlp_ratio: float = 4.0,
        activation: Activation = "gelu",
        dropout: float = 0.0,
        mixer: str | Sequence[str] = "attention",
        mixer_options: Mapping[str, Any] | None = None,
        with_positions: bool = False,
        finer: int = 0,
    ) -> None:
        super().__init__()
        self.strides, self.with_positions = tuple(strides), with_positions
        more = len(strides) - len(level_chans) - finer
        self.project = nn.ModuleList(_convolution(chans, embed_dim, 1) for chans in level_chans)
        self.enlarge = nn.ModuleList(_transposed_convolution(embed_dim) for _ in range(finer))
        self.extend = nn.ModuleList(_convolution(embed_dim, embed_dim, 3, stride=2) for _ in range(more))
        self.encoder = TransformerEncoder(
            embed_dim,
            num_heads,
            depth,
            mlp_ratio=mlp_ratio,
            norm="post",
            activation=activation,
            dropout=dropout,
            mixer=mixer,
            mixer_options=mixer_options,
        )
        self.down = nn.ModuleList(Fuse(embed_dim) for _ in strides[1:])
        self.shrink = nn.ModuleList(_convolution(embed_dim, embed_dim, 3, stride=2) for _ in strides[1:])
        self.up = nn.ModuleList(Fuse(embed_dim) for _ in strides[1:])

    def forward(self, features: Sequence[Tensor], sizes: Float[Tensor, "batch 2"], *, padded: bool = True) -> Memory:
        """`sizes` are each image's own (width, height) in pixels, from the upper left; the rest of a map is padding.

        Features of padding change nothing. `padded=False` says that there is no padding.
        """
        shapes, finer = self._shapes(features), len(self.enlarge)
        in_image = [_map_mask(sizes, shape, stride) for shape, stride in zip(shapes, self.strides, strict=True)]
        masks = in_image if padded else [None] * len(in_image)
        maps = [
            _zero_padding(project(_zero_padding(one, real)), real)
            for project, one, real in zip(self.project, features, masks[finer : finer + len(features)], strict=True)
        ]
        coarsest = finer + len(maps) - 1
        maps[-1] = self._attend(maps[-1], in_image[coarsest], masks[coarsest])
        for level, convolution in reversed(list(enumerate(self.enlarge))):
            maps.insert(0, _zero_padding(convolution(maps[0]), masks[level]))
        for convolution in self.extend:
            maps.append(_zero_padding(convolution(maps[-1]), masks[len(maps)]))
        for level in reversed(range(len(maps) - 1)):
            coarser = F.interpolate(maps[level + 1], size=maps[level].shape[-2:])
            maps[level] = self.down[level](_zero_padding(maps[level] + coarser, masks[level]), masks[level])
        for level in range(len(maps) - 1):
            rows, columns = shapes[level + 1]  # a backbone may round the half of an odd side down, not up
            finer = self.shrink[level](maps[level])[..., :rows, :columns]
            maps[level + 1] = self.up[level](_zero_padding(maps[level + 1] + finer, masks[level + 1]), masks[level + 1])
        tokens = torch.cat([one.flatten(2).transpose(1, 2) for one in maps], dim=1)
        positions = None
        if self.with_positions:
            positions = torch.cat([_positions(real, tokens) for real in in_image], dim=1)
        mask = torch.cat([real.flatten(1) for real in in_image], dim=1) if padded else None
        whole = sizes.new_tensor([[c * s, r * s] for (r, c), s in zip(shapes, self.strides, strict=True)])
        return Memory(tokens, positions, mask, shapes, sizes[:, None] / whole)

    def _shapes(self, features: Sequence[Tensor]) -> tuple[Shape, ...]:
        shapes = [(one.shape[-2], one.shape[-1]) for one in features]
        for _ in self.enlarge:
            rows, columns = shapes[0]
            shapes.insert(0, (2 * rows, 2 * columns))
        for _ in self.extend:
            rows, columns = shapes[-1]
            shapes.append(((rows + 1) // 2, (columns + 1) // 2))
        return tuple(shapes)

    def _attend(self, x: Tensor, in_image: Tensor, real: Tensor | None) -> Tensor:
        """The encoder's output for the coarsest map, as a map."""
        rows, columns = x.shape[-2:]
        tokens = x.flatten(2).transpose(1, 2)
        keys = None if real is None else real.flatten(1)
        tokens = self.encoder(tokens, mask=keys, positions=_positions(in_image, tokens), grid=Grid(rows, columns))
        return _zero_padding(tokens.transpose(1, 2).unflatten(2, (rows, columns)), real)

    def flops(self, shapes: Sequence[Shape]) -> int:
        """Operations for one image whose maps have these (rows, columns)."""
        areas = [rows * columns for rows, columns in shapes]
        finer, own = len(self.enlarge), len(self.enlarge) + len(self.project)
        parts = [
            *zip(areas[finer:], self.project, strict=False),
            *zip(areas[1:], self.enlarge, strict=False),  # each of its weights meets each pixel that it enlarges
            *zip(areas[own:], self.extend, strict=True),
            *zip(areas, self.down, strict=False),
            *zip(areas[1:], self.shrink, strict=True),
            *zip(areas[1:], self.up, strict=True),
        ]
        total = sum(2 * area * matrix_weights(part) for area, part in parts)
        return total + sum(layer.flops(Grid(*shapes[own - 1])) for layer in self.encoder.layers)


def matrix_weights(module: nn.Module) -> int:
    """Number of weights in convolutions and linear maps: the multiplications for each pixel or token."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.ndim > 1)


def _convolution(in_chans: int, out_chans: int, kernel: int, *, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(in_chans, out_chans, kernel, stride=stride, padding=kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(out_chans))


def _transposed_convolution(chans: int) -> nn.Sequential:
    """A map of half the stride."""
    return nn.Sequential(nn.ConvTranspose2d(chans, chans, 2, stride=2, bias=False), nn.BatchNorm2d(chans), nn.SiLU())


def _zero_padding(x: Tensor, real: Tensor | None) -> Tensor:
    """x with zeros where `real` is False. Not by multiplication: 0 · NaN is NaN."""
    return x if real is None else x.masked_fill(~real, 0.0)


def _positions(real: Bool[Tensor, "batch 1 rows columns"], tokens: Tensor) -> Float[Tensor, "batch tokens embed_dim"]:
    return masked_sine_positions(real[:, 0], tokens.shape[-1]).to(tokens.dtype)


def _map_mask(sizes: Tensor, shape: Sequence[int], stride: int) -> Bool[Tensor, "batch 1 rows columns"]:
    """True for the pixels of a map that begin inside of the image."""
    rows, columns = (torch.arange(length, device=sizes.device) * stride for length in shape)
    return ((rows[:, None] < sizes[:, 1, None, None]) & (columns < sizes[:, 0, None, None]))[:, None]
