"""Local attention by NATTEN, where that package is installed and the case is one that it knows."""

import importlib.util
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from regard.errors import RegardError
from regard.ops.local.arguments import Case, Prefix


def natten_refusal(q: Tensor, case: Case) -> str | None:
    """Why NATTEN cannot serve, or None where it can."""
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


def natten_serves(q: Tensor, case: Case) -> bool:
    """Whether it is fast here too: on a CPU, and without its own kernels, it computes all pairs."""
    return (
        q.device.type == "cuda"
        and natten_refusal(q, case) is None
        and bool(getattr(_package(), "HAS_LIBNATTEN", False))
    )


def require_natten(q: Tensor, case: Case) -> None:
    """RegardError where NATTEN cannot serve."""
    reason = natten_refusal(q, case)
    if reason is not None:
        raise RegardError(f"local attention: impl 'natten' cannot serve: {reason}")


@lru_cache(maxsize=1)
def is_installed() -> bool:
    return importlib.util.find_spec("natten") is not None


def _package() -> Any:
    import natten as package

    return package


def natten(q: Tensor, k: Tensor, v: Tensor, case: Case, prefix: Prefix | None) -> Tensor:
    """The mixed values of the pixels, (batch, heads, height, width, head_dim)."""
    q, k, v = (part.permute(0, 2, 3, 1, 4) for part in (q, k, v))
    more: dict[str, Any] = {}
    if prefix is not None:
        more = {"additional_keys": prefix.k.transpose(1, 2), "additional_values": prefix.v.transpose(1, 2)}
    mixed = _package().na2d(
        q, k, v, kernel_size=(case.rows, case.cols), dilation=case.dilation, scale=case.scale, **more
    )
    return mixed.permute(0, 3, 1, 2, 4)
