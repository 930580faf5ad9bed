"""Files of weights: read without running code in them; and the error that lists where weights do not fit a model."""

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from regard.errors import RegardError, first_few, one_line

# Weights hardly compress: an archive that unpacks to more than this many times its size was made to fill the memory.
LARGEST_RATIO = 100


def read_weights(file: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, of a PyTorch checkpoint (which may keep them under "model"), or of an .npz.

    Nothing in the file is run. RegardError for a file that is missing, cut short, or holds more than tensors.
    """
    if not file.is_file():
        raise RegardError(f"{file}: is missing")
    if file.suffix == ".safetensors":
        return read_safetensors(file)
    return read_npz(file) if file.suffix == ".npz" else read_checkpoint(file)


def read_safetensors(file: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file. RegardError where it is cut short or another kind of file."""
    try:
        return load_file(file)
    except (SafetensorError, OSError, ValueError, KeyError, MemoryError) as error:
        raise RegardError(f"{file}: is cut short or not a safetensors file: {one_line(error)}") from None


def read_checkpoint(file: Path) -> dict[str, Tensor]:
    """The tensors of a file of `torch.save`, read with `weights_only`. RegardError where it holds anything else."""
    try:
        _require_plausible(file)
        found = torch.load(file, map_location="cpu", weights_only=True)
    except RegardError:
        raise
    except Exception as error:  # on damaged bytes an unpickler raises whatever its parsing ran into
        raise RegardError(
            f"{file}: is no safetensors file, and no PyTorch checkpoint that holds only weights: {one_line(error)}"
        ) from None
    return state_of(found, file)


def state_of(found: object, where: str | Path) -> dict[str, Tensor]:
    """The state dict in a checkpoint: the checkpoint itself, or its entry "model" or "state_dict".

    RegardError if there is none, and for a tensor that claims more numbers than are stored.
    """
    for key in ("model", "state_dict"):
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        raise RegardError(f'{where}: holds no state dict, neither at its top nor under "model"')
    for name, tensor in found.items():
        if not tensor.is_meta and tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise RegardError(f"{where}: {name} claims to be {tuple(tensor.shape)}, more than the file holds")
    return dict(found)


def read_npz(file: Path) -> dict[str, Tensor]:
    """The arrays of NumPy's .npz, as Google publishes weights. RegardError where it holds objects or is cut short."""
    try:
        _require_plausible(file)
        with zipfile.ZipFile(file) as archive:
            for entry in archive.infolist():
                with archive.open(entry) as stream:
                    _require_stored(stream, entry)
        with np.load(file, allow_pickle=False) as arrays:
            return {name: torch.from_numpy(np.ascontiguousarray(arrays[name])) for name in arrays.files}
    except RegardError:
        raise
    except Exception as error:  # zip, header and numbers each have errors of their own
        raise RegardError(f"{file}: is cut short, or no .npz of numbers: {one_line(error)}") from None


def _require_plausible(file: Path) -> None:
    """RegardError for an archive that unpacks to far more than its own size."""
    if not zipfile.is_zipfile(file):
        return
    with zipfile.ZipFile(file) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
    packed = file.stat().st_size
    if unpacked > LARGEST_RATIO * packed:
        raise RegardError(f"{file}: {packed} bytes that unpack to {unpacked}: refused; weights do not compress so far")


def _require_stored(stream: Any, entry: zipfile.ZipInfo) -> None:
    """ValueError where an array's header claims more numbers than follow."""
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(stream)
    if dtype.hasobject:
        raise ValueError(f"{entry.filename} holds Python objects")
    size = dtype.itemsize
    for side in shape:
        size *= side
    if size > entry.file_size:
        raise ValueError(f"{entry.filename} claims to be {shape}, more than the file holds")


def require_fit(
    found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], where: str | Path, unexpected: Sequence[str] = ()
) -> None:
    """RegardError that lists both sides of what does not fit; `unexpected` are their names that have no place here."""
    unexpected = [*unexpected, *(found.keys() - wanted.keys())]
    differences = [
        *_listed("missing from the file", sorted(wanted.keys() - found.keys())),
        *_listed("not in the model", sorted(unexpected)),
        *_listed("of another shape (file, model)", _other_shapes(found, wanted)),
    ]
    if differences:
        raise RegardError(f"{where}: does not match this model: {'; '.join(differences)}")


def _other_shapes(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    shared = sorted(found.keys() & wanted.keys())
    pairs = ((key, tuple(found[key].shape), tuple(wanted[key].shape)) for key in shared)
    return [f"{key} {theirs} {ours}" for key, theirs, ours in pairs if theirs != ours]


def _listed(what: str, items: list[str], limit: int = 6) -> list[str]:
    if not items:
        return []
    groups = _grouped(items) if len(items) > limit else items
    return [f"{len(items)} {what}: {first_few(groups, limit)}"]


def _grouped(items: list[str]) -> list[str]:
    """Names that begin alike, as one: "blocks.3.* (12)"."""
    counts: dict[str, list[str]] = {}
    for item in items:
        parts = item.split(" ")[0].split(".")
        number = next((place for place, part in enumerate(parts) if part.isdigit()), 0)
        head = ".".join(parts[: number + 1]) if number else item
        counts.setdefault(head, []).append(item)
    return [names[0] if len(names) == 1 else f"{head}.* ({len(names)})" for head, names in counts.items()]
