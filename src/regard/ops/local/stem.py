"""Attention for a network's first layer, whose values are mixed by position (SASA, section 3.3)."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from regard.errors import RegardError
from regard.ops.arguments import floats, require_alike, require_shape, scale_of


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
    All tensors have one dtype and one device, as in `regard.ops.arguments`. NaN and infinity count as in the equation,
    and reach the pixels whose windows hold them. RegardError for what does not fit together.
    """
    q, k, x, value_maps, mixture = floats("stem attention", q=q, k=k, x=x, value_maps=value_maps, mixture=mixture)
    _check(q, k, x, value_maps, mixture)
    head_dim, height, width = q.shape[2:]
    rows, cols = mixture.shape[:2]
    reach = (cols // 2, (cols - 1) // 2, rows // 2, (rows - 1) // 2)
    scale = scale_of("stem attention", scale, head_dim)
    keys, pixels = F.pad(k, reach), F.pad(x, reach)
    there = F.pad(x.new_ones(height, width, dtype=torch.bool), reach)
    window = [(..., slice(row, row + height), slice(col, col + width)) for row in range(rows) for col in range(cols)]
    logits = torch.stack([((q * keys[at]).sum(2) * scale).masked_fill(~there[at], -torch.inf) for at in window], dim=2)
    weights = logits.softmax(2)  # (batch, heads, window, height, width); a pixel always sees itself
    attended = torch.stack([weights[:, :, i, None] * pixels[at][:, None] for i, at in enumerate(window)], dim=2)
    maps = torch.einsum("om,mhdc->ohdc", mixture.flatten(0, 1).softmax(-1), value_maps)
    return torch.einsum("bhocyx,ohdc->bhdyx", attended, maps)


def _check(q: Tensor, k: Tensor, x: Tensor, value_maps: Tensor, mixture: Tensor) -> None:
    if q.ndim != 5 or k.shape != q.shape or x.ndim != 4 or x.shape[0] != q.shape[0] or x.shape[2:] != q.shape[3:]:
        raise RegardError(
            f"stem attention: q, k and x must be images of one size, got {tuple(q.shape)}, {tuple(k.shape)} and "
            f"{tuple(x.shape)}"
        )
    if mixture.ndim != 3 or 0 in mixture.shape:
        raise RegardError(
            f"stem attention: mixture must be (rows, cols, mixtures), each at least 1, got {tuple(mixture.shape)}"
        )
    wanted = (mixture.shape[2], *q.shape[1:3], x.shape[1])
    require_shape("stem attention", "value_maps", value_maps, wanted, "(mixtures, heads, head_dim, channels)")
    require_alike("stem attention", q=q, k=k, x=x, value_maps=value_maps, mixture=mixture)
