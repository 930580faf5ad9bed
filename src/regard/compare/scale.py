"""What each mixer costs as images grow: timings in successive rounds, a cost model for each, and where they cross."""

import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import torch

from regard.compare.contender import BUSY
from regard.compare.cost_model import LEAST_SIZES, CostModel, Crossover, crossover, fit_cost
from regard.compare.operations import Operations, count
from regard.compare.processes import Worker, busy_cores
from regard.compare.spread import Spread, median_of
from regard.errors import RegardError, unknown
from regard.layers import Grid
from regard.mixers import MIXERS, create_mixer

SIDES = (7, 10, 14, 20, 28, 40, 56, 80, 112, 160, 224)
"""Of the grid of tokens: each has about twice the tokens of the one before, 49 to 50,176."""
MAX_TOKENS = SIDES[-1] ** 2
MEMORY_GB = 12.0
BASELINE = "attention"
MOST = 60
"""Samples of a point; more would not change its median."""
SHORT = 0.1
"""Seconds; a call that takes k times as long is measured in a k-th of the rounds."""
REPEATS = 0.4
"""The fraction of the time that is kept for measuring all sizes again."""
COUNTED = 784
"""Tokens at which operations are counted as well."""

Step = Literal["forward", "training"]
STEPS: tuple[Step, ...] = ("forward", "training")


@runtime_checkable
class Stopwatch(Protocol):
    """What times a mixer: `scale_worker`, or a script in tests."""

    def ask(self, request: Any) -> Any: ...

    def close(self) -> None: ...


@dataclass
class Curve:
    """The timings of one mixer, of one image."""

    mixer: str
    step: Step
    timings: dict[int, list[float]] = field(default_factory=dict)
    """Tokens -> seconds."""
    ended: str = ""
    """Why there is no larger number of tokens."""
    model: CostModel | None = None

    @property
    def largest(self) -> int | None:
        return max(self.timings, default=None)

    def points(self) -> dict[int, Spread]:
        """The median at each number of tokens, with its interval."""
        return {tokens: median_of(seconds) for tokens, seconds in sorted(self.timings.items())}

    def expected(self, tokens: int) -> float | None:
        """Seconds of a call: as measured, or from the last two sizes, at most as if all grew with the square."""
        if tokens in self.timings:
            return median_of(self.timings[tokens]).median
        known = [(size, one.median) for size, one in self.points().items()]
        if not known:
            return None
        size, seconds = known[-1]
        slope = 2.0
        if len(known) > 1:
            before, earlier = known[-2]
            slope = min(max(math.log(seconds / earlier) / math.log(size / before), 1.0), 2.0)
        return seconds * (tokens / size) ** slope


@dataclass(frozen=True)
class OperationCurve:
    """The operations of one mixer, by formula, for one image."""

    mixer: str
    formula: dict[int, int]
    """Tokens -> operations, for all numbers of tokens that were asked for."""
    slope: float | None
    """d log operations / d log N at the end; None without operations."""
    counted_at: int
    counted: Operations

    @property
    def last(self) -> int:
        return max(self.formula)


@dataclass
class Scale:
    """Curves of mixers, and what follows from them; it grows while it is measured."""

    curves: list[Curve]
    operations: list[OperationCurve]
    embed_dim: int
    num_heads: int
    max_tokens: int
    seconds: float
    threads: int
    device: str
    load: float | None = None
    """Cores that other programs kept busy just before."""
    spent: float = 0.0
    """Seconds so far."""

    @property
    def is_busy(self) -> bool:
        return self.load is not None and self.load > BUSY

    @property
    def steps(self) -> list[Step]:
        return list(dict.fromkeys(curve.step for curve in self.curves))

    def of(self, step: Step) -> list[Curve]:
        return [curve for curve in self.curves if curve.step == step]

    def fit(self) -> None:
        """Fits the cost model of each curve to its timings so far."""
        for number, curve in enumerate(self.curves):
            curve.model = fit_cost(curve.timings, seed=number)

    def crossovers(self, step: Step) -> dict[str, Crossover]:
        """From where on each mixer costs less than attention; empty where attention was not measured."""
        models = {curve.mixer: curve.model for curve in self.of(step)}
        baseline = models.pop(BASELINE, None)
        if baseline is None:
            return {}
        return {mixer: crossover(baseline, model) for mixer, model in models.items() if model is not None}


