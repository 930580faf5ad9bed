"""Local attention by NATTEN, if that package is installed and supports the case."""

import importlib.util
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from regard.errors import RegardError
from regard.ops.arguments import is_sound
from regard.ops.local.arguments import Case, Prefix
from regard.ops.local.definition import by_definition


def natten_serves(q: Tensor, case: Case) -> bool:
    """Whether it is fast here: on a CPU, or without its own kernels, it computes all pairs."""
    return q.device.type == "cuda" and _refusal(q, case) is None and bool(getattr(_package(), "HAS_LIBNATTEN", False))


def natten(q: Tensor, k: Tensor, v: Tensor, case: Case, prefix: Prefix | None) -> Tensor:
    """The mixed values of the pixels, (batch, heads, height, width, head_dim). RegardError with `_refusal`'s reason."""
    reason = _refusal(q, case)
    if reason is not None:
        raise RegardError(f"local attention: impl 'natten' cannot be used: {reason}; 'auto' takes what can")
    tokens = [part.permute(0, 2, 3, 1, 4) for part in (q, k, v)]
    more: dict[str, Any] = {}
    if prefix is not None:
        more = {"additional_keys": prefix.k.transpose(1, 2), "additional_values": prefix.v.transpose(1, 2)}
    mixed = _package().na2d(
        *tokens, kernel_size=(case.rows, case.cols), dilation=case.dilation, scale=case.scale, **more
    )
    if q.device.type == "cpu" and not is_sound(mixed):  # a NaN reaches queries that do not look at it
        return by_definition(q, k, v, case, prefix)
    return mixed.permute(0, 3, 1, 2, 4)


def _refusal(q: Tensor, case: Case) -> str | None:
    """Why NATTEN cannot compute the case, or None if it can."""
    if case.border != "shift":
        return "it has no border 'clip'"
    given = {"rel_rows": case.rel_rows, "bias": case.bias, "mask": case.mask}
    for name, value in given.items():
        if value is not None:
            return f"it has no {name}"
    if min(case.rows, case.cols) < 2:
        return "its windows have at least 2 rows and columns"
    if q.device.type == "cpu" and torch.is_grad_enabled() and q.requires_grad:
        return "it has no backward pass on a CPU"
    return None if is_installed() else "it is not installed"


@lru_cache(maxsize=1)
def is_installed() -> bool:
    return importlib.util.find_spec("natten") is not None


def _package() -> Any:
    import natten as package

    return package
