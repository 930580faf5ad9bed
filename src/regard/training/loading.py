"""A trained model out of a run folder."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from regard.data import Preprocessing
from regard.errors import RegardError
from regard.models import build, configure
from regard.tasks import Classifier
from regard.training.run import Run


def load_classifier(run: Path, *, weights: str = "model", device: str | torch.device = "cpu") -> Classifier:
    """The model of a run with its preprocessing and class names; `weights` is "model" or "best".

    RegardError where the folder holds no run, or the weights are cut short or of another model.
    """
    found = Run.open(run)
    files = {"model": found.weights_file, "best": found.best_file}
    if weights not in files:
        raise RegardError(f"weights must be one of {', '.join(files)}, got {weights!r}")
    metadata = found.metadata()
    try:
        name, config = metadata["model"]["name"], metadata["model"]["config"]
        class_names, preprocessing = metadata["class_names"], metadata["preprocessing"]
    except (KeyError, TypeError) as error:
        raise RegardError(f"{found.metadata_file}: lacks {error}") from None
    model = build(configure(name, config, where=f"{found.metadata_file}: model.config"))
    if len(class_names) != model.config.num_classes:
        raise RegardError(f"{found.metadata_file}: {len(class_names)} class names, {model.config.num_classes} classes")
    _load_weights(model, files[weights])
    return Classifier(model.to(device), class_names, Preprocessing.from_dict(preprocessing))


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
