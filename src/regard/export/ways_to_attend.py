"""What is faster on this machine is timed, not written down: two ways of softmax attention, and two precisions."""

import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

import torch
import torch.nn.functional as F
from torch import Tensor

from regard.errors import RegardError
from regard.files import cache_folder, write_json
from regard.training import machine

TIMED = 3
"""Calls of each way, of which the fastest counts."""


def _by_products(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return ((q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)).softmax(-1) @ v


WAYS: dict[str, Callable[..., Tensor]] = {"sdpa": F.scaled_dot_product_attention, "products": _by_products}
_known: dict[str, str] = {}


def fastest_way(q: Tensor, k: Tensor, v: Tensor) -> str:
    """The faster of WAYS for such tensors: timed once on a machine, and kept in the user's cache folder."""
    key = f"{tuple(q.shape)} {k.shape[2]} {q.dtype} {torch.get_num_threads()}"
    if key not in _known:
        file = None
        with suppress(RegardError, OSError, ValueError, TypeError):
            file = cache_folder() / "attention-ways.json"
            stored = json.loads(file.read_text(encoding="utf-8")).get(_machine(), {})
            _known.update({name: way for name, way in stored.items() if way in WAYS})
    if key not in _known:
        _known[key] = min(WAYS, key=lambda way: _seconds(way, q, k, v))
        with suppress(RegardError, OSError):  # a cache that cannot be written costs a few milliseconds the next time
            if file is not None:
                file.parent.mkdir(parents=True, exist_ok=True)
                write_json(file, {_machine(): _known})
    return _known[key]


def faster_precision(maps: Mapping[torch.dtype, Callable[[Tensor], Tensor]], x: Tensor) -> torch.dtype:
    """The precision whose map of x takes less time, in turns. Instructions for bfloat16 alone need not be faster."""
    seconds: dict[torch.dtype, list[float]] = {dtype: [] for dtype in maps}
    for _ in range(2 * TIMED + 1):
        for dtype, own in maps.items():
            began = time.perf_counter()
            own(x)
            seconds[dtype].append(time.perf_counter() - began)
    return min(seconds, key=lambda dtype: min(seconds[dtype][1:]))


def _machine() -> str:
    return f"{machine()['processor']}, torch {torch.__version__}"


def _seconds(way: str, q: Tensor, k: Tensor, v: Tensor) -> float:
    found = []
    for _ in range(TIMED + 1):
        began = time.perf_counter()
        WAYS[way](q, k, v)
        found.append(time.perf_counter() - began)
    return min(found[1:])
