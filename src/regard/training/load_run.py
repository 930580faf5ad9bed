"""A trained model out of a run folder."""

from pathlib import Path

import torch

from regard.errors import RegardError, unknown
from regard.models import ImageModel, build, configure, current_name
from regard.models.image_model import cfg_of_metadata
from regard.tasks import PREDICTORS, Classifier, Predictor
from regard.training.run import Run
from regard.weights import read_safetensors, require_fit


def load_predictor(run: Path, *, weights: str = "model", device: str | torch.device = "cpu") -> Predictor:
    """The model of a run, ready for use: what it is depends on the run's task.

    `weights` is "model" or "best". RegardError where the folder holds no run, or the weights are cut short or do not
    match the model.
    """
    found = Run(run) if (run / "metadata.json").is_file() else Run.open(run)  # a saved model has no recipe
    files = {"model": found.weights_file, "best": found.best_file}
    if weights not in files:
        raise RegardError(f"weights must be one of {', '.join(files)}, got {weights!r}")
    metadata, where = found.metadata(), str(found.metadata_file)
    try:
        model_name, config = metadata["model"]["name"], metadata["model"]["config"]
        model = build(configure(current_name(model_name), config, where=f"{where}: model.config"))
        task = metadata["task"]
        if task not in PREDICTORS:
            raise unknown("task", task, PREDICTORS, where=where)
        predictor = PREDICTORS[task].from_metadata(model, metadata, where)
    except (KeyError, TypeError) as error:
        raise RegardError(f"{where}: lacks {error}") from None
    predictor.model_name = current_name(model_name)
    if isinstance(model, ImageModel):
        model.pretrained_cfg = cfg_of_metadata(metadata)
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
    found = read_safetensors(file)
    require_fit(found, model.state_dict(), file)
    model.load_state_dict(found)
