"""A trained model out of a run folder."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from regard.errors import RegardError, one_line, shown, unknown
from regard.models import ImageModel, build
from regard.models.image_model import cfg_of_metadata
from regard.tasks import PREDICTORS, Classifier, Predictor
from regard.training.run import Run
from regard.weights import read_safetensors, require_fit
from regard.weights.described import config_of, placed, require_weights_of
from regard.weights.fit import as_wanted, require_finite


def load_predictor(run: Path, *, weights: str = "model", device: str | torch.device = "cpu") -> Predictor:
    """The model of a run, ready for use: what it is depends on the run's task.

    `weights` is "model" or "best". RegardError where the folder holds no run, or the weights are cut short or do not
    match the model.
    """
    found = Run(run) if (run / "metadata.json").is_file() else Run.open(run)  # a saved model has no recipe
    files = {"model": found.weights_file, "best": found.best_file}
    if weights not in files:
        raise RegardError(f"weights must be one of {', '.join(files)}, got {weights!r}")
    metadata, where, file = found.metadata(), str(found.metadata_file), files[weights]
    name, config = config_of(metadata, where)
    if "task" not in metadata:
        raise RegardError(f"{where}: lacks 'task'")
    task = metadata["task"]
    if not isinstance(task, str) or task not in PREDICTORS:
        raise unknown("task", task if isinstance(task, str) else shown(task), PREDICTORS, where=where)
    if not file.exists():
        raise RegardError(f"{file}: is missing; the run has saved no weights yet")
    found.require_own(file)
    require_weights_of(config, file, where)  # before anything of the described size is allocated
    model = build(config)
    try:
        predictor = PREDICTORS[task].from_metadata(model, metadata, where)
    except RegardError as error:
        raise placed(error, where) from None
    except KeyError as error:
        raise RegardError(f"{where}: lacks {error}") from None
    except (ArithmeticError, AttributeError, LookupError, TypeError) as error:
        raise RegardError(f"{where}: is not the metadata of a run: {one_line(error)}") from None
    predictor.model_name = name
    if isinstance(model, ImageModel):
        model.pretrained_cfg = cfg_of_metadata(metadata)
    best = "; --weights best takes those of the best evaluation"
    instead = best if weights == "model" and found.best_file.exists() else ""
    model.load_state_dict(_weights_in(file, model.state_dict(), instead))
    model.to(device)
    return predictor


def load_classifier(run: Path, *, weights: str = "model", device: str | torch.device = "cpu") -> Classifier:
    """`load_predictor` for a run of classification; RegardError for one of another task."""
    predictor = load_predictor(run, weights=weights, device=device)
    if not isinstance(predictor, Classifier):
        raise RegardError(f"{run}: is a run of {Run.open(run).recipe().task}, not of classification")
    return predictor


def _weights_in(file: Path, wanted: Mapping[str, Tensor], instead: str) -> dict[str, Tensor]:
    """Weights that fit exactly. RegardError that lists both sides of what does not, and for NaN."""
    found = read_safetensors(file)
    require_fit(found, wanted, file)
    state, _ = as_wanted(found, wanted, file)
    require_finite(state, file, before=found, instead=instead)
    return state
