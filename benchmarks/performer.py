"""FAVOR+ against performer-pytorch and against exact attention, and its error against the number of features.

Run: .venv/bin/python benchmarks/performer.py [--repetitions 7]
Batch 1, 8 heads of 64, float32. performer-pytorch (1.1.4) takes part where it is installed: pip install --no-deps
performer-pytorch. The ratios are medians of turns: how many times as fast as the peer.
"""

import argparse
import importlib
import importlib.util
import math
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from peer import interleaved, median_ratio, save, with_gradients, without_gradients
from regard.ops import attention, favor_attention, orthogonal_projection
from regard.training import memory_above_mb

HEADS, HEAD_DIM = 8, 64
TOKENS = [196, 1024, 4096, 16384]
# Beyond these exact attention takes minutes.
LARGEST_EXACT = 4096
KINDS = {"softmax_positive": False, "relu": True}

Way = Callable[[], Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--memory", nargs=3, metavar=("WAY", "TOKENS", "FEATURES"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory:
        way, tokens, features = options.memory
        print(memory_here(way, int(tokens), int(features)))
        return
    rows = [
        case(tokens, features, kind, training, options.repetitions if tokens < 16384 else 3)
        for tokens in TOKENS
        for features in (128, 256)
        for kind in KINDS
        for training in (False, True)
    ]
    grown = [memory(tokens, 128) for tokens in (4096, 16384, 50176)]
    print(f"saved to {save('performer', {'rows': rows, 'memory': grown, 'error': errors()})}")


def ways_of(tokens: int, features: int, kind: str) -> dict[str, Way]:
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, HEADS, tokens, HEAD_DIM, requires_grad=True) for _ in range(3))
    projection = orthogonal_projection(features, HEAD_DIM)
    ways: dict[str, Way] = {"regard": lambda: favor_attention(q, k, v, projection=projection, kind=kind)}
    if importlib.util.find_spec("performer_pytorch"):
        theirs = _performer_pytorch().FastAttention(
            dim_heads=HEAD_DIM, nb_features=features, generalized_attention=KINDS[kind]
        )
        ways["performer-pytorch"] = lambda: theirs(q, k, v)
    if tokens <= LARGEST_EXACT:
        ways["exact"] = lambda: F.scaled_dot_product_attention(q, k, v)
    return ways


def case(tokens: int, features: int, kind: str, training: bool, repetitions: int) -> dict[str, object]:
    ways = ways_of(tokens, features, kind)
    run = {name: with_gradients(way) if training else without_gradients(way) for name, way in ways.items()}
    seconds = interleaved(run, repetitions=repetitions, warm_up=1)
    found = {
        "tokens": tokens,
        "features": features,
        "kind": kind,
        "mode": "forward and backward" if training else "forward",
        "median_ms": {name: round(1e3 * statistics.median(times), 2) for name, times in seconds.items()},
        "as_fast_as": {
            peer: round(median_ratio(seconds[peer], seconds["regard"]), 2) for peer in seconds if peer != "regard"
        },
    }
    print(", ".join(f"{key} {value}" for key, value in found.items()), flush=True)
    return found


def memory(tokens: int, features: int) -> dict[str, object]:
    """Of forward and backward, each in a process of its own."""
    found: dict[str, object] = {"tokens": tokens, "features": features}
    for name in ("regard", "performer-pytorch"):
        if name == "regard" or importlib.util.find_spec("performer_pytorch"):
            command = [sys.executable, __file__, "--memory", name, str(tokens), str(features)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found[f"{name}_mb"] = round(float(done.stdout.splitlines()[-1]), 1)
    print(found, flush=True)
    return found


def memory_here(name: str, tokens: int, features: int) -> float:
    run = ways_of(tokens, features, "softmax_positive")[name]
    return memory_above_mb(lambda: run().sum().backward(), torch.device("cpu"))


def errors() -> list[dict[str, object]]:
    """Relative errors of the output at 1,024 tokens, for queries and keys of several scales; beside the mean of v."""
    found = []
    for scale in (0.25, 0.5, 1.0):
        torch.manual_seed(0)
        q, k, v = (torch.randn(1, HEADS, 1024, HEAD_DIM) * factor for factor in (scale, scale, 1.0))
        exact = attention(q, k, v)

        def relative(out: Tensor, exact: Tensor = exact) -> float:
            return float((out - exact).norm() / exact.norm())

        row: dict[str, object] = {"scale": scale, "mean_of_v": round(relative(v.mean(2, keepdim=True).expand_as(v)), 3)}
        for features in (64, 256, 1024):
            draws = [
                relative(favor_attention(q, k, v, projection=orthogonal_projection(features, HEAD_DIM)))
                for _ in range(3)
            ]
            row[f"{features}_features"] = round(math.sqrt(sum(draw**2 for draw in draws) / len(draws)), 3)
        found.append(row)
        print(row, flush=True)
    return found


def _performer_pytorch() -> Any:
    """It imports a package `local_attention`, which a benchmark of that name in this folder would hide."""
    here = str(Path(__file__).parent)
    kept = [entry for entry in sys.path if entry == here]
    sys.path[:] = [entry for entry in sys.path if entry != here]
    try:
        return importlib.import_module("performer_pytorch")
    finally:
        sys.path[:0] = kept


if __name__ == "__main__":
    main()
