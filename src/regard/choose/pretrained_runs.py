"""The pre-trainings in `runs/`: which saw the images that are to be trained on, and how good their features are.

A run that cannot be read is none: to look for help never ends a training.
"""

import json
import math
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regard.data import parse_address
from regard.errors import RegardError
from regard.files import expanded, printable
from regard.models import config_values
from regard.recipes import PretrainingRecipe, load_recipe, setting_text, shipped_recipes
from regard.training import Run

# The newest are looked at; a folder of thousands shall not keep anybody waiting.
MOST_RUNS = 300
# A classifier of its size that the run's model can be; else the keys of the run's own model fit the other recipe to it.
RECIPE, OTHERWISE = "small-photos", "small-images"
# What fine-tuning chooses anew: the head, and what weights do not follow from.
_OF_FINE_TUNING = ("num_classes", "drop_path", "position_std", "antialias")


@dataclass(frozen=True)
class PretrainedRun:
    path: str
    """As `model.weights` names it: runs/pretrain-photos-1."""
    address: str
    """Of the images that it was trained on."""
    model: str
    """The preset."""
    config: Mapping[str, Any]
    """The model's configuration, as metadata hold it."""
    knn: float | None = None
    """Accuracy of the nearest neighbours by its features, and of a linear head on them; None without labels."""
    linear: float | None = None

    @property
    def words(self) -> str:
        """The run in a sentence, with its figure."""
        said = f"{printable(self.path)} was pre-trained on these images"
        if self.linear is not None:
            return f"{said}: a linear head on its features has {_figure(self.linear)}"
        return said if self.knn is None else f"{said}: the nearest neighbours by its features have {_figure(self.knn)}"

    def candidate(self, address: str) -> tuple[str, tuple[str, ...]] | None:
        """A shipped recipe, and the settings with which its model takes the weights. None where they fit none."""
        name = RECIPE if RECIPE in shipped_recipes() else OTHERWISE
        with suppress(RegardError, TypeError, ValueError):
            named = () if load_recipe(name).model.name == self.model else (f"model.name={self.model}",)
            ours = _plain(config_values(load_recipe(name, named, address=address).model.config()))
            keys = [key for key in ours if key in self.config and key not in _OF_FINE_TUNING]
            other = [f"model.{key}={setting_text(self.config[key])}" for key in keys if self.config[key] != ours[key]]
            settings = (*named, *other, f"model.weights={self.path}")
            found = _plain(config_values(load_recipe(name, settings, address=address).model.config()))
            return (name, settings) if all(found[key] == self.config[key] for key in keys) else None
        return None


def pretrained_runs(parent: Path = Path("runs")) -> list[PretrainedRun]:
    """The pre-trainings in a folder that have ended, the newest first."""
    found: list[tuple[float, Path]] = []
    with suppress(OSError):
        found = [(path.stat().st_mtime, path) for path in parent.iterdir() if (path / "summary.json").is_file()]
    read = [_read(path) for _, path in sorted(found, reverse=True)[:MOST_RUNS]]
    return [run for run in read if run is not None]


def best_run(runs: Iterable[PretrainedRun], address: str) -> PretrainedRun | None:
    """Of the runs that saw the data of an address the one with the best features; of equal ones the first."""
    own = [run for run in runs if same_data(run.address, address)]
    return max(own, key=lambda run: (run.linear or -1.0, run.knn or -1.0), default=None)


def same_data(one: str, other: str) -> bool:
    """Whether two addresses name the same place."""
    try:
        first, second = parse_address(one), parse_address(other)
    except RegardError:
        return False
    places = [os.path.normpath(expanded(found.location).absolute()) for found in (first, second)]
    return first.kind == second.kind and places[0] == places[1]


def _read(path: Path) -> PretrainedRun | None:
    try:
        run = Run.open(path)
        if "pretraining" not in run.recipe_file.read_text(encoding="utf-8") or not run.weights_file.is_file():
            return None
        recipe = run.recipe()
        if not isinstance(recipe, PretrainingRecipe):
            return None
        summary, config = run.summary(), run.metadata()["model"]["config"]
        figures = {key: _fraction(summary.get(key)) for key in ("knn", "linear")}
        return PretrainedRun(str(path), recipe.data.address, recipe.model.name, dict(config), **figures)
    except Exception:  # whatever lies in that folder
        return None


def _fraction(value: object) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if math.isfinite(value) and 0 <= value <= 1 else None


def _figure(value: float) -> str:
    """.71"""
    return f"{value:.2f}".removeprefix("0")


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON holds them: tuples are lists."""
    return dict(json.loads(json.dumps(values)))
