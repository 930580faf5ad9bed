"""Local attention in C++ (native/local_attention.cpp), as an op of PyTorch with a backward pass of its own."""

import ctypes
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from regard.errors import RegardError
from regard.ops.local.arguments import Case, Prefix
from regard.ops.local.merge_softmax import merged
from regard.ops.native import NativeState, load_library

DTYPES = (torch.float32, torch.bfloat16)
SCRATCH = 2**30
"""Bytes a thread: with a window that needs more, as one over all of 64 × 64 pixels does, "auto" takes another path."""
NO_MEMORY = 1
"""What the library returns then; 0 is success, and anything else a case that it does not take."""

_pointer = ctypes.c_void_p
_int = ctypes.c_int64


class _Tokens(ctypes.Structure):
    _fields_ = (("data", _pointer), *((name, _int) for name in ("batch", "head", "row", "col", "dim")))


class _Case(ctypes.Structure):
    _fields_ = (
        *((name, _int) for name in ("batch", "heads", "height", "width", "dim")),
        *((name, _int) for name in ("window_rows", "window_cols", "dilation", "shifted", "row_dim", "bf16", "threads")),
        ("scale", ctypes.c_float),
        *((name, _pointer) for name in ("mask", "rel_rows", "rel_cols", "bias")),
    )


def native_state() -> NativeState:
    """The compiled library, or why there is none; the first call of a machine compiles it."""
    return load_library("local_attention")


def native_is_available() -> bool:
    return native_state().library is not None


def native_serves(q: Tensor, case: Case | None = None) -> bool:
    """Whether the C++ library is there and takes q; it computes every case, but not with all the memory there is."""
    if q.device.type != "cpu" or q.dtype not in DTYPES or not native_is_available():
        return False
    return case is None or torch.compiler.is_compiling() or _scratch(q, case) <= SCRATCH


def _scratch(q: Tensor, case: Case) -> int:
    """Bytes that a thread needs in the backward pass: weights and their gradients, for the rows that a window holds."""
    rows = min(case.rows, q.shape[2])
    return 8 * (rows + 8) * rows * case.cols * (q.shape[3] + 2 * case.cols)


def native(q: Tensor, k: Tensor, v: Tensor, case: Case, prefix: Prefix | None) -> Tensor:
    """The mixed values, (batch, heads, height, width, head_dim). RegardError without the library, or for q's dtype."""
    _require_native(q)
    mask = None if case.mask is None else case.mask.contiguous()
    shared = (_plain(case.rel_rows), _plain(case.rel_cols), _plain(case.bias))
    # The library reads memory, which a lazy minus has not changed.
    q, k, v = q.resolve_neg(), k.resolve_neg(), v.resolve_neg()
    options = (case.rows, case.cols, case.dilation, case.border == "shift", case.scale, prefix is not None)
    # A registered op costs more time for autograd than a small grid takes, so it is used where somebody looks at ops:
    # in a compiler, or within a mode such as PyTorch's counter of operations.
    is_watched = torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack() > 0
    run: Any = _compiled_op if is_watched else _Native.apply
    out, lse = run(q, k, v, mask, *shared, *options)
    return out if prefix is None else merged(out, lse, q, prefix, case.scale)


def _plain(table: Tensor | None) -> Tensor | None:
    return None if table is None else table.float().contiguous().resolve_neg()


# This is torch.compiler.assume_constant_result, without its import of the compiler, which takes over a second.
native_is_available._dynamo_marked_constant = True  # type: ignore[attr-defined]


class _Native(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor]:
        output = _forward(*inputs)
        _setup_context(ctx, inputs, output)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor | None, d_lse: Tensor | None) -> tuple[Tensor | None, ...]:
        return _gradients(ctx, _backward, d_out, d_lse)


def _forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    rel_rows: Tensor | None,
    rel_cols: Tensor | None,
    bias: Tensor | None,
    rows: int,
    cols: int,
    dilation: int,
    shifted: bool,
    scale: float,
    in_part: bool,
) -> tuple[Tensor, Tensor]:
    """The mixed values, laid out as q is, and the logarithm of each softmax's denominator, in float32.

    `in_part`: the softmax goes on over a prefix; without one the denominators are not needed, and the tensor is empty.
    q, k, v (batch, heads, height, width, head_dim) of any strides; the embeddings and the bias in float32.
    """
    out, lse = torch.empty_like(q), _denominators(q, in_part)
    case = _case(q, mask, rel_rows, rel_cols, bias, rows, cols, dilation, shifted, scale)
    _call(
        "local_attention_forward",
        case,
        *(_tokens(part) for part in (q, k, v, out)),
        lse.data_ptr() if in_part else None,
    )
    return out, lse


