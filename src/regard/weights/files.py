"""Files of weights, read without running code in them, and within bounds that the files themselves do not set."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from regard.errors import RegardError, one_line
from regard.reading import MB, require_file
from regard.weights.checkpoint import load_checkpoint, not_weights
from regard.weights.checksum import CHECKSUM, checksum

# Weights hardly compress: an archive that unpacks to more than this many times its size was made to fill the memory,
LARGEST_RATIO = 20
# and so was one that unpacks to more than this many times what the model takes (a training may store four copies).
MOST_OF_MODEL = 8
# No model has more; reading the header of a file with a million tensors takes a quarter of a minute.
MOST_TENSORS = 100_000
# Kinds of NumPy's dtypes: texts and dates are no weights.
_NUMBERS = "bcfiuV"
# numpy's own limit on the header of an array.
_HEADER = 10_000


def read_contents(file: Path, *, wanted: int | None = None) -> object:
    """What a file of weights holds: a dict of tensors, or what a training saved around one.

    wanted: the bytes of the model that will take them, which bound what a compressed file may unpack to. Nothing in the
    file is run. RegardError for a file that is missing, cut short, no regular file, or holds code.
    """
    if not file.exists():
        raise RegardError(f"{file}: is missing")
    require_file(file)
    if file.suffix == ".safetensors" or _begins_as_safetensors(file):
        return read_safetensors(file)
    _require_plausible(file, wanted)
    return read_npz(file) if file.suffix == ".npz" else load_checkpoint(file)


def _begins_as_safetensors(file: Path) -> bool:
    """Whether a file of any name begins with the length of a header, and a table of JSON."""
    try:
        with file.open("rb") as opened:
            start = opened.read(9)
    except OSError as error:
        raise RegardError(f"{file}: cannot be read: {error.strerror or error}") from None
    return len(start) == 9 and start[8:] == b"{" and int.from_bytes(start[:8], "little") < 100 * MB


def read_safetensors(file: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file. RegardError where it is cut short, damaged or another kind of file."""
    read_header(file)
    try:
        tensors = load_file(file)
    except _DAMAGE as error:
        raise _no_safetensors(file, error) from None
    written = read_notes(file).get(CHECKSUM)
    if written is not None and written != checksum(tensors):
        raise RegardError(f"{file}: is damaged: its checksum is not the one that was written with it")
    return tensors


def read_notes(file: Path) -> dict[str, str]:
    """What whoever wrote a safetensors file put into its header beside the tensors. RegardError as there."""
    require_file(file)
    try:
        with safe_open(file, framework="pt") as opened:
            return opened.metadata() or {}
    except _DAMAGE as error:
        raise _no_safetensors(file, error) from None


def read_header(file: Path) -> dict[str, Tensor]:
    """Names, shapes and dtypes of a safetensors file, as tensors without memory. RegardError as `read_safetensors`.

    The library compares the sizes with the file's length, so that a header cannot claim more than the file holds.
    """
    require_file(file)
    try:
        with safe_open(file, framework="pt") as opened:
            names = list(opened.keys())
            if len(names) > MOST_TENSORS:
                raise RegardError(f"{file}: has {len(names):,} tensors; at most {MOST_TENSORS:,} are read")
            slices = {name: opened.get_slice(name) for name in names}
            return {
                name: torch.empty(part.get_shape(), dtype=_dtype(part.get_dtype()), device="meta")
                for name, part in slices.items()
            }
    except _DAMAGE as error:
        raise _no_safetensors(file, error) from None


_DAMAGE = (SafetensorError, OSError, ValueError, KeyError, TypeError, OverflowError, RuntimeError, MemoryError)


def _no_safetensors(file: Path, error: Exception) -> RegardError:
    if isinstance(error, RegardError):
        return error
    other = not_weights(file) if file.is_file() else None
    return RegardError(f"{file}: {other or f'is cut short or not a safetensors file: {one_line(error)}'}")


def _dtype(name: str) -> torch.dtype:
    """F32 -> torch.float32. KeyError for one that the library has and torch or this table lacks."""
    return _DTYPES[name]


_DTYPES = {
    "BOOL": torch.bool,
    "BF16": torch.bfloat16,
    "C64": torch.complex64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E8M0": torch.float8_e8m0fnu,
    **{f"F{bits}": getattr(torch, f"float{bits}") for bits in (16, 32, 64)},
    **{
        f"{sign}{bits}": getattr(torch, f"{name}{bits}")
        for sign, name in (("I", "int"), ("U", "uint"))
        for bits in (8, 16, 32, 64)
    },
}


def read_npz(file: Path) -> dict[str, Any]:
    """The arrays of NumPy's .npz, as Google publishes weights, as tensors; texts and dates stay arrays.

    RegardError where it holds objects or is cut short.
    """
    require_file(file)
    try:
        with zipfile.ZipFile(file) as archive:
            for entry in archive.infolist():
                with archive.open(entry) as stream:
                    _require_stored(stream, entry)
        with np.load(file, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in arrays.files}
        return {name: _tensor(array) if array.dtype.kind in _NUMBERS else array for name, array in found.items()}
    except Exception as error:  # zip, header and numbers each have errors of their own
        raise RegardError(f"{file}: is cut short, or no .npz of numbers: {one_line(error)}") from None


def _tensor(array: np.ndarray) -> Tensor:
    """In this machine's order of bytes, which torch demands."""
    if array.dtype.str[1:] == "V2":  # so NumPy stores bfloat16, for which it has no name
        return torch.from_numpy(np.ascontiguousarray(array).view(np.uint16)).view(torch.bfloat16)
    return torch.from_numpy(np.ascontiguousarray(array, array.dtype.newbyteorder("=")))


def _require_plausible(file: Path, wanted: int | None) -> None:
    """RegardError for an archive that unpacks to far more than its own size, or than the model's.

    What lies about the sizes is cut there: neither `zipfile` nor torch's reader unpacks more than an entry declares.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except Exception:  # no archive, or a damaged one: the reader says so
        return
    packed = file.stat().st_size
    if unpacked > LARGEST_RATIO * packed:
        raise RegardError(f"{file}: {packed} bytes that unpack to {unpacked}: refused; weights do not compress so far")
    if wanted is not None and unpacked > 2 * packed and unpacked > MOST_OF_MODEL * wanted + MB:
        raise RegardError(
            f"{file}: unpacks to {unpacked / MB:,.0f} MB, and the model's weights take {wanted / MB:,.0f} MB: refused"
        )


def _require_stored(stream: Any, entry: zipfile.ZipInfo) -> None:
    """ValueError where an array's header claims more numbers than follow."""
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(stream, max_header_size=_HEADER)
    if dtype.hasobject:
        raise ValueError(f"{entry.filename} holds Python objects")
    size = dtype.itemsize
    for side in shape:
        size *= side
    if size > entry.file_size:
        raise ValueError(f"{entry.filename} claims to be {shape}, more than the file holds")
