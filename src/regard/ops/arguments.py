"""What the ops take: each states it in its docstring, and checks it with these functions, alike on all of its paths.

Tensors of numbers are float16, bfloat16, float32 or float64 and dense; those of one call agree in dtype and device.
Under `torch.autocast` they are first cast to its dtype, float64 excepted, as PyTorch casts its own attention's. Masks
are bool. Integers are integers: True and 3.0 are none. Whatever does not fit is a RegardError of one line.

NaN and infinity are never refused: what comes of them follows from each op's definition. A pair that a mask excludes
does not count, in values and gradients, whatever its key holds. PyTorch's fused kernel multiplies such pairs with 0,
and 0 · NaN is NaN. On a CPU the sums of the inputs tell, for a hundredth of the time, whether all is finite; where it
is not, the definition computes. On a GPU nobody looks, since the processor would have to wait for it.
"""

import functools
import math
from collections.abc import Callable, Iterable
from numbers import Integral, Real
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

from regard.errors import RegardError

P = ParamSpec("P")
R = TypeVar("R")

FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
AUTOCAST = frozenset({"cpu", "cuda", "mps", "xpu"})
LARGEST_SCALE = torch.finfo(torch.float32).max


def agree(first: Any, *others: Any) -> bool:
    """Whether `floats` and `require_alike` have nothing to change and nothing to say: the usual case, asked first."""
    try:
        dtype, device = first.dtype, first.device
        if dtype not in FLOATS or first.layout is not torch.strided or _autocasts(device.type):
            return False
        for other in others:
            if other is not None and (
                other.dtype != dtype or other.device != device or other.layout is not torch.strided
            ):
                return False
    except AttributeError:
        return False
    return True


def require_floats(op: str, **tensors: Any) -> None:
    """RegardError for what is no dense tensor of floating numbers."""
    for name, tensor in tensors.items():
        if tensor is not None and not (
            isinstance(tensor, Tensor) and tensor.dtype in FLOATS and tensor.layout is torch.strided
        ):
            raise RegardError(f"{op}: {name} must be a dense tensor of {_names(FLOATS)}, got {_what(tensor)}")


def floats(op: str, **tensors: Any) -> list[Any]:
    """The tensors after `require_floats`, in autocast's dtype where it is on."""
    require_floats(op, **tensors)
    found = [*tensors.values()]
    kind = next(tensor.device.type for tensor in found if tensor is not None)
    if _autocasts(kind):
        dtype = torch.get_autocast_dtype(kind)
        return [part if part is None or part.dtype == torch.float64 else part.to(dtype) for part in found]
    return found


def full_precision(op: Callable[P, R]) -> Callable[P, R]:
    """Switches autocast off in an op whose sums need the range and the precision of float32."""

    @functools.wraps(op)
    def wide(*args: P.args, **kwargs: P.kwargs) -> R:
        kind = next((part.device.type for part in (*args, *kwargs.values()) if isinstance(part, Tensor)), "")
        if not _autocasts(kind):
            return op(*args, **kwargs)
        with torch.autocast(kind, enabled=False):
            return op(*args, **kwargs)

    return wide


def _autocasts(kind: str) -> bool:
    return kind in AUTOCAST and torch.is_autocast_enabled(kind)


def require_alike(op: str, **tensors: Tensor | None) -> None:
    """RegardError unless all are of the first one's dtype, and on its device."""
    first: Any = None
    for name, tensor in tensors.items():
        if tensor is None:
            continue
        if first is None:
            first, name_of_first = tensor, name
        if tensor.dtype != first.dtype:
            raise RegardError(
                f"{op}: {name} is {_name(tensor.dtype)}, but must be {_name(first.dtype)}, as {name_of_first} is"
            )
        if tensor.device != first.device:
            raise RegardError(
                f"{op}: {name} is on {tensor.device}, but must be on {first.device}, as {name_of_first} is"
            )


