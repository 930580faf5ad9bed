"""Operations that a computation takes, counted while it runs."""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

# What takes no arithmetic: it makes tensors, copies them, or picks elements out of them.
MOVES = frozenset(
    {
        *("clone", "copy", "_to_copy", "contiguous", "cat", "stack", "pad", "constant_pad_nd", "roll", "flip", "tril"),
        *("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "resize", "scalar_tensor", "triu"),
        *("zeros", "zeros_like", "new_zeros", "ones", "ones_like", "new_ones", "full", "full_like", "new_full", "fill"),
        *("arange", "linspace", "eye", "lift_fresh", "detach", "zero", "_unsafe_view", "_reshape_alias", "item"),
        *("index", "index_select", "index_put", "gather", "scatter", "where", "masked_fill", "embedding", "repeat"),
        *("select_backward", "slice_backward", "_local_scalar_dense", "is_same_size", "alias", "set", "record_stream"),
        *("eq", "ne", "lt", "le", "gt", "ge", "isfinite", "isnan", "logical_and", "logical_not", "bitwise_not"),
        *("bitwise_and", "bitwise_or", "any", "all", "sort", "topk", "argmax", "max_pool2d_with_indices"),
    }
)
WORDS = {"fft": "FFT", "rnn": "LSTM", "lstm": "LSTM"}
"""What a name of PyTorch's means, where it does not say it."""


@dataclass(frozen=True)
class Operations:
    """A multiply and an add are two."""

    formula: int | None
    """As papers count: matrix products and convolutions; softmax, norms and biases are left out. None: no formula."""
    counted: int
    """What PyTorch's counter saw, with the package's own ops."""
    uncounted: tuple[str, ...] = ()
    """Operations with arithmetic that the counter has no count for, by name; those of many first."""


def count(work: Callable[[], object]) -> tuple[int, tuple[str, ...]]:
    """The operations of a computation on a CPU or GPU, and the names of those that could not be counted.

    PyTorch's counter knows matrix products and convolutions; it is told what the fused attention of CPUs and local
    attention in C++ take. Gradients are not computed.
    """
    aten: Any = torch.ops.aten
    own: Any = torch.ops.regard
    counter = FlopCounterMode(
        display=False,
        custom_mapping={
            aten._scaled_dot_product_flash_attention_for_cpu: _attention,
            own.local_attention: _local_attention,
        },
    )
    known = set(counter.flop_registry)
    with torch.no_grad(), _Names(known) as names, counter:
        work()
    return counter.get_total_flops(), tuple(sorted(names.found, key=lambda name: not name.endswith(")")))


def _attention(q: Any, k: Any, v: Any, *_: Any, **__: Any) -> int:
    """q kᵀ and the weights times v, from the shapes (batch, heads, tokens, head_dim)."""
    return 2 * prod(q[:3]) * k[2] * (q[3] + v[3])


def _local_attention(
    q: Any, k: Any, v: Any, mask: Any, rel_rows: Any, rel_cols: Any, bias: Any, rows: int, cols: int, *_: Any, **__: Any
) -> int:
    """As the definition: a full window at each pixel, and q times each embedding of an offset, from the shapes."""
    batch, heads, height, width, dim = q
    pixels = batch * heads * height * width
    offsets = sum(prod(table) for table in (rel_rows, rel_cols) if table is not None)
    return 4 * pixels * min(rows, height) * min(cols, width) * dim + 2 * pixels * offsets


class _Names(TorchDispatchMode):
    """Notes the operations that a counter within it passes on and does not know."""

    def __init__(self, known: set[Any]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.known, self.found = known, dict[str, None]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        packet = getattr(func, "_overloadpacket", func)
        name = str(getattr(packet, "__name__", packet)).removesuffix("_")
        if not (packet in self.known or getattr(func, "is_view", False) or name in MOVES):
            words = next((words for part, words in WORDS.items() if part in name), "")
            plain = name.removeprefix("native").lstrip("_")
            self.found.setdefault(f"{plain} ({words})" if words else plain)
        return func(*args, **(kwargs or {}))
