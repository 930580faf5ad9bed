"""Two or more ways to do one thing, timed in turn in one process; the ratio of each turn is what counts."""

import re
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from regard.files import write_json
from regard.training import machine, versions

RESULTS = Path(__file__).parent / "results"


def interleaved(ways: dict[str, Callable[[], object]], *, repetitions: int, warm_up: int = 2) -> dict[str, list[float]]:
    """Seconds of each way in each repetition. Every other turn runs in reverse, so that no way always goes first."""
    for _ in range(warm_up):
        for way in ways.values():
            way()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(repetitions):
        for name in list(ways)[:: 1 if turn % 2 == 0 else -1]:
            start = time.perf_counter()
            ways[name]()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def median_ratio(peer: list[float], ours: list[float]) -> float:
    """How many times as fast as the peer: the median over the turns of peer's time / our time."""
    return statistics.median(a / b for a, b in zip(peer, ours, strict=True))


def without_gradients(way: Callable[[], Tensor]) -> Callable[[], object]:
    def run() -> object:
        with torch.inference_mode():
            return way()

    return run


def with_gradients(way: Callable[[], Tensor]) -> Callable[[], object]:
    """Forward and backward."""
    return lambda: way().sum().backward()


def result_path(name: str) -> Path:
    """results/NAME-<processor or accelerator>.json"""
    where = machine()
    device = where["accelerator"] if where["accelerator"] != "none" else f"{where['processor']}-{where['cores']}-cores"
    return RESULTS / f"{name}-{'-'.join(re.findall('[a-z0-9]+', str(device).lower().replace('(r)', '')))}.json"


def save(name: str, results: Any, packages: tuple[str, ...] = (), *, path: Path | None = None) -> Path:
    """Writes `result_path(name)`, or another file, with the machine, the versions and the day."""
    where, path = machine(), path or result_path(name)
    path.parent.mkdir(exist_ok=True)
    found = versions(("regard", "torch", "torchvision", *packages))
    record = {"date": datetime.now(UTC).date().isoformat(), "machine": where, "versions": found, "results": results}
    write_json(path, record)
    return path
