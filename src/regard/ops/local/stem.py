"""Attention for a network's first layer, whose values are mixed by position (SASA, section 3.3)."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from regard.errors import RegardError


def stem_attention(
    q: Float[Tensor, "batch heads head_dim height width"],
    k: Float[Tensor, "batch heads head_dim height width"],
    x: Float[Tensor, "batch channels height width"],
    value_maps: Float[Tensor, "mixtures heads head_dim channels"],
    mixture: Float[Tensor, "rows cols mixtures"],
    *,
    scale: float | None = None,
) -> Float[Tensor, "batch heads head_dim height width"]:
    """y_i = Σ_ab softmax_ab(q_i·k_ab · scale) (Σ_m p(a, b, m) W_m) x_ab  (Ramachandran et al. 2019, eq. 4).

    (a, b) runs over a window around pixel i, of as many rows and columns as `mixture` has; p(a, b, ·) is
    softmax(mixture[a, b]). So a value depends on its place in the window, as in a convolution; three color channels
    alone do not contain that. A window may be even: it reaches from -(size // 2) to (size - 1) // 2. Pixels beyond the
    border do not exist. `scale` is 1/√head_dim unless given.

    Since the maps W are linear, x is averaged first and mapped afterwards, which is cheaper for few channels.
    RegardError for shapes that do not fit together.
    """
    _check(q, k, x, value_maps, mixture)
    head_dim, height, width = q.shape[2:]
    rows, cols = mixture.shape[:2]
    reach = (cols // 2, (cols - 1) // 2, rows // 2, (rows - 1) // 2)
    scale = head_dim**-0.5 if scale is None else scale
    keys, pixels = F.pad(k, reach), F.pad(x, reach)
    there = F.pad(x.new_ones(height, width, dtype=torch.bool), reach)
    window = [(..., slice(row, row + height), slice(col, col + width)) for row in range(rows) for col in range(cols)]
    logits = torch.stack([(q * keys[at]).sum(2).masked_fill(~there[at], -torch.inf) for at in window], dim=2) * scale
    weights = logits.softmax(2)  # (batch, heads, window, height, width); a pixel always sees itself
    attended = torch.stack([weights[:, :, i, None] * pixels[at][:, None] for i, at in enumerate(window)], dim=2)
    maps = torch.einsum("om,mhdc->ohdc", mixture.flatten(0, 1).softmax(-1), value_maps)
    return torch.einsum("bhocyx,ohdc->bhdyx", attended, maps)


def _check(q: Tensor, k: Tensor, x: Tensor, value_maps: Tensor, mixture: Tensor) -> None:
    if k.shape != q.shape or x.shape[0] != q.shape[0] or x.shape[2:] != q.shape[3:]:
        raise RegardError(
            f"stem attention: q, k and x must be images of one size, got {tuple(q.shape)}, {tuple(k.shape)} and "
            f"{tuple(x.shape)}"
        )
    wanted = (mixture.shape[2], *q.shape[1:3], x.shape[1])
    if value_maps.shape != wanted:
        raise RegardError(
            f"stem attention: value_maps must be (mixtures, heads, head_dim, channels) {wanted}, "
            f"got {tuple(value_maps.shape)}"
        )
