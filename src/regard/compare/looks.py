"""Adding seeds until the answer is known: looks after 3, 5, 8 and 12 seeds, each with a part of alpha.

Verdicts with the whole alpha after each of them find a difference between twins in 8% of comparisons. Here look k of K
spends alpha · k / (1 + ... + K), 0.1, 0.2, 0.3 and 0.4 of it for four, so that all looks together err in alpha at most.
"""

from dataclasses import dataclass, replace

from regard.compare.inference import Verdicts
from regard.errors import RegardError

LOOKS = (3, 5, 8, 12)


@dataclass(frozen=True)
class Look:
    """After `seeds` runs of each contender that is still in, verdicts are made with `alpha`."""

    seeds: int
    alpha: float


def looks(max_seeds: int = LOOKS[-1], alpha: float | int = 0.05) -> tuple[Look, ...]:
    """The looks up to `max_seeds`, the last at it: 3, 5, 8, 12, then by half more: 18, 27, ... RegardError below 1."""
    if max_seeds < 1:
        raise RegardError(f"looks: max_seeds must be at least 1, got {max_seeds}")
    seeds = list(LOOKS)
    while seeds[-1] < max_seeds:
        seeds.append(seeds[-1] * 3 // 2)
    seeds = [*(number for number in seeds if number < max_seeds), max_seeds]
    whole = sum(range(1, len(seeds) + 1))
    return tuple(Look(number, alpha * k / whole) for k, number in enumerate(seeds, 1))


def kept(earlier: Verdicts | None, now: Verdicts) -> Verdicts:
    """The verdicts of now; for pairs that cannot be told now, those of an earlier look, which were shown and stay so.

    Figures are those of now. What was shown of the margin is kept, too: who dropped out stays out.
    """
    if earlier is None:
        return now
    pairs = []
    for old, new in zip(earlier.pairs, now.pairs, strict=True):
        if new.verdict == "cannot tell" and old.verdict != "cannot tell":
            seeds = min(earlier.runs[old.a], earlier.runs[old.b])
            new = replace(new, verdict=old.verdict, reason=old.reason or f"shown after {seeds} seeds")
        if old.p_margin <= earlier.alpha and not new.p_margin <= now.alpha and old.difference * new.difference > 0:
            new = replace(new, p_margin=now.alpha)
        pairs.append(new)
    return replace(now, pairs=tuple(pairs))


def dropped(found: Verdicts) -> list[int]:
    """Contenders that are shown to be more than the margin worse than another: they get no more seeds."""
    worse = set()
    for pair in found.pairs:
        if pair.p_margin <= found.alpha:
            worse.add(pair.b if (pair.difference > 0) == found.larger_is_better else pair.a)
    return sorted(worse)