def _backward(
    d_out: Tensor,
    d_lse: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    rel_rows: Tensor | None,
    rel_cols: Tensor | None,
    bias: Tensor | None,
    rows: int,
    cols: int,
    dilation: int,
    shifted: bool,
    scale: float,
    in_part: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients of q, k and v, and those of rel_rows, rel_cols and bias in one vector, one after another."""
    grads = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
    d_shared = q.new_empty(_num_shared(rel_rows, rel_cols, bias), dtype=torch.float32)
    case = _case(q, mask, rel_rows, rel_cols, bias, rows, cols, dilation, shifted, scale)
    d_lse = None if d_lse is None else d_lse.contiguous()
    _call(
        "local_attention_backward",
        case,
        *(_tokens(part) for part in (q, k, v)),
        _tokens(d_out),
        None if d_lse is None else d_lse.data_ptr(),
        *(_tokens(part) for part in grads),
        d_shared.data_ptr(),
    )
    return *grads, d_shared


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, mask, rel_rows, rel_cols, bias, *ctx.options = inputs
    ctx.save_for_backward(q, k, v, mask, rel_rows, rel_cols, bias)
    ctx.set_materialize_grads(False)


def _gradients(ctx: Any, backward: Any, d_out: Tensor | None, d_lse: Tensor | None) -> tuple[Tensor | None, ...]:
    q, k, v, mask, *shared = ctx.saved_tensors
    d_out = torch.zeros_like(q) if d_out is None else d_out.resolve_neg()
    *d_tokens, d_shared = backward(d_out, d_lse, q, k, v, mask, *shared, *ctx.options)
    parts = iter(d_shared.split([part.numel() for part in shared if part is not None]))
    of_shared = [None if part is None else next(parts).view(part.shape) for part in shared]
    return *d_tokens, None, *of_shared, *(None for _ in ctx.options)


# The same for compilers: ops with shapes that are known without running them.
_compiled_op = torch.library.custom_op("regard::local_attention", _forward, mutates_args=(), device_types="cpu")
_compiled_backward = torch.library.custom_op(
    "regard::local_attention_backward", _backward, mutates_args=(), device_types="cpu"
)


@_compiled_op.register_fake
def _(q: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(q), _denominators(q, rest[-1])


@_compiled_backward.register_fake
def _(d_out: Tensor, d_lse: Any, q: Tensor, k: Tensor, v: Tensor, mask: Any, *rest: Any) -> tuple[Tensor, ...]:
    d_shared = q.new_empty(_num_shared(*rest[:3]), dtype=torch.float32)
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v), d_shared


def _compiled_gradients(ctx: Any, d_out: Tensor | None, d_lse: Tensor | None) -> tuple[Tensor | None, ...]:
    return _gradients(ctx, _compiled_backward, d_out, d_lse)


_compiled_op.register_autograd(_compiled_gradients, setup_context=_setup_context)


def _denominators(q: Tensor, in_part: bool) -> Tensor:
    return q.new_empty(q.shape[:-1] if in_part else (0,), dtype=torch.float32)


def _num_shared(*parts: Tensor | None) -> int:
    return sum(part.numel() for part in parts if part is not None)


def _tokens(x: Tensor) -> _Tokens:
    return _Tokens(x.data_ptr(), *x.stride())


def _case(
    q: Tensor,
    mask: Tensor | None,
    rel_rows: Tensor | None,
    rel_cols: Tensor | None,
    bias: Tensor | None,
    rows: int,
    cols: int,
    dilation: int,
    shifted: bool,
    scale: float,
) -> _Case:
    return _Case(
        *q.shape,
        *(rows, cols, dilation, shifted, 0 if rel_rows is None else rel_rows.shape[1]),
        *(q.dtype == torch.bfloat16, torch.get_num_threads(), scale),
        *(None if part is None else part.data_ptr() for part in (mask, rel_rows, rel_cols, bias)),
    )


def _call(name: str, case: _Case, *arguments: _Tokens | int | None) -> None:
    native = native_state().library
    assert native is not None  # `_require_native` has checked it
    passed = [ctypes.byref(part) if isinstance(part, _Tokens) else _pointer(part) for part in arguments]
    if problem := getattr(native, name)(ctypes.byref(case), *passed):
        if problem == NO_MEMORY:
            raise MemoryError("local attention: no memory left for the native path")
        raise RegardError("local attention: impl 'native' does not take these sizes")


def _require_native(q: Tensor) -> None:
    if q.device.type != "cpu" or q.dtype not in DTYPES:
        raise RegardError(
            f"local attention: impl 'native' takes float32 and bfloat16 on a CPU, got {q.dtype} on {q.device}"
        )
    if not native_is_available():
        raise RegardError(f"local attention: impl 'native' is not available here: {native_state().reason}")
