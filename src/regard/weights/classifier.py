"""Trained weights for a classifier to start from, whose mixers may be others."""

from pathlib import Path

from torch import nn

from regard.errors import RegardError
from regard.weights.files import read_weights, require_fit

# What belongs to one kind of mixer alone, so that another's weights do without: performer's features, local's offsets.
OF_ONE_MIXER = (".projection", ".rel_rows", ".rel_cols")


def load_classifier_weights(model: nn.Module, file: str | Path, *, reset_head: bool = False) -> None:
    """Loads a run's model.safetensors (or another file of such weights) into a model of the same sizes.

    The mixers may differ as far as they share projections (attention, local, performer): what only the model's own has
    stays as it is, and what only the file's had is left out. reset_head: leaves the classes to be learned anew.
    RegardError for a file that cannot be read, another number of classes, and any other tensor that does not fit.
    """
    found, wanted = read_weights(Path(file)), model.state_dict()
    found = {name: tensor for name, tensor in found.items() if name in wanted or not name.endswith(OF_ONE_MIXER)}
    found |= {name: tensor for name, tensor in wanted.items() if name.endswith(OF_ONE_MIXER) and name not in found}
    head = {name for name in wanted if name.startswith("head.")}
    if reset_head:
        found |= {name: wanted[name] for name in head}
    elif "head.bias" in found and "head.bias" in wanted and len(found["head.bias"]) != len(wanted["head.bias"]):
        raise RegardError(
            f"{file}: was trained on {len(found['head.bias'])} classes, the data have {len(wanted['head.bias'])}; "
            "--set model.reset_head=true takes everything but the classes"
        )
    require_fit(found, wanted, file)
    model.load_state_dict(found)
