"""Combines two softmaxes over different keys into one over all of them."""

import torch
from jaxtyping import Float
from torch import Tensor

from regard.ops.local.arguments import Prefix


def merged(
    out: Float[Tensor, "batch heads height width head_dim"],
    lse: Float[Tensor, "batch heads height width"],
    q: Float[Tensor, "batch heads height width head_dim"],
    prefix: Prefix,
    scale: float,
) -> Float[Tensor, "batch heads height width head_dim"]:
    """Adds a prefix to the attention of pixels to their windows.

        y = (e^lse out + Σ_p e^(q·k_p scale) v_p) / (e^lse + Σ_p e^(q·k_p scale))

    `out` is the attention to the windows alone, and `lse` the logarithm of its softmax's denominator: -inf where a
    window is empty, or all of its logits are -inf; `out` is then zero.
    """
    logits = torch.einsum("bhyxd,bhpd->bhyxp", q, prefix.k).to(lse.dtype) * scale
    total = torch.logaddexp(lse, logits.logsumexp(-1))
    total = total + (total - total)  # NaN where it is infinite, as all weights of such a softmax are
    weights = (logits - total[..., None]).exp().to(q.dtype)
    from_prefix = torch.einsum("bhyxp,bhpd->bhyxd", weights, prefix.v)
    return out * (lse - total).exp()[..., None].to(q.dtype) + from_prefix
