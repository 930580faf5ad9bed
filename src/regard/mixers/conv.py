"""A depthwise convolution, as a baseline."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from regard.errors import RegardError
from regard.layers.grid import Grid
from regard.layers.mixer import Mixer, TokenMask, Tokens


class Conv(Mixer):
    """Each pixel takes a fixed, learned weighting of its window, channel by channel: a depthwise convolution.

    Outside the image, and where `mask` is False, there are zeros. A prefix token becomes a learned weighting of itself
    and of the mean over all pixels, channel by channel, so that a class token sees the image; pixels do not see the
    prefix.
    """

    name = "conv"

    def __init__(self, embed_dim: int, *, num_prefix: int = 0, kernel_size: int = 3) -> None:
        super().__init__()
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise RegardError(f"{self.name}: kernel_size must be odd and at least 1, got {kernel_size}")
        self.depthwise = nn.Conv2d(embed_dim, embed_dim, kernel_size, padding=kernel_size // 2, groups=embed_dim)
        self.num_prefix = num_prefix
        if num_prefix:
            self.prefix_self = nn.Parameter(torch.zeros(embed_dim))
            self.prefix_mean = nn.Parameter(torch.ones(embed_dim))

    def forward(
        self, x: Tokens, *, grid: Grid | None = None, mask: TokenMask | None = None, positions: Tokens | None = None
    ) -> Tokens:
        self.require_no(positions=positions)
        grid = self.require_grid(x, grid)
        if grid.prefix != self.num_prefix:
            raise RegardError(f"{self.name}: was built for {self.num_prefix} prefix tokens, the grid has {grid.prefix}")
        if mask is not None:
            x = x.masked_fill(~mask[..., None], 0)
        prefix, pixels = grid.split(x)
        convolved = self.depthwise(pixels.permute(0, 3, 1, 2)).flatten(2).transpose(1, 2)
        if not grid.prefix:
            return convolved
        count = grid.num_patches if mask is None else mask[:, grid.prefix :].sum(1)[:, None, None].clamp(min=1)
        mean = pixels.sum((1, 2)).unsqueeze(1) / count
        return torch.cat([self.prefix_self * prefix + self.prefix_mean * mean, convolved], dim=1)

    def rows(
        self,
        x: Tokens,
        queries: Int64[Tensor, " queries"],
        *,
        grid: Grid | None = None,
        mask: TokenMask | None = None,
        positions: Tokens | None = None,
        heads: Int64[Tensor, " some"] | None = None,
        chunk: int | None = None,
    ) -> Float[Tensor, "batch 1 queries tokens"]:
        """A pixel's row is the norm over channels of the kernel, where its window has a real pixel."""
        self.require_no(positions=positions)
        grid = self.require_grid(x, grid)
        kernel = self.depthwise.weight.squeeze(1)
        radius, sizes = kernel.shape[-1] // 2, kernel.norm(dim=0)
        rows = x.new_zeros(x.shape[0], 1, len(queries), grid.num_tokens)
        maps = rows[..., grid.prefix :].unflatten(-1, (grid.height, grid.width))
        real = None if mask is None else mask[:, grid.prefix :]
        for number, query in enumerate(queries.tolist()):
            if query < grid.prefix:
                rows[:, :, number, query] = self.prefix_self.norm()
                count = grid.num_patches if real is None else real.sum(1)[:, None, None, None].clamp(min=1)
                maps[:, :, number] = self.prefix_mean.norm() / count
                continue
            row, col = divmod(query - grid.prefix, grid.width)
            top, left = max(row - radius, 0), max(col - radius, 0)
            bottom, right = min(row + radius + 1, grid.height), min(col + radius + 1, grid.width)
            down, across = top - row + radius, left - col + radius
            part = sizes[down : down + bottom - top, across : across + right - left]
            maps[:, :, number, top:bottom, left:right] = part
        return rows if mask is None else rows.masked_fill(~mask[:, None, None, :], 0)

    def flops(self, grid: Grid) -> int:
        """kernel_size² multiply-adds a pixel and channel; for each prefix token its weighting, and the mean once."""
        embed_dim = self.depthwise.out_channels
        prefix = 4 * grid.prefix * embed_dim + (grid.num_patches * embed_dim if grid.prefix else 0)
        return 2 * grid.num_patches * self.depthwise.weight.numel() + prefix
