"""Trained weights of a DETR, whoever trained it."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from regard.errors import RegardError
from regard.models import DETR
from regard.weights.files import read_weights, require_fit
from regard.weights.original_detr import from_original_detr
from regard.weights.transformers_detr import from_transformers_detr


def load_detr_weights(model: DETR, source: str | Path | Mapping[str, Tensor], *, reset_head: bool = False) -> None:
    """Loads a file or a state dict under the names of Regard, of the original DETR or of transformers.

    reset_head: leaves the classes as they are in the model, to be learned anew.
    RegardError for a file that cannot be read, another number of classes, and any other tensor that does not fit.
    """
    where = str(source) if isinstance(source, str | Path) else "the weights"
    state = dict(source) if isinstance(source, Mapping) else read_weights(Path(source))
    found, wanted = _under_our_names(state), model.state_dict()
    # A frozen norm does not count its batches; one that learns begins to count anew.
    found = {name: tensor for name, tensor in found.items() if name in wanted or not _is_counter(name)}
    found |= {name: tensor for name, tensor in wanted.items() if _is_counter(name) and name not in found}
    head = {name for name in wanted if name.startswith("label_head.")}
    if reset_head:
        found |= {name: wanted[name] for name in head}
    elif "label_head.bias" in found and len(found["label_head.bias"]) != len(wanted["label_head.bias"]):
        theirs, ours = len(found["label_head.bias"]) - 1, len(wanted["label_head.bias"]) - 1
        raise RegardError(
            f"{where}: was trained on {theirs} classes, the data have {ours}; "
            "--set model.reset_head=true takes everything but the classes"
        )
    require_fit(found, wanted, where)
    model.load_state_dict(found)


def _under_our_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    if any(name.startswith("transformer.") for name in state):
        return from_original_detr(state)
    if any(name.startswith("model.") for name in state):
        return from_transformers_detr(state)
    return state


def _is_counter(name: str) -> bool:
    return name.endswith(".num_batches_tracked")