def scale(
    mixers: str | Sequence[str] = "all",
    *,
    max_tokens: int = MAX_TOKENS,
    embed_dim: int = 192,
    num_heads: int = 3,
    step: str = "forward",
    seconds: float = 60.0,
    threads: int | None = None,
    device: str = "cpu",
    memory_gb: float | None = None,
    seed: int = 0,
    improved: Callable[[Scale], object] | None = None,
    stopwatch: Callable[[dict[str, Any]], Stopwatch] | None = None,
) -> Scale:
    """Times mixers on one image of 49 tokens to `max_tokens`, in rounds, for `seconds` in all.

    mixers: names with commas between or in a list, or "all". step: "forward", "training" (forward, backward, AdamW), or
    "both". threads: of each process; as torch decides unless given. memory_gb: of each process, 12 or what the machine
    has free. seed: of the order. improved: gets the curves so far, first when each mixer has one, then after each
    round. The first five sizes are measured even if they take longer than `seconds`; a larger one only where it leaves
    two fifths of the time for measuring all again.
    RegardError for an unknown mixer, one named twice, and numbers out of range.
    """
    names = _names(mixers)
    steps = _steps(step)
    sides = _sides(max_tokens)
    _check(embed_dim, num_heads, seconds, threads, memory_gb)
    began, draw = time.monotonic(), random.Random(seed)
    found = Scale(
        [Curve(name, one) for one in steps for name in names],
        [_operations(name, sides, embed_dim, num_heads) for name in names],
        *(embed_dim, num_heads, max_tokens, seconds, threads or torch.get_num_threads(), device),
        load=busy_cores(),
    )
    bound = memory_gb or _memory_gb()
    settings = {
        "embed_dim": embed_dim,
        "num_heads": num_heads,
        "threads": threads,
        "device": device,
        "memory_gb": bound,
    }
    watch = (stopwatch or _worker)(settings)
    try:
        _measure(found, sides, watch, draw, began + seconds, bound, began, improved)
    finally:
        watch.close()
    return found


def _measure(
    found: Scale,
    sides: Sequence[int],
    watch: Stopwatch,
    draw: random.Random,
    end: float,
    memory_gb: float,
    began: float,
    improved: Callable[[Scale], object] | None,
) -> None:
    """The smallest costs first, until what is left is too long; then all again in rounds, until the time is over."""

    told_at, told_for = began, 0.0

    def left() -> float:
        return end - time.monotonic()

    def tell(*, at_least: float = 0.0) -> None:
        nonlocal told_at, told_for
        now = time.monotonic()
        if now - told_at >= at_least:
            found.spent = now - began
            found.fit()
            if improved is not None:
                improved(found)
            told_at, told_for = time.monotonic(), time.monotonic() - now

    def visit(curve: Curve, side: int) -> None:
        expected = curve.expected(side**2)
        samples = 3 if (expected or 0) < 0.05 else 1
        request = {"mixer": curve.mixer, "side": side, "step": curve.step, "samples": samples, "expected": expected}
        answer = watch.ask(request)
        if "seconds" in answer:
            curve.timings.setdefault(side**2, []).extend(answer["seconds"])
        elif answer["failed"] == "memory":
            curve.ended = f"{side**2:,} tokens did not fit: above {memory_gb:.3g} GB"
        else:
            curve.ended = f"{side**2:,} tokens: {answer['failed']}"

    first = True
    while True:
        ahead = [
            (curve, next(side for side in sides if side**2 not in curve.timings))
            for curve in found.curves
            if not curve.ended and len(curve.timings) < len(sides)
        ]
        if first and all(len(curve.timings) >= min(LEAST_SIZES, len(sides)) for curve, _ in ahead):
            first = False
            tell()
        if not ahead:
            break
        # Costs are compared in steps of a factor of two, and drawn within them: what happens meanwhile meets all alike.
        draw.shuffle(ahead)
        curve, side = min(ahead, key=lambda one: _place(one[0].expected(one[1] ** 2)))
        expected, left_for_first = curve.expected(side**2) or 0.0, max(left() - REPEATS * (end - began), 0.0)
        if len(curve.timings) >= LEAST_SIZES and expected > left_for_first:
            over = (
                f"more than the {_seconds(left_for_first)} that were left for it"
                if left_for_first > 0.05
                else "and the time was over"
            )
            curve.ended = f"{side**2:,} tokens would take about {_seconds(expected)}, {over}"
        else:
            visit(curve, side)
    while left() > 0:
        again = [
            (curve, math.isqrt(tokens))
            for curve in found.curves
            for tokens, seconds in curve.timings.items()
            if len(seconds) < MOST
        ]
        draw.shuffle(again)
        costs = [curve.expected(side**2) or 0.0 for curve, side in again]
        often, visited = max(SHORT, min(costs, default=0.0)), False
        for (curve, side), expected in zip(again, costs, strict=True):
            # What takes long is measured again less often; its noise is small.
            if 3 * expected < left() and draw.random() * expected < often:
                visit(curve, side)
                visited = True
        if not visited:
            break
        tell(at_least=10 * told_for)  # fits and pages shall not take the time of measurements
    tell()


