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
from regard.weights.fit import as_wanted, require_finite
from regard.weights.formats.known import REGARD, is_ours, understand, written_as
from regard.weights.load import find_weights
from regard.weights.wrapped import choose

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".npz")


def convert_weights(
    source: str | Path,
    destination: Path,
    *,
    to: str,
    format: str | None = None,
    use_ema: bool = True,
) -> str:
    """Writes a source's weights under another library's names, whole or not at all, and says what they were.

    use_ema: of several state dicts in a file, the averaged one.
    RegardError for a destination that exists or is no file of weights, and for a source that `to` has no names for.
    """
    if destination.suffix not in SUFFIXES:
        raise RegardError(f"{destination}: a file of weights ends in one of {', '.join(SUFFIXES)}")
    if (destination.suffix == ".npz") != (to == "google"):
        raise RegardError(f"{destination}: .npz is for --to google, and only it")
    if destination.exists():
        raise RegardError(f"{destination}: exists; remove it first, or name another file")
    found = find_weights(source)
    named = format or found.format
    state, notes = choose(found.contents, found.where, format=named, use_ema=use_ema)
    ours = understand(state, {}, format=named)
    if ours.format == REGARD and not is_ours(state):
        raise RegardError(f"{found.where}: is in no known format; name it with --from")
    if ours.unexpected:
        raise RegardError(f"{found.where}: {ours.what} has no {first_few(ours.unexpected, 6)}")
    floats = {
        name: _as_float(tensor) for name, tensor in ours.state.items() if not name.endswith("num_batches_tracked")
    }
    as_wanted(ours.state, floats, found.where)  # raises for other numbers than weights
    require_finite(ours.state, found.where)
    written = written_as(ours.state, to, num_heads=found.num_heads or _heads(str(source)))
    destination.parent.mkdir(parents=True, exist_ok=True)
    write_whole(destination, lambda beside: _write(written, beside, destination.suffix, under_model=to == "detr"))
    chosen = f" ({'; '.join(notes)})" if notes else ""
    return f"{found.where}: {len(written)} tensors of {ours.what}{chosen} -> {destination} ({to})"


def _write(state: dict[str, Tensor], file: Path, suffix: str, *, under_model: bool) -> None:
    if suffix == ".safetensors":
        alone = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in state.items()}
        save_file(alone, file, metadata={"format": "pt"})
    elif suffix == ".npz":
        with file.open("wb") as stream:
            np.savez(stream, allow_pickle=False, **{name: _numpy(tensor) for name, tensor in state.items()})
    else:
        torch.save({"model": state} if under_model else state, file)


def _as_float(tensor: Tensor) -> Tensor:
    return torch.empty(0, dtype=tensor.dtype if tensor.is_floating_point() else torch.float32)


def _numpy(tensor: Tensor) -> np.ndarray:
    """NumPy has no bfloat16 and no numbers of 8 bits."""
    kept = tensor.dtype in (torch.float16, torch.float32, torch.float64)
    array: np.ndarray = (tensor if kept else tensor.float()).numpy()
    return array


def _heads(source: str) -> int | None:
    entry = find_pretrained(source)
    return None if entry is None else getattr(PRESETS.get(entry.model), "num_heads", None)
