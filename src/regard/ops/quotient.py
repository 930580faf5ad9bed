"""Quotients of sums that may be empty."""

import torch
from torch import Tensor


def divided(mixed: Tensor, total: Tensor) -> Tensor:
    """The ratio, and zero (with a gradient of zero) where there is no key, or all features underflowed."""
    nothing = total <= torch.finfo(total.dtype).tiny ** 0.8  # a smaller divisor's gradient would overflow
    return (mixed / total.masked_fill(nothing, 1)).masked_fill(nothing, 0)