def _place(expected: float | None) -> int:
    return -100 if expected is None else math.floor(math.log2(expected))


def _seconds(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds >= 1 else f"{seconds:.1f} s"


def _worker(settings: dict[str, Any]) -> Stopwatch:
    import json

    return Worker("regard.compare.scale_worker", [json.dumps(settings)])


def _operations(mixer: str, sides: Sequence[int], embed_dim: int, num_heads: int) -> OperationCurve:
    """By formula at all sizes, and counted at one that any machine computes at once."""

    def flops(side: int) -> int:
        with torch.device("meta"):
            grid = Grid(side, side)
            return create_mixer(mixer, embed_dim, num_heads=num_heads, grid=grid).flops(grid)

    formula = {side**2: flops(side) for side in sides}
    end, beyond = formula[sides[-1] ** 2], flops(sides[-1] + 1)
    slope = math.log(beyond / end) / (2 * math.log1p(1 / sides[-1])) if end else None
    side = max(side for side in sides if side**2 <= COUNTED)
    one = create_mixer(mixer, embed_dim, num_heads=num_heads, grid=Grid(side, side)).eval()
    x = torch.randn(1, side**2, embed_dim)
    counted, uncounted = count(lambda: one(x, grid=Grid(side, side)))
    return OperationCurve(mixer, formula, slope, side**2, Operations(formula[side**2], counted, uncounted))


def _names(mixers: str | Sequence[str]) -> list[str]:
    if mixers == "all":
        return list(MIXERS)
    names = [name.strip() for name in (mixers.split(",") if isinstance(mixers, str) else mixers)]
    for name in names:
        if name not in MIXERS:
            raise unknown("mixer", name, MIXERS, where="scale")
    if not names or len(set(names)) < len(names):
        raise RegardError(f"scale: name each mixer once, and at least one; got {', '.join(names) or 'none'}")
    return names


def _steps(step: str) -> tuple[Step, ...]:
    if step == "both":
        return STEPS
    chosen = tuple(one for one in STEPS if one == step)
    if not chosen:
        raise unknown("step", step, (*STEPS, "both"), where="scale")
    return chosen


def _sides(max_tokens: int) -> list[int]:
    """The sides of grids of 49 tokens to `max_tokens`; the last one is as near to it as a square can be."""
    if not SIDES[0] ** 2 <= max_tokens <= 2**24:
        raise RegardError(
            f"scale: --max-tokens is {max_tokens}; it must be at least {SIDES[0] ** 2}, and at most {2**24}"
        )
    sides, last = [side for side in SIDES if side**2 <= max_tokens], math.isqrt(max_tokens)
    while sides[-1] * math.sqrt(2) * 1.05 < last:  # beyond the grid
        sides.append(round(sides[-1] * math.sqrt(2)))
    return sides if last < 1.1 * sides[-1] else [*sides, last]


def _check(embed_dim: int, num_heads: int, seconds: float, threads: int | None, memory_gb: float | None) -> None:
    if num_heads < 1 or embed_dim < 1 or embed_dim % num_heads or embed_dim // num_heads < 2:
        raise RegardError(
            f"scale: --embed-dim is {embed_dim}; it must be a multiple of {max(1, num_heads)}, the number of heads, "
            "and at least twice as much"
        )
    if not 0 < seconds < math.inf:
        raise RegardError(f"scale: --seconds is {seconds:g}; it must be a number above 0")
    if threads is not None and threads < 1:
        raise RegardError(f"scale: --threads is {threads}; it must be at least 1")
    if memory_gb is not None and not 0 < memory_gb < math.inf:
        raise RegardError(f"scale: memory_gb is {memory_gb:g}; it must be a number above 0")


def _memory_gb() -> float:
    """What a process may take: what is free now, but for a tenth, and at most `MEMORY_GB`."""
    try:
        import psutil
    except ImportError:
        return MEMORY_GB
    return min(MEMORY_GB, 0.9 * psutil.virtual_memory().available / 2**30)
