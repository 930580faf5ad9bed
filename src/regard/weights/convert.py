"""Weights of one format into a file of another."""

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from regard.errors import RegardError, first_few
from regard.files import write_whole
from regard.models import PRESETS
from regard.weights.catalogue import find_pretrained
from regard.weights.formats.known import REGARD, is_ours, understand, written_as
from regard.weights.load import find_weights

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".npz")


def convert_weights(
    source: str | Path,
    destination: Path,
    *,
    to: str,
    format: str | None = None,
) -> str:
    """Writes a source's weights under another library's names, whole or not at all, and says what they were.

    RegardError for a destination that exists or is no file of weights, and for a source that `to` has no names for.
    """
    if destination.suffix not in SUFFIXES:
        raise RegardError(f"{destination}: a file of weights ends in one of {', '.join(SUFFIXES)}")
    if (destination.suffix == ".npz") != (to == "google"):
        raise RegardError(f"{destination}: .npz is for --to google, and only it")
    if destination.exists():
        raise RegardError(f"{destination}: exists; remove it first, or name another file")
    found = find_weights(source)
    ours = understand(found.state, {}, format=format or found.format)
    if ours.format == REGARD and not is_ours(found.state):
        raise RegardError(f"{found.where}: is in no known format; name it with --from")
    if ours.unexpected:
        raise RegardError(f"{found.where}: {ours.what} has no {first_few(ours.unexpected, 6)}")
    written = written_as(ours.state, to, num_heads=found.num_heads or _heads(str(source)))
    destination.parent.mkdir(parents=True, exist_ok=True)
    write_whole(destination, lambda beside: _write(written, beside, destination.suffix, under_model=to == "detr"))
    return f"{found.where}: {len(written)} tensors of {ours.what} -> {destination} ({to})"


def _write(state: dict[str, Tensor], file: Path, suffix: str, *, under_model: bool) -> None:
    if suffix == ".safetensors":
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, file, metadata={"format": "pt"})
    elif suffix == ".npz":
        with file.open("wb") as stream:
            np.savez(stream, allow_pickle=False, **{name: tensor.numpy() for name, tensor in state.items()})
    else:
        torch.save({"model": state} if under_model else state, file)


def _heads(source: str) -> int | None:
    entry = find_pretrained(source)
    return None if entry is None else getattr(PRESETS.get(entry.model), "num_heads", None)
