"""Local attention in blocks against unfolding every window and against a 3 × 3 convolution of the same channels.

Run: .venv/bin/python benchmarks/local_attention.py [--repetitions 9]
Batch 1, window 7, float32. The ratios are of medians' turns: how many times as fast as the peer.
"""

import argparse
import statistics
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from peer import interleaved, median_ratio, save
from regard.ops import local_attention

WINDOW = 7
HEADS = [(4, 32), (8, 32), (8, 64)]
SIDES = [14, 28, 56, 112]
# Pixels beyond which unfolding takes gigabytes.
LARGEST_UNFOLDED = 56


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=9)
    repetitions = parser.parse_args().repetitions
    rows = [
        case(heads, head_dim, side, embedded, training, repetitions)
        for heads, head_dim in HEADS
        for side in SIDES
        for embedded in (False, True)
        for training in (False, True)
    ]
    print(f"saved to {save('local_attention', {'repetitions': repetitions, 'rows': rows})}")


def case(heads: int, head_dim: int, side: int, embedded: bool, training: bool, repetitions: int) -> dict[str, object]:
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, heads, side, side, head_dim, requires_grad=True) for _ in range(3))
    rel = [torch.randn(WINDOW, head_dim // 2, requires_grad=True) for _ in range(2)] if embedded else [None, None]
    conv = nn.Conv2d(heads * head_dim, heads * head_dim, 3, padding=1)
    image = torch.randn(1, heads * head_dim, side, side, requires_grad=True)
    ways: dict[str, Callable[[], Tensor]] = {
        "blocked": lambda: local_attention(q, k, v, window=WINDOW, rel_rows=rel[0], rel_cols=rel[1], impl="blocked"),
        "convolution": lambda: conv(image),
    }
    if side <= LARGEST_UNFOLDED:
        ways["unfold"] = lambda: unfolded(q, k, v, *rel)
        torch.testing.assert_close(ways["unfold"](), ways["blocked"](), rtol=1e-3, atol=1e-4)
    run = {name: _with_gradients(way) if training else _without(way) for name, way in ways.items()}
    seconds = interleaved(run, repetitions=repetitions, warm_up=1)
    found = {
        "heads": heads,
        "head_dim": head_dim,
        "side": side,
        "embeddings": embedded,
        "mode": "forward and backward" if training else "forward",
        "median_ms": {name: round(1e3 * statistics.median(times), 2) for name, times in seconds.items()},
        "against_convolution": round(median_ratio(seconds["convolution"], seconds["blocked"]), 2),
    }
    if "unfold" in seconds:
        found["against_unfold"] = round(median_ratio(seconds["unfold"], seconds["blocked"]), 2)
    print(", ".join(f"{key} {value}" for key, value in found.items()))
    return found


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
    there = F.pad(torch.ones(1, 1, height, width), (radius,) * 4).unfold(2, WINDOW, 1).unfold(3, WINDOW, 1) > 0
    weights = logits.masked_fill(~there, float("-inf")).flatten(-2).softmax(-1)
    return (weights[:, :, None] * windows(v).flatten(-2)).sum(-1).permute(0, 1, 3, 4, 2)


def _without(way: Callable[[], Tensor]) -> Callable[[], object]:
    def run() -> object:
        with torch.inference_mode():
            return way()

    return run


def _with_gradients(way: Callable[[], Tensor]) -> Callable[[], object]:
    return lambda: way().sum().backward()


if __name__ == "__main__":
    main()
