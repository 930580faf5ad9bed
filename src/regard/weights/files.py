"""Weights in files: reading them without running what is in them, and saying loudly where they do not fit."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from regard.errors import RegardError


def read_weights(file: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, or of a PyTorch checkpoint, which may keep them under "model".

    Nothing in the file is run. RegardError for a file that is missing, cut short, or holds more than tensors.
    """
    if not file.is_file():
        raise RegardError(f"{file}: is missing")
    if file.suffix == ".safetensors":
        return read_safetensors(file)
    try:
        found = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # on damaged bytes an unpickler raises whatever its parsing ran into
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise RegardError(
            f"{file}: is no safetensors file, and no PyTorch checkpoint that holds only weights: {reason}"
        ) from None
    for key in ("model", "state_dict"):
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        raise RegardError(f'{file}: holds no state dict, neither by itself nor under "model"')
    return dict(found)


def read_safetensors(file: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file. RegardError where it is cut short or another kind of file."""
    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise RegardError(f"{file}: is cut short or not a safetensors file: {error}") from None


def require_fit(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], where: str | Path) -> None:
    """RegardError that lists both sides of what does not fit."""
    differences = [
        *_listed("missing from the file", sorted(wanted.keys() - found.keys())),
        *_listed("not in the model", sorted(found.keys() - wanted.keys())),
        *_listed("of another shape (file, model)", _other_shapes(found, wanted)),
    ]
    if differences:
        raise RegardError(f"{where}: is of another model: {'; '.join(differences)}")


def _other_shapes(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    shared = sorted(found.keys() & wanted.keys())
    pairs = ((key, tuple(found[key].shape), tuple(wanted[key].shape)) for key in shared)
    return [f"{key} {theirs} {ours}" for key, theirs, ours in pairs if theirs != ours]


def _listed(what: str, items: list[str], limit: int = 6) -> list[str]:
    if not items:
        return []
    more = f" and {len(items) - limit} more" if len(items) > limit else ""
    return [f"{len(items)} {what}: {', '.join(items[:limit])}{more}"]
