"""Several recipes train for the same time, and the one that is best on images held out of training goes on.

What is held out (`data.selection`) is part of the training images: no figure that is reported comes from it. The race
lies in the folder of the run that it becomes:

    race.json       the candidates with their recipes, steps, seconds and scores; the winner
    race/NAME/      a run folder for each candidate, until the race is decided
"""

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regard.errors import RegardError
from regard.files import write_json
from regard.reading import read_json
from regard.recipes import Recipe, parse_recipe
from regard.training import Bar, Run, hand_over, train_until
from regard.training.run import RACE

SELECTION = 0.1
"""The fraction of the training images that a race is decided on."""
LEAST_SECONDS = 5.0


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

        A larger score wins, of equal ones the first candidate's.
        """
        candidates = self.values["candidates"]
        for number, one in enumerate(self.entrants):
            own = candidates[one.name]
            if "score" in own:
                continue
            place = self.folder / "race" / one.name
            if not (place / "state").is_dir():
                shutil.rmtree(place, ignore_errors=True)  # what a killed race left before its first state
            shown = bar.part(number, one.name) if bar is not None else None
            found = train_until(
                one.racing,
                place,
                steps=steps,
                seconds=max(seconds, LEAST_SECONDS),
                resume=place.exists(),
                bar=shown,
            )
            own |= {"steps": found.step, "seconds": round(found.seconds, 1), "score": found.score, "over": found.over}
            self._write()
        self.values["winner"] = max(candidates, key=lambda name: _rank(candidates[name]["score"]))
        self._write()
        winner = self.winner
        assert winner is not None
        return winner

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
            f"{name} {own['score']:.3f} after {own['steps']:,} steps in {own['seconds']:.0f} s"
            for name, own in self.values["candidates"].items()
            if "score" in own
        ]
        goes = f"; {self.values['winner']} went on" if self.values["winner"] else ""
        return f"The race, on images held out of training: {', '.join(rows)}{goes}."

    def _write(self) -> None:
        write_json(self.folder / RACE, self.values)


def race_told(folder: Path) -> str | None:
    """The sentence about the race that a run comes from; None where there was none."""
    return Race.open(folder).told() if (folder / RACE).exists() else None


def _rank(score: float | None) -> float:
    return -math.inf if score is None or math.isnan(score) else score
