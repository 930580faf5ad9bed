"""Local window attention."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from regard.errors import RegardError
from regard.layers.grid import Grid
from regard.layers.mixer import TokenMask, Tokens
from regard.mixers.base import HeadMixer, visible
from regard.ops import attention_rows, local_attention, local_attention_rows, local_attention_weights
from regard.ops.local.attention import can_be_compiled
from regard.ops.local.windows import check_table


class Local(HeadMixer):
    """Each pixel looks at the window around it, with learned offsets: softmax(q·k + q·r) (SASA, eq. 3).

    Ramachandran et al. 2019, section 3. Half of head_dim carries the embedding of the row offset, the rest that of the
    column offset; heads share them.
    At the border the window holds only the pixels that exist. Prefix tokens see all and are seen by all.
    """

    name = "local"

    def __init__(
        self, embed_dim: int, *, num_heads: int, window: int = 7, qkv_bias: bool = True, fused_qkv: bool = True
    ) -> None:
        super().__init__(embed_dim, num_heads, qkv_bias=qkv_bias, fused_qkv=fused_qkv)
        check_table(self.name, window)
        if self.head_dim < 2:
            raise RegardError(f"{self.name}: head_dim must be at least 2, for rows and columns, got {self.head_dim}")
        self.window = window
        self.rel_rows = nn.Parameter(torch.empty(window, self.head_dim // 2))
        self.rel_cols = nn.Parameter(torch.empty(window, self.head_dim - self.head_dim // 2))
        nn.init.normal_(self.rel_rows)
        nn.init.normal_(self.rel_cols)

    def forward(
        self, x: Tokens, *, grid: Grid | None = None, mask: TokenMask | None = None, positions: Tokens | None = None
    ) -> Tokens:
        grid = self.require_grid(x, grid)
        q, k, v = self.heads(self.harmless(x, mask), positions)
        untraceable = torch.compiler.is_compiling() and not can_be_compiled(q)
        if untraceable or (grid.prefix and mask is not None):  # the op does not support padding in the prefix
            return self.out(self._weights(q, k, grid, mask) @ v)
        pixels = [part[:, :, grid.prefix :].unflatten(2, (grid.height, grid.width)) for part in (q, k, v)]
        mixed = local_attention(
            *pixels,
            window=self.window,
            mask=None if mask is None else mask.unflatten(1, (grid.height, grid.width)),
            rel_rows=self.rel_rows,
            rel_cols=self.rel_cols,
            prefix=(q[:, :, : grid.prefix], k[:, :, : grid.prefix], v[:, :, : grid.prefix]) if grid.prefix else None,
        )
        if isinstance(mixed, tuple):
            return self.out(torch.cat([mixed[1], mixed[0].flatten(2, 3)], dim=2))
        return self.out(mixed.flatten(2, 3))

    def mixing_matrix(
        self, x: Tokens, *, grid: Grid | None = None, mask: TokenMask | None = None, positions: Tokens | None = None
    ) -> Float[Tensor, "batch heads tokens tokens"]:
        q, k, _ = self.heads(self.harmless(x, mask), positions)
        return self._weights(q, k, self.require_grid(x, grid), mask)

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
    ) -> Float[Tensor, "batch heads queries tokens"]:
        """A pixel's row is its window and the prefix; the prefix looks at all tokens, `chunk` at a time."""
        grid, x = self.require_grid(x, grid), self.harmless(x, mask)
        q, keys = self._reader("q", x, positions, heads)(queries), self._reader("k", x, positions, heads)
        pixel = queries >= grid.prefix
        of_pixels = local_attention_rows(
            q[:, :, pixel],
            queries[pixel] - grid.prefix,
            keys,
            height=grid.height,
            width=grid.width,
            window=self.window,
            rel_rows=self.rel_rows,
            rel_cols=self.rel_cols,
            prefix=grid.prefix,
            mask=mask,
        )
        if bool(pixel.all()):
            return of_pixels
        allowed = visible(queries, x.shape[1], mask)
        rows = of_pixels.new_empty(*of_pixels.shape[:2], len(queries), x.shape[1])
        rows[:, :, pixel] = of_pixels
        rows[:, :, ~pixel] = attention_rows(q[:, :, ~pixel], keys, x.shape[1], allowed=allowed, chunk=chunk)
        return rows

    def _weights(self, q: Tensor, k: Tensor, grid: Grid, mask: Tensor | None) -> Tensor:
        return local_attention_weights(
            q,
            k,
            height=grid.height,
            width=grid.width,
            window=self.window,
            mask=mask,
            rel_rows=self.rel_rows,
            rel_cols=self.rel_cols,
        )

    def flops(self, grid: Grid) -> int:
        """The projections, the products with keys and values in each window and with the prefix, those with offsets.

        This is what the definition needs, with a full window at each pixel.
        """
        embed_dim = self.num_heads * self.head_dim
        windows = grid.num_patches * min(self.window, grid.height) * min(self.window, grid.width)
        with_prefix = grid.num_tokens**2 - grid.num_patches**2
        offsets = 2 * grid.num_patches * self.window * embed_dim
        return self.projection_flops(grid) + 2 * 2 * (windows + with_prefix) * embed_dim + offsets
