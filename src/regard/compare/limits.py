"""How long each training is (`--budget`), and when no more seeds are added (`--until`)."""

import math
from dataclasses import dataclass
from typing import Any, Literal

from regard.errors import RegardError, unknown
from regard.recipes import Recipe

BUDGETS = ("epochs", "steps", "minutes", "flops")
_KEYS = {"epochs": "epochs", "steps": "max_steps", "minutes": "max_minutes"}
MOST = 1e18


@dataclass(frozen=True)
class Budget:
    """Of a training alone: evaluating, saving and compiling are off the clock."""

    kind: Literal["epochs", "steps", "minutes", "flops"]
    value: float

    @classmethod
    def parse(cls, text: str) -> "Budget":
        kind, value = _pair("budget", text, BUDGETS)
        if kind in ("epochs", "steps") and (value != int(value) or value < 1):
            raise RegardError(f"budget: {text} is under one step; {kind} are whole numbers from 1")
        return cls(kind, value)  # type: ignore[arg-type]

    def __str__(self) -> str:
        return f"{self.kind}={self.value:g}"

    def of(self, recipe: Recipe, flops: int, name: str) -> Recipe:
        """The recipe with this budget and no other. flops: of one sample, forward, by formula.

        A budget in operations counts three times the forward pass for each sample of a step. RegardError where it is
        under one step, and where there is no formula.
        """
        limits: dict[str, Any] = {"epochs": None, "max_steps": None, "max_minutes": None}
        if self.kind == "flops":
            if not flops:
                raise RegardError(f"budget: {self}: there is no formula for the operations of {name}; give steps")
            one = 3 * flops * recipe.train.batch_size
            if self.value < one:
                raise RegardError(f"budget: {self} is under one step of {name}, which takes {one:.3g} operations")
            limits["max_steps"] = int(self.value // one)
        else:
            limits[_KEYS[self.kind]] = self.value if self.kind == "minutes" else int(self.value)
        return recipe.model_copy(update={"train": recipe.train.model_copy(update=limits)})

    def require_a_step(self, seconds: float, name: str) -> None:
        """RegardError for minutes that are under one step, which takes so many `seconds`."""
        if self.kind == "minutes" and self.value * 60 < seconds:
            raise RegardError(
                f"budget: {self} ({self.value * 60:.2g} s) is under one step of {name}, which takes {seconds:.2g} s"
            )


def budget_words(recipe: Recipe) -> str:
    """The budget that a recipe has: "epochs=40", or several of which the first that is spent ends a training."""
    train = recipe.train
    found = {"epochs": train.epochs, "steps": train.max_steps, "minutes": train.max_minutes}
    return ",".join(f"{kind}={value:g}" for kind, value in found.items() if value is not None)


@dataclass(frozen=True)
class Until:
    """No more seeds are added once the answer is known, or before that after so many minutes or runs."""

    kind: Literal["answer", "minutes", "runs"]
    value: float = math.inf

    @classmethod
    def parse(cls, text: str) -> "Until":
        if text == "answer":
            return cls("answer")
        kind, value = _pair("until", text, ("minutes", "runs"), also=("answer",))
        if kind == "runs" and (value != int(value) or value < 1):
            raise RegardError(f"until: {text}: runs are whole numbers from 1")
        return cls(kind, value)  # type: ignore[arg-type]

    def __str__(self) -> str:
        return self.kind if self.value == math.inf else f"{self.kind}={self.value:g}"

    def reached(self, runs: int, seconds: float) -> str:
        """Why no further training begins; "" while one may. seconds: of all trainings so far, over the jobs."""
        if self.kind == "runs" and runs >= self.value:
            return f"{runs} trainings were done (--until {self})"
        if self.kind == "minutes" and seconds >= 60 * self.value:
            return f"{self.value:g} minutes were over (--until {self})"
        return ""


def _pair(what: str, text: str, kinds: tuple[str, ...], also: tuple[str, ...] = ()) -> tuple[str, float]:
    """ "minutes=3" -> ("minutes", 3.0)"""
    kind, equals, number = text.strip().partition("=")
    allowed = ", ".join([*also, *(f"{one}=NUMBER" for one in kinds)])
    if kind not in kinds:
        raise unknown(what, kind, (*also, *kinds), where=f"--{what} {text}")
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not equals or not 0 < value < MOST:
        raise RegardError(f"--{what} {text}: is one of {allowed}, with a number above 0")
    return kind, value
