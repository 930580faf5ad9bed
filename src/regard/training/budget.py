"""How long a run is, and what the learning rate is along the way."""

import math
from dataclasses import dataclass

from regard.recipes import TrainSection

EVALUATIONS = 0.2
"""The fraction of the time that evaluations may take where a recipe does not say how often they come."""


@dataclass(frozen=True)
class Budget:
    """Whichever of the limits comes first ends the run."""

    max_steps: int | None
    max_seconds: float | None

    @classmethod
    def of(cls, train: TrainSection, steps_per_epoch: int) -> "Budget":
        steps = [train.max_steps, None if train.epochs is None else train.epochs * steps_per_epoch]
        limits = [limit for limit in steps if limit is not None]
        return cls(min(limits, default=None), None if train.max_minutes is None else train.max_minutes * 60)

    def spent(self, step: int | float, seconds: float, *, since: float = 0.0) -> float:
        """The spent fraction of the budget that is spent furthest, from 0 to 1; at 1 the run is over.

        since: the second from which time counts.
        """
        fractions = [0.0]
        if self.max_steps is not None:
            fractions.append(step / self.max_steps)
        if self.max_seconds is not None:
            left = max(self.max_seconds - since, 1e-9)
            fractions.append(max(seconds - since, 0.0) / left)
        return min(max(fractions), 1.0)


def leaves_time_to_train(seconds: float, evaluations: float, last: float) -> bool:
    """Whether one more evaluation, as long as the `last`, would leave evaluations at most a fifth of all seconds."""
    return evaluations + last <= EVALUATIONS * (seconds + last)


def learning_rate(train: TrainSection, spent: float, *, step: int, embed_dim: int) -> float:
    """The rate of step `step` (the first is 1), which begins when the fraction `spent` of the budget is gone."""
    if train.schedule == "transformer":
        return train.lr * transformer_rate(step, embed_dim, train.warmup_steps)
    return train.lr * cosine(spent, train.warmup, train.final_lr)


def cosine(spent: float, warmup: float, final: float) -> float:
    """A linear rise to 1 over the fraction `warmup` of the budget, then half a cosine down to `final`."""
    if spent < warmup:
        return spent / warmup
    fall = (spent - warmup) / max(1 - warmup, 1e-12)
    return final + (1 - final) * (1 + math.cos(math.pi * fall)) / 2


def transformer_rate(step: int, embed_dim: int, warmup_steps: int) -> float:
    """embed_dim^-0.5 · min(step^-0.5, step · warmup_steps^-1.5)  (Vaswani et al. 2017, eq. 3); the first step is 1."""
    return embed_dim**-0.5 * min(step**-0.5, step * warmup_steps**-1.5)
