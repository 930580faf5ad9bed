"""Local attention in the place of convolutions (SASA, Ramachandran et al. 2019, sections 3.2 and 3.3)."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from regard.errors import RegardError
from regard.ops import local_attention, local_attention_rows, stem_attention
from regard.ops.arguments import require_whole
from regard.ops.local.windows import check_geometry, check_table, num_offsets


class LocalAttention2d(nn.Module):
    """y_i = Σ_j softmax_j(q_i·(k_j + r_{j-i})/√d) v_j over the window of pixel i, q, k, v = W x (eq. 2 and 3).

    (batch, in_chans, height, width) -> (batch, out_chans, ⌈height/stride⌉, ⌈width/stride⌉): attention at full
    resolution, then the average over stride × stride pixels, which the paper uses in the place of a stride.
    Half of head_dim carries the embedding of the row offset, the rest that of the column offset; heads share them.
    RegardError for channels that the heads do not divide, and for an even window.
    """

    def __init__(
        self,
        in_chans: int,
        out_chans: int,
        *,
        num_heads: int = 8,
        window: int = 7,
        stride: int = 1,
        dilation: int = 1,
        border: str = "clip",
    ) -> None:
        super().__init__()
        head_dim = _head_dim(out_chans, num_heads)
        check_geometry(window, dilation, border)
        check_table("local attention", window)
        self.num_heads, self.window, self.stride, self.dilation, self.border = (
            num_heads,
            window,
            stride,
            dilation,
            border,
        )
        self.qkv = nn.Conv2d(in_chans, 3 * out_chans, kernel_size=1, bias=False)
        self.rel_rows = nn.Parameter(torch.randn(num_offsets(window, border), head_dim // 2))
        self.rel_cols = nn.Parameter(torch.randn(num_offsets(window, border), head_dim - head_dim // 2))

    def forward(
        self, x: Float[Tensor, "batch in_chans height width"]
    ) -> Float[Tensor, "batch out_chans height2 width2"]:
        q, k, v = self.heads(x)
        mixed = local_attention(
            q,
            k,
            v,
            window=self.window,
            dilation=self.dilation,
            border=self.border,
            rel_rows=self.rel_rows,
            rel_cols=self.rel_cols,
        )
        assert isinstance(mixed, Tensor)  # without a prefix there is no pair
        out = mixed.permute(0, 1, 4, 2, 3).flatten(1, 2)
        return out if self.stride == 1 else pooled(out, self.stride)

    def rows(
        self,
        x: Float[Tensor, "batch in_chans height width"],
        queries: Int64[Tensor, " queries"],
        *,
        heads: Int64[Tensor, " some"] | None = None,
    ) -> Float[Tensor, "batch heads queries pixels"]:
        """What some pixels, counted row by row, take from the pixels of their windows; 0 beyond them."""
        height, width = x.shape[2:]

        def part(number: int, places: Tensor) -> Tensor:
            weight = self.qkv.weight.chunk(3)[number].flatten(1)
            found = F.linear(x.flatten(2)[:, :, places].transpose(1, 2), weight)
            found = found.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            return found if heads is None else found[:, heads]

        return local_attention_rows(
            part(0, queries),
            queries,
            lambda places: part(1, places),
            height=height,
            width=width,
            window=self.window,
            dilation=self.dilation,
            border=self.border,
            rel_rows=self.rel_rows,
            rel_cols=self.rel_cols,
        )

    def heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """q, k and v, each (batch, heads, height, width, head_dim)."""
        q, k, v = self.qkv(x).unflatten(1, (3, self.num_heads, -1)).permute(1, 0, 2, 4, 5, 3)
        return q, k, v

    def flops(self, height: int, width: int) -> int:
        """Operations for one image: a multiply and an add are two; full windows everywhere; softmax left out.

        The projections, and for each pair of a pixel and one of its window q·k, q·r and the weighted value.
        """
        out_chans = self.qkv.out_channels // 3
        return 2 * height * width * (self.qkv.weight.numel() + 3 * self.window**2 * out_chans)

    def extra_repr(self) -> str:
        return f"num_heads={self.num_heads}, window={self.window}, stride={self.stride}"


class StemAttention2d(nn.Module):
    """The attention stem: `stem_attention`, whose values mix `num_mixtures` maps by the position in the window.

    p(a, b, m) = softmax_m((row_a + col_b)ᵀ ν_m) with learned embeddings of rows and columns (eq. 4). The window may be
    even. (batch, in_chans, height, width) -> (batch, out_chans, height, width).
    """

    def __init__(
        self, in_chans: int, out_chans: int, *, num_heads: int = 8, window: int = 4, num_mixtures: int = 4
    ) -> None:
        super().__init__()
        head_dim = _head_dim(out_chans, num_heads)
        if require_whole("stem attention", "window", window, 0) < 1:
            raise RegardError(f"stem attention: window must be at least 1, got {window}")
        self.num_heads, self.window = num_heads, window
        self.qk = nn.Conv2d(in_chans, 2 * out_chans, kernel_size=1, bias=False)
        self.value_maps = nn.Parameter(torch.randn(num_mixtures, num_heads, head_dim, in_chans) * in_chans**-0.5)
        self.emb_rows = nn.Parameter(torch.randn(window, head_dim))
        self.emb_cols = nn.Parameter(torch.randn(window, head_dim))
        self.emb_mixtures = nn.Parameter(torch.randn(num_mixtures, head_dim))

    def forward(self, x: Float[Tensor, "batch in_chans height width"]) -> Float[Tensor, "batch out_chans height width"]:
        q, k = self.qk(x).unflatten(1, (2, self.num_heads, -1)).unbind(1)
        mixture = (self.emb_rows[:, None] + self.emb_cols[None]) @ self.emb_mixtures.T
        return stem_attention(q, k, x, self.value_maps, mixture).flatten(1, 2)

    def flops(self, height: int, width: int) -> int:
        """As for `LocalAttention2d`: projections, q·k, and the attended pixels and their maps."""
        places, (_, heads, head_dim, in_chans) = self.window**2, self.value_maps.shape
        out_chans = heads * head_dim
        each = self.qk.weight.numel() + places * (out_chans + heads * in_chans + in_chans * out_chans)
        return 2 * height * width * each


def pooled(
    x: Float[Tensor, "batch channels height width"], stride: int
) -> Float[Tensor, "batch channels rows columns"]:
    """Means over stride × stride pixels; at the lower and right border over the pixels inside the image."""
    return F.avg_pool2d(x, stride, ceil_mode=True, count_include_pad=False)


def _head_dim(out_chans: int, num_heads: int) -> int:
    if num_heads < 1 or out_chans % num_heads or out_chans // num_heads < 2:
        raise RegardError(
            f"local attention: {out_chans} channels do not divide into {num_heads} heads of at least 2 channels"
        )
    return out_chans // num_heads
