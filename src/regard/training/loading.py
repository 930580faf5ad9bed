"""A trained model out of a run folder."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from regard.errors import RegardError, unknown
from regard.models import build, configure
from regard.tasks import PREDICTORS, Classifier, Predictor
from regard.training.run import Run


def load_predictor(run: Path, *, weights: str = "model", device: str | torch.device = "cpu") -> Predictor:
    """The model of a run, ready for use: what it is depends on the run's task.

    `weights` is "model" or "best". RegardError where the folder holds no run, or the weights are cut short or of
    another model.
    """
    found = Run.open(run)
    files = {"model": found.weights_file, "best": found.best_file}
    if weights not in files:
        raise RegardError(f"weights must be one of {', '.join(files)}, got {weights!r}")
    metadata, where = found.metadata(), str(found.metadata_file)
    try:
        model_name, config = metadata["model"]["name"], metadata["model"]["config"]
        model = build(configure(model_name, config, where=f"{where}: model.config"))
        task = metadata["task"]
        if task not in PREDICTORS:
            raise unknown("task", task, PREDICTORS, where=where)
        predictor = PREDICTORS[task].from_metadata(model, metadata, where)
    except (KeyError, TypeError) as error:
        raise RegardError(f"{where}: lacks {error}") from None
    _load_weights(model, files[weights])
    model.to(device)
    return predictor


def load_classifier(run: Path, *, weights: str = "model", device: str | torch.device = "cpu") -> Classifier:
    """`load_predictor` for a run of classification; RegardError for one of another task."""
    predictor = load_predictor(run, weights=weights, device=device)
    if not isinstance(predictor, Classifier):
        raise RegardError(f"{run}: is a run of {Run.open(run).recipe().task}, not of classification")
    return predictor


def _load_weights(model: torch.nn.Module, file: Path) -> None:
    """Weights that fit exactly, or a RegardError that lists both sides of what does not."""
    if not file.exists():
        raise RegardError(f"{file}: is missing; the run has saved no weights yet")
    try:
        found = load_file(file)
    except (SafetensorError, OSError) as error:
        raise RegardError(f"{file}: is cut short or not a safetensors file: {error}") from None
    wanted = model.state_dict()
    differences = [
        *_listed("missing from the file", sorted(wanted.keys() - found.keys())),
        *_listed("not in the model", sorted(found.keys() - wanted.keys())),
        *_listed("of another shape (file, model)", _other_shapes(found, wanted)),
    ]
    if differences:
        raise RegardError(f"{file}: is of another model: {'; '.join(differences)}")
    model.load_state_dict(found)


def _other_shapes(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    shared = sorted(found.keys() & wanted.keys())
    pairs = ((key, tuple(found[key].shape), tuple(wanted[key].shape)) for key in shared)
    return [f"{key} {theirs} {ours}" for key, theirs, ours in pairs if theirs != ours]


def _listed(what: str, items: list[str], limit: int = 6) -> list[str]:
    if not items:
        return []
    more = f" and {len(items) - limit} more" if len(items) > limit else ""
    return [f"{len(items)} {what}: {', '.join(items[:limit])}{more}"]
