"""Products over the pairs that a mask allows. What the other pairs hold, NaN even, counts nowhere; nor in gradients.

A matrix product multiplies masked pairs by 0, and 0 · NaN is NaN. So where a number is not finite, its terms are added
by themselves. The two functions are each other's gradients.
"""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from regard.ops.arguments import is_sound


def products(
    a: Float[Tensor, "*batch queries dim"],
    b: Float[Tensor, "*batch keys dim"],
    mask: Bool[Tensor, "..."] | None,
) -> Float[Tensor, "*batch queries keys"]:
    """a_i · b_j for the pairs (i, j) that `mask` allows, which broadcasts to the result; anything for the others."""
    if _plain(mask, a, b):
        return a @ b.transpose(-2, -1)
    assert mask is not None
    return _Products.apply(a, b, mask.expand(*a.shape[:-1], b.shape[-2]))


def sums(
    weights: Float[Tensor, "*batch queries keys"], b: Float[Tensor, "*batch keys dim"], mask: Bool[Tensor, "..."] | None
) -> Float[Tensor, "*batch queries dim"]:
    """Σ_j weights_ij b_j over the pairs that `mask` allows. `weights` are 0 for the others."""
    if _plain(mask, weights, b):
        return weights @ b
    assert mask is not None
    return _Sums.apply(weights, b, mask.expand(weights.shape))


def _plain(mask: Tensor | None, *parts: Tensor) -> bool:
    return mask is None or torch.compiler.is_compiling() or is_sound(*parts)


class _Products(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, mask: Tensor) -> Tensor:
        ctx.save_for_backward(a, b, mask)
        return (a @ b.transpose(-2, -1)).masked_fill(~mask, 0)

    @staticmethod
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor, Tensor, None]:
        a, b, mask = ctx.saved_tensors
        return _Sums.apply(d_out, b, mask), _Sums.apply(d_out.transpose(-2, -1), a, mask.transpose(-2, -1)), None


class _Sums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weights: Tensor, b: Tensor, mask: Tensor) -> Tensor:
        ctx.save_for_backward(weights, b, mask)
        odd = ~b.isfinite().all(-1)
        out = weights.masked_fill(~mask, 0) @ b.masked_fill(odd[..., None], 0)
        for j in odd.flatten(0, -2).any(0).nonzero().flatten().tolist():
            counts = (mask[..., j] & odd[..., j, None])[..., None]
            out += torch.where(counts, weights[..., j, None] * b[..., j, None, :], 0.0)
        return out

    @staticmethod
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor, Tensor, None]:
        weights, b, mask = ctx.saved_tensors
        return (
            _Products.apply(d_out, b, mask),
            _Sums.apply(weights.transpose(-2, -1), d_out, mask.transpose(-2, -1)),
            None,
        )