def require_precise(op: str, like: Tensor, **tensors: Any) -> None:
    """RegardError unless the tensors are on the device of `like`, and in its dtype or in float32, as its sums are."""
    allowed = dict.fromkeys((like.dtype, torch.float32))
    for name, tensor in tensors.items():
        if tensor is None:
            continue
        if not (isinstance(tensor, Tensor) and tensor.dtype in allowed and tensor.layout is torch.strided):
            raise RegardError(f"{op}: {name} must be a dense tensor of {_names(allowed)}, got {_what(tensor)}")
        if tensor.device != like.device:
            raise RegardError(f"{op}: {name} is on {tensor.device}, but must be on {like.device}, as the others are")


def require_shape(op: str, name: str, tensor: Tensor, shape: tuple[int, ...], meaning: str = "") -> None:
    """`meaning` names the dimensions."""
    if tensor.shape != shape:
        raise RegardError(f"{op}: {name} must be {meaning and meaning + ' '}{shape}, got {tuple(tensor.shape)}")


def require_bool(op: str, mask: Any, like: Tensor, meaning: str, shape: tuple[int, ...] | None = None) -> None:
    """`meaning` says what True means. RegardError for a mask of another dtype, device or shape."""
    if mask is None:
        return
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool or (shape is not None and mask.shape != shape):
        and_shape = "" if shape is None else f" {tuple(mask.shape)}" if isinstance(mask, Tensor) else ""
        got = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
        wanted = "" if shape is None else f", and {shape}"
        raise RegardError(f"{op}: mask must be bool, True where {meaning}{wanted}; got {got}{and_shape}")
    if mask.device != like.device:
        raise RegardError(f"{op}: mask is on {mask.device}, but must be on {like.device}, as the others are")


def require_whole(op: str, name: str, value: Any, least: int) -> int:
    """The value as an int of at least `least`; there is no upper limit."""
    if not _is_whole(value) or value < least:
        raise RegardError(f"{op}: {name} {_short(value)} must be an integer of at least {least}")
    return int(value)


def require_odd(op: str, name: str, value: Any) -> int:
    """The value as an odd int of at least 1; there is no upper limit."""
    if not _is_whole(value):
        raise RegardError(f"{op}: {name} must be an odd integer, got {_short(value)}")
    if value < 1 or value % 2 == 0:
        raise RegardError(f"{op}: {name} must be odd and at least 1, got {value}")
    return int(value)


def _is_whole(value: object) -> bool:
    return isinstance(value, (int, Integral)) and not isinstance(value, bool)


def scale_of(op: str, scale: object, head_dim: int) -> float:
    """1/√head_dim unless given; any number, NaN even. RegardError for a head_dim of 0."""
    if head_dim < 1:
        raise RegardError(f"{op}: head_dim must be at least 1, got {head_dim}")
    if scale is None:
        return float(head_dim**-0.5)
    if isinstance(scale, bool) or not isinstance(scale, (float, int, Real)):
        raise RegardError(f"{op}: scale must be a number, got {_short(scale)}")
    return float(scale)


def is_usable(scale: float) -> bool:
    """Whether fast paths may take it. For NaN, infinity and what float32 does not hold there is the definition."""
    return abs(scale) <= LARGEST_SCALE


def looks_at_values(x: Tensor) -> bool:
    """Whether values are looked at: not on a GPU, which would have to wait, and not in a compilation."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def holds_everywhere(condition: Tensor) -> bool:
    """False where vmap, which cannot look at values, does not tell."""
    try:
        return bool(condition.all())
    except RuntimeError:
        return False


def is_sound(*tensors: Tensor | None) -> bool:
    """Whether all numbers are finite, as far as their sum tells: the cheapest way to ask. vmap cannot ask at all."""
    try:
        return all(part is None or math.isfinite(_sum(part)) for part in tensors)
    except RuntimeError:
        return True


def _sum(x: Tensor) -> float:
    x = x.detach() if x.requires_grad else x
    return float(x.sum(dtype=torch.float32) if x.dtype == torch.float16 else x.sum())


def _what(value: object) -> str:
    if not isinstance(value, Tensor):
        return type(value).__name__
    return _name(value.dtype) if value.layout is torch.strided else _name(value.layout)


def _names(dtypes: Iterable[torch.dtype]) -> str:
    *others, last = map(_name, dtypes)
    return f"{', '.join(others)} or {last}" if others else last


def _name(what: object) -> str:
    return str(what).removeprefix("torch.")


def _short(value: object) -> str:
    return f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
