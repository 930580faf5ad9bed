"""Several recipes train for the same time, and the one that is best on images held out of training goes on.

What is held out (`data.selection`) is part of the training images: no figure that is reported comes from it. A
candidate that begins from nothing learns late, so that candidates are compared by what they are expected to reach, not
by what they have reached (`expected`). The race lies in the folder of the run that it becomes:

    race.json       the candidates with their recipes, steps, seconds and scores; the winner
    race/NAME/      a run folder for each candidate, until the race is decided
"""

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from regard.choose.rules import RACE_FRACTION
from regard.errors import RegardError
from regard.files import write_json
from regard.reading import read_json
from regard.recipes import Recipe, parse_recipe
from regard.training import Bar, Run, hand_over, train_until
from regard.training.run import RACE

# A race is decided on a tenth of the training images; of fewer than 600 images on 60, or a quarter. On 29 images of
# bccd the AP of two candidates was told no better than .03 apart.
SELECTION, SELECTION_IMAGES, MOST_SELECTION = 0.1, 60, 0.25
LEAST_SECONDS = 5.0
# How much of the slope of a learning curve that was seen last holds for the rest, for AP and for other scores. Measured
# from a race to the end of ten minutes: AP 0.27 and 0.37 (bccd), 0.44 (raccoon); accuracy 2.5 (signdigits).
BEND_OF_AP, BEND = 1 / 3, 1.0
# Scores of some sixty images are told no better apart than this; then the rules decide, which put one candidate first.
TIE = 0.02


@dataclass(frozen=True)
class Entrant:
    """A candidate of a race: the recipe that it races with, and the one that it goes on with if it wins."""

    name: str
    racing: Recipe
    going_on: Recipe


