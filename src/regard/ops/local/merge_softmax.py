"""Combines two softmaxes over different keys to one over all of them."""

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
    """The attention of pixels to their windows and to a prefix, from that to the windows alone (`out`).

    lse is the logarithm of each softmax's denominator in `out`:


    y = (e^lse out + Σ_p e^(q·k_p scale) v_p) / (e^lse + Σ_p e^(q·k_p scale)). It is -inf where a
    pixel's window is empty.
    """
    logits = torch.einsum("bhyxd,bhpd->bhyxp", q, prefix.k).to(lse.dtype) * scale
    total = torch.logaddexp(lse, logits.logsumexp(-1))
    weights = (logits - total[..., None]).exp().to(q.dtype)
    from_prefix = torch.einsum("bhyxp,bhpd->bhyxd", weights, prefix.v)
    return out * (lse - total).exp()[..., None].to(q.dtype) + from_prefix
