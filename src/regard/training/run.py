"""The run folder: what is in it, and where."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import nn

from regard.errors import RegardError
from regard.files import write_json, write_whole
from regard.recipes import Recipe, read_recipe, write_recipe


class Run:
    """A folder that holds one training: enough to predict, evaluate, explain, and resume.

    recipe.toml         the recipe as resolved
    metadata.json       the model and its arguments, class names, preprocessing
    model.safetensors   the weights that evaluation uses: the average where there is one
    best.safetensors    those of the best evaluation so far
    metrics.jsonl       a line for each step and each evaluation
    summary.json        the final figures, once the run has ended
    report.html         curves, confusion, mistakes, what the model mixes
    state/              what a resumed run starts from
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.recipe_file = path / "recipe.toml"
        self.metadata_file = path / "metadata.json"
        self.weights_file = path / "model.safetensors"
        self.best_file = path / "best.safetensors"
        self.metrics_file = path / "metrics.jsonl"
        self.summary_file = path / "summary.json"
        self.report_file = path / "report.html"

    @classmethod
    def open(cls, path: Path) -> "Run":
        """The run in an existing folder."""
        run = cls(path)
        if not run.recipe_file.exists():
            what = "holds no run (there is no recipe.toml)" if path.is_dir() else "is not a folder"
            raise RegardError(f"{path}: {what}; `regard train RECIPE --out RUN` makes one")
        return run

    def require_new(self) -> None:
        if self.path.is_dir() and not any(self.path.iterdir()):
            return
        if self.path.exists():
            hint = f"go on with `regard train --resume {self.path}`, or " if self.recipe_file.exists() else ""
            raise RegardError(f"{self.path}: exists already; {hint}choose another folder with --out")

    def create(self, recipe: Recipe, metadata: dict[str, Any]) -> None:
        """Makes the folder. The recipe comes last: a folder that has one can be resumed."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_json(self.metadata_file, metadata)
        write_whole(self.recipe_file, lambda beside: write_recipe(recipe, beside))

    def recipe(self, overrides: Mapping[str, Any] | None = None) -> Recipe:
        """The recipe that it was trained by, with overrides by dotted key."""
        return read_recipe(self.recipe_file, overrides, of_run=True)

    def metadata(self) -> dict[str, Any]:
        return self._json(self.metadata_file)

    def summary(self) -> dict[str, Any]:
        """The final figures. RegardError while the run has not ended."""
        if not self.summary_file.exists():
            raise RegardError(f"{self.path}: has not ended; `regard train --resume {self.path}` goes on with it")
        return self._json(self.summary_file)

    def history(self) -> list[dict[str, Any]]:
        """The records of metrics.jsonl; a last line that a killed run left half-written is passed over."""
        records = []
        if self.metrics_file.exists():
            for line in self.metrics_file.read_text(encoding="utf-8").splitlines():
                try:
                    records.append(json.loads(line))
                except json.JSONDecodeError:
                    break
        return records

    def save_weights(self, model: nn.Module, file: Path) -> None:
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
        write_whole(file, lambda beside: save_file(tensors, beside, metadata={"format": "pt"}))

    def _json(self, file: Path) -> dict[str, Any]:
        try:
            values = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise RegardError(f"{file}: is missing") from None
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise RegardError(f"{file}: is not JSON: {error}") from None
        if not isinstance(values, dict):
            raise RegardError(f"{file}: should hold a table, holds {type(values).__name__}")
        return values


def default_run_folder(name: str, parent: Path = Path("runs")) -> Path:
    """The first of runs/NAME-1, runs/NAME-2, ... that does not exist."""
    number = 1
    while (parent / f"{name}-{number}").exists():
        number += 1
    return parent / f"{name}-{number}"