class Race:
    """A race in a folder. Each candidate that has ended is written down, so that a race that was killed goes on."""

    def __init__(self, folder: Path, entrants: Sequence[Entrant], values: dict[str, Any] | None = None) -> None:
        self.folder, self.entrants = folder, list(entrants)
        self.values: dict[str, Any] = values or {
            "candidates": {
                one.name: {"racing": one.racing.to_dict(), "going_on": one.going_on.to_dict()} for one in entrants
            },
            "winner": None,
            "settled": False,
        }

    @classmethod
    def begin(cls, folder: Path, entrants: Sequence[Entrant], **about: Any) -> "Race":
        """A new race, with plain values that say more about it. RegardError for a folder that holds something."""
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise RegardError(f"{folder}: exists already; name a new folder with --out")
        race = cls(folder, entrants)
        race.values |= about
        folder.mkdir(parents=True, exist_ok=True)
        race._write()
        return race

    @classmethod
    def open(cls, folder: Path) -> "Race":
        """A race that was begun. RegardError for a file that is damaged."""
        file = folder / RACE
        try:
            values = read_json(file)
            entrants = [
                Entrant(name, parse_recipe(one["racing"], of_run=True), parse_recipe(one["going_on"], of_run=True))
                for name, one in values["candidates"].items()
            ]
            if not entrants or values["winner"] not in (None, *values["candidates"]):
                raise ValueError("it names no candidate")
        except (OSError, KeyError, TypeError, AttributeError, ValueError) as error:
            raise RegardError(f"{file}: is damaged: {str(error).splitlines()[0]}; begin a new run") from None
        return cls(folder, entrants, values)

    @property
    def winner(self) -> Entrant | None:
        return next((one for one in self.entrants if one.name == self.values["winner"]), None)

    @property
    def settled(self) -> bool:
        """Whether the folder is the winner's run."""
        return bool(self.values["settled"])

    def run(self, *, seconds: float = math.inf, steps: int | None = None, bar: Bar | None = None) -> Entrant:
        """Trains each candidate for `seconds` of steps, or so many steps, and returns the winner.

        The largest expected score wins, or the first candidate's that is within `TIE` of it.
        """
        candidates = self.values["candidates"]
        # A candidate has had 1/n of the race, which is RACE_FRACTION of all; the winner gets the rest too.
        each = RACE_FRACTION / len(candidates)
        times = (1 - RACE_FRACTION + each) / each
        # A head that is solved needs no time: it goes first, and the others share what it leaves.
        order = sorted(self.entrants, key=lambda one: not getattr(one.racing.train, "solve_head", False))
        for number, one in enumerate(order):
            own = candidates[one.name]
            if "score" in own:
                continue
            ended = [candidates[other.name].get("step_seconds", seconds) for other in order[:number]]
            share = (seconds * len(order) - sum(ended)) / (len(order) - number)
            place = self.folder / "race" / one.name
            if not (place / "state").is_dir():
                shutil.rmtree(place, ignore_errors=True)  # what a killed race left before its first state
            shown = bar.part(number, one.name) if bar is not None else None
            found = train_until(
                one.racing,
                place,
                steps=steps,
                seconds=max(share, LEAST_SECONDS),
                resume=place.exists(),
                halfway=None if "halfway" in own else partial(self._note_halfway, own),
                bar=shown,
            )
            own |= {"steps": found.step, "seconds": round(found.seconds, 1), "score": found.score, "over": found.over}
            own["step_seconds"] = round(min(found.step_seconds, share), 1)
            bend = BEND_OF_AP if one.racing.task == "detection" else BEND
            own["expected"] = found.score if found.over else expected(own.get("halfway"), found.score, times, bend)
            self._write()
        ranks = {one.name: _rank(_hoped(candidates[one.name])) for one in self.entrants}
        self.values["winner"] = next(name for name, rank in ranks.items() if rank >= max(ranks.values()) - TIE)
        self._write()
        winner = self.winner
        assert winner is not None
        return winner

    def _note_halfway(self, own: dict[str, Any], score: float) -> None:
        own["halfway"] = score
        self._write()

    def settle(self, recipe: Recipe) -> bool:
        """Makes the folder the winner's run, which goes on with `recipe`, and removes the others.

        False where there is nothing to go on from: its training was over, and begins anew on all images.
        """
        winner = self.winner
        assert winner is not None
        place = self.folder / "race" / winner.name
        goes_on = not self.values["candidates"][winner.name]["over"]
        if goes_on and place.is_dir():
            for file in sorted(place.iterdir(), key=lambda file: file.name == "recipe.toml"):  # which makes it a run
                target = self.folder / file.name
                if target.is_dir():
                    shutil.rmtree(target)
                file.replace(target)
        shutil.rmtree(self.folder / "race", ignore_errors=True)
        if goes_on:
            run = Run.open(self.folder)
            hand_over(run, recipe.model_copy(update={"model": run.recipe().model}))  # with the names of its weights
        self.values["settled"] = True
        self._write()
        return goes_on

    def told(self) -> str:
        """The race in one sentence."""
        rows = [
            f"{name} {own['score']:.3f} after {own['steps']:,} steps in {own['seconds']:.0f} s, "
            f"expected {_hoped(own):.3f} at the end"
            for name, own in self.values["candidates"].items()
            if "score" in own
        ]
        goes = f"; {self.values['winner']} went on" if self.values["winner"] else ""
        return f"The race, on images held out of training: {'; '.join(rows)}{goes}."

    def _write(self) -> None:
        write_json(self.folder / RACE, self.values)


def race_told(folder: Path) -> str | None:
    """The sentence about the race that a run comes from; None where there was none."""
    return Race.open(folder).told() if (folder / RACE).exists() else None


def selection_of(images: int) -> float:
    """The fraction of the training images that a race is decided on."""
    return round(min(max(SELECTION, SELECTION_IMAGES / max(images, 1)), MOST_SELECTION), 3)


def expected(halfway: float | None, score: float, times: float, bend: float) -> float:
    """A score in [0, 1] after `times` the training time, from that after half of the time and that after all of it.

    The error e = 1 - s falls by the factor e(t) / e(t/2) with each doubling of the time, damped by `bend`:
    e(T) = e(t) · (e(t) / e(t/2))^(bend · log2(T/t)). Without `halfway`, and where nothing was gained, it stays.
    """
    if halfway is None or not score > halfway:
        return score
    error = max(1 - score, 0.0)
    return 1 - error * (error / (1 - halfway)) ** (bend * math.log2(times))


def _hoped(own: dict[str, Any]) -> float:
    return own.get("expected", own["score"])


def _rank(score: float | None) -> float:
    return -math.inf if score is None or math.isnan(score) else score
