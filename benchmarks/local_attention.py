"""The paths of local attention against each other, against unfolding every window, and against a 3 × 3 convolution.

Run: .venv/bin/python benchmarks/local_attention.py [--repetitions 9]
Batch 1, window 7, float32, on a CPU; bfloat16 and dense attention too where there is a CUDA device. The ratios are the
medians of turns: how many times as fast as the peer. Memory is that of forward and backward above what was there
before, each in a process of its own.
"""

import argparse
import statistics
import subprocess
import sys
from collections.abc import Callable
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from peer import interleaved, median_ratio, save, with_gradients, without_gradients
from regard.ops import local_attention, native_state
from regard.training import memory_above_mb

WINDOW = 7
HEADS = [(4, 32), (8, 32), (8, 64)]
SIDES = [14, 28, 56, 112]
# Pixels along a side beyond which unfolding takes gigabytes.
LARGEST_UNFOLDED = 56

Way = Callable[[], Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=9)
    parser.add_argument("--memory", nargs=4, metavar=("WAY", "HEADS", "HEAD_DIM", "SIDE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory:
        way, *sizes = options.memory
        print(memory_here(way, *map(int, sizes)))
        return
    found = {
        "repetitions": options.repetitions,
        "native": native_state().reason,
        "rows": [
            case(*heads, side, embedded, training, options.repetitions)
            for heads, side, embedded, training in product(HEADS, SIDES, (False, True), (False, True))
        ],
        "memory": [memory(*sizes) for sizes in ((8, 32, 28), (8, 32, 56), (8, 32, 112), (4, 32, 224))],
    }
    if torch.cuda.is_available():
        found["cuda"] = [on_cuda(side, options.repetitions) for side in (56, 112, 224)]
    print(f"saved to {save('local_attention', found)}")


def ways_of(heads: int, head_dim: int, side: int, embedded: bool) -> dict[str, Way]:
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, heads, side, side, head_dim, requires_grad=True) for _ in range(3))
    rel = [torch.randn(WINDOW, head_dim // 2, requires_grad=True) for _ in range(2)] if embedded else [None, None]
    conv = nn.Conv2d(heads * head_dim, heads * head_dim, 3, padding=1)
    image = torch.randn(1, heads * head_dim, side, side, requires_grad=True)

    def by(impl: str) -> Way:
        return lambda: local_attention(q, k, v, window=WINDOW, rel_rows=rel[0], rel_cols=rel[1], impl=impl)

    names = ["auto", "blocked", *(["native"] if native_state().library else [])]
    ways = {name: by(name) for name in names} | {"convolution": lambda: conv(image)}
    if side <= LARGEST_UNFOLDED:
        ways["unfold"] = lambda: unfolded(q, k, v, *rel)
    return ways


def case(heads: int, head_dim: int, side: int, embedded: bool, training: bool, repetitions: int) -> dict[str, object]:
    ways = ways_of(heads, head_dim, side, embedded)
    if "unfold" in ways:
        for name in ways.keys() - {"unfold", "convolution"}:
            torch.testing.assert_close(ways[name](), ways["unfold"](), rtol=1e-3, atol=1e-4)
    run = {name: with_gradients(way) if training else without_gradients(way) for name, way in ways.items()}
    seconds = interleaved(run, repetitions=repetitions)
    found = {
        "heads": heads,
        "head_dim": head_dim,
        "side": side,
        "embeddings": embedded,
        "mode": "forward and backward" if training else "forward",
        "median_ms": {name: round(1e3 * statistics.median(times), 2) for name, times in seconds.items()},
        "as_fast_as": {
            f"{name} / {peer}": round(median_ratio(seconds[peer], seconds[name]), 2)
            for name, peer in product(("auto", "blocked", "native"), ("unfold", "convolution", "blocked", "native"))
            if name != peer and name in seconds and peer in seconds
        },
    }
    print(", ".join(f"{key} {value}" for key, value in found.items()), flush=True)
    return found


def memory(heads: int, head_dim: int, side: int) -> dict[str, object]:
    names = ["blocked", *(["native"] if native_state().library else []), "convolution"]
    names += ["unfold"] if side <= LARGEST_UNFOLDED else []
    found: dict[str, object] = {"heads": heads, "head_dim": head_dim, "side": side, "embeddings": True}
    for name in names:
        command = [sys.executable, __file__, "--memory", name, str(heads), str(head_dim), str(side)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found[f"{name}_mb"] = round(float(done.stdout), 1)
    print(found, flush=True)
    return found


def memory_here(name: str, heads: int, head_dim: int, side: int) -> float:
    run = ways_of(heads, head_dim, side, embedded=True)[name]
    small = ways_of(heads, head_dim, 15, embedded=True)[name]
    small().sum().backward()  # compiles and loads what is to be loaded
    return memory_above_mb(lambda: run().sum().backward(), torch.device("cpu"))


def on_cuda(side: int, repetitions: int) -> dict[str, object]:
    """bfloat16, 8 heads of 64, forward and backward: FlexAttention, NATTEN, unfolding, and attention of all to all."""
    torch.manual_seed(0)
    q, k, v = (
        torch.randn(1, 8, side, side, 64, device="cuda", dtype=torch.bfloat16, requires_grad=True) for _ in range(3)
    )
    ways: dict[str, Way] = {
        "flex": lambda: local_attention(q, k, v, window=WINDOW, border="shift", impl="flex"),
        "blocked": lambda: local_attention(q, k, v, window=WINDOW, border="shift", impl="blocked"),
        "dense": lambda: F.scaled_dot_product_attention(*(part.flatten(2, 3) for part in (q, k, v))),
        "unfold": lambda: unfolded(q, k, v, None, None),
        "natten": lambda: local_attention(q, k, v, window=WINDOW, border="shift", impl="natten"),
    }
    serving = {}
    for name, way in ways.items():
        try:
            way().sum().backward()
            serving[name] = way
        except Exception as error:  # a peer that cannot serve is told, and left out
            print(f"{name} at {side}: {str(error).splitlines()[0]}")

    def timed(way: Way) -> Callable[[], object]:
        def run() -> object:
            way().sum().backward()
            torch.cuda.synchronize()
            return None

        return run

    seconds = interleaved({name: timed(way) for name, way in serving.items()}, repetitions=repetitions)
    return {
        "side": side,
        "median_ms": {name: round(1e3 * statistics.median(times), 3) for name, times in seconds.items()},
    }


def unfolded(q: Tensor, k: Tensor, v: Tensor, rel_rows: Tensor | None, rel_cols: Tensor | None) -> Tensor:
    """What public code does: every window copied out of a padded image; pixels beyond the border are masked."""
    radius, (heads, height, width, head_dim) = WINDOW // 2, q.shape[1:]

    def windows(x: Tensor) -> Tensor:
        image = x.permute(0, 1, 4, 2, 3).flatten(1, 2)
        found = F.pad(image, (radius,) * 4).unfold(2, WINDOW, 1).unfold(3, WINDOW, 1)
        return found.unflatten(1, (heads, head_dim))  # (batch, heads, head_dim, height, width, rows, cols)

    keys = windows(k)
    if rel_rows is not None and rel_cols is not None:
        offsets = [rel_rows.T[:, :, None].expand(-1, -1, WINDOW), rel_cols.T[:, None].expand(-1, WINDOW, -1)]
        keys = keys + torch.cat(offsets)[:, None, None]
    logits = (q.permute(0, 1, 4, 2, 3)[..., None, None] * keys).sum(2) * head_dim**-0.5
    there = (
        F.pad(torch.ones(1, 1, height, width, device=q.device), (radius,) * 4).unfold(2, WINDOW, 1).unfold(3, WINDOW, 1)
        > 0
    )
    weights = logits.masked_fill(~there, float("-inf")).flatten(-2).softmax(-1)
    return (weights[:, :, None] * windows(v).flatten(-2)).sum(-1).permute(0, 1, 3, 4, 2)


if __name__ == "__main__":
    main()
