"""Features on the disk: one file for each image and view, found by what they were made of, bounded in size.

A file is FOLDER/ab/abcd....safetensors, named by the key's hash, with a checksum in its header. Whoever finds no whole
file computes the features again: a kill, a flipped bit and a file that another process removed cost time alone.
"""

import errno
import hashlib
import json
import math
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from regard.data.memory import available_memory
from regard.errors import RegardError
from regard.files import cache_folder, expanded, write_whole
from regard.weights.checksum import CHECKSUM, checksum

VERSION = "1"  # of the code that makes features: another one, and none that were kept are used
MEMORY_FRACTION = 0.5  # of the free memory that features may take where the disk is full
OLD_LEFTOVER = 3600  # seconds after which a half-written file belongs to nobody who lives
_ENTRY = re.compile(r"[0-9a-f]{64}\.safetensors")
_LEFTOVER = re.compile(r"\.[0-9a-f]{64}\.safetensors\.\d+")
_KEY = "regard.features"  # in a file's header
_MOST_HEADER = 2**16  # bytes
_GB, _MB = 2**30, 2**20


def key(
    weights: str, preprocessing: Mapping[str, object], digest: str, view: str, dtype: str, precision: str, version: str
) -> str:
    """What features are made of, as 64 hexadecimal digits: other weights, pixels or numbers give another key.

    weights: the hash of the frozen weights. preprocessing: plain values. digest: of the image file's bytes. view: which
    flip, crop or scale of the image. dtype: of the file. precision: of the computation. version: of the code.
    """
    parts = [weights, preprocessing, digest, view, dtype, precision, version]
    text = json.dumps(parts, sort_keys=True, default=list)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=32).hexdigest()


class Entry(NamedTuple):
    """A file of the store: its size in bytes, and the time of its last use."""

    path: Path
    size: int
    used_at: float


def to_stderr(line: str) -> None:
    sys.stderr.write(f"{line}\n")


class FeatureStore:
    """Features by key, in `folder` (`features` in the user's cache folder unless given), at most `max_gb` GB of them.

    Those that were not used for the longest time leave first, never those that this store has used or written. Where
    the disk is full or refuses, `tell` gets one line, and what comes after is kept in memory where it fits.
    Several processes may use one folder at once. RegardError for a folder that is a file.
    """

    def __init__(
        self, folder: str | Path | None = None, *, max_gb: float = 10.0, tell: Callable[[str], None] = to_stderr
    ) -> None:
        self.folder = cache_folder() / "features" if folder is None else expanded(folder)
        if self.folder.exists() and not self.folder.is_dir():
            raise RegardError(f"features.folder: {self.folder} is not a folder")
        self.max_bytes, self.tell = int(max_gb * _GB), tell
        self._own: set[str] = set()
        self._in_memory: dict[str, list[Tensor]] = {}
        self._disk_refuses = False
        self._size: int | None = None  # bytes of the folder when it was last looked at, and of what was written since
        self._still_needed = 0  # bytes of this run's features that are not there yet

    def has(self, key: str) -> bool:
        """Whether there is an entry of that key that is not cut short. It then counts as used."""
        if key in self._in_memory:
            return True
        if not _is_whole(self._path(key), key):
            return False
        self._use(key)
        return True

    def get(self, key: str) -> list[Tensor] | None:
        """The tensors of an entry; None where there is none, or a damaged one."""
        if key in self._in_memory:
            return self._in_memory[key]
        found = _read(self._path(key), key)
        if found is not None:
            self._use(key)
        return found

    def put(self, key: str, tensors: Sequence[Tensor]) -> None:
        """Writes an entry, whole or not at all. RegardError where neither the disk nor the memory has room for it."""
        data = _file(key, tensors)
        if not self._disk_refuses and self._has_room(len(data)):
            try:
                path = self._path(key)
                path.parent.mkdir(parents=True, exist_ok=True)
                write_whole(path, lambda beside: beside.write_bytes(data), flushed=False)
            except (OSError, RegardError) as error:
                self._refused(error)
            else:
                self._own.add(key)
                self._size = (self._size or 0) + len(data)
                self._still_needed = max(self._still_needed - len(data), 0)
                return
        self._keep_in_memory(key, [tensor.detach().cpu() for tensor in tensors], len(data))

    def reserve(self, missing: int, held: Sequence[str]) -> None:
        """Makes room for `missing` bytes that a run will write, beside the entries `held` that it will read.

        RegardError where they cannot fit under `max_gb`, or on the disk and in memory: before anything is computed.
        """
        entries = {entry.path.stem: entry.size for entry in self._entries()}
        need = missing + sum(entries.get(key, 0) for key in held)
        if need > self.max_bytes:
            raise RegardError(
                f"features: this run needs {_mb(need)} MB of them, and the store may hold {_mb(self.max_bytes)} MB; "
                f"set features.max_gb to {_rounded_up(need / _GB)} or more, or lower features.views (features.folder "
                f"is {self.folder})"
            )
        self._own.update(key for key in held if key in entries)
        self._still_needed = missing
        self._make_room(missing)
        free, memory = self._free(), int(MEMORY_FRACTION * available_memory())
        if missing > free + memory:
            raise self._no_room(missing - free - memory)

    def _entries(self) -> Iterator[Entry]:
        """The files of the store: whatever else lies in the folder is not looked at."""
        for folder in _folders(self.folder):
            with suppress(OSError), os.scandir(folder) as inside:
                for file in inside:
                    if not (_ENTRY.fullmatch(file.name) and file.name.startswith(Path(folder).name)):
                        _remove_old_leftover(file)
                        continue
                    with suppress(OSError):
                        if file.is_file(follow_symlinks=False):
                            stat = file.stat(follow_symlinks=False)
                            yield Entry(Path(file.path), stat.st_size, stat.st_mtime)

    def _has_room(self, size: int) -> bool:
        if self._size is None or self._size + size > self.max_bytes:
            self._make_room(size)
        return (self._size or 0) + size <= self.max_bytes

    def _make_room(self, size: int) -> None:
        """Removes the oldest entries until `size` more bytes fit under the bound and on the disk."""
        entries = list(self._entries())
        self._size = sum(entry.size for entry in entries)
        surplus = max(self._size + size - self.max_bytes, size - self._free())
        for entry in sorted(entries, key=lambda entry: entry.used_at):
            if surplus <= 0:
                break
            if entry.path.stem not in self._own:
                with suppress(OSError):
                    entry.path.unlink()
                    surplus -= entry.size
                    self._size -= entry.size

    def _keep_in_memory(self, key: str, tensors: list[Tensor], size: int) -> None:
        room = int(MEMORY_FRACTION * available_memory())
        if size > room:
            raise self._no_room(max(self._still_needed, size) - room)
        if not self._disk_refuses:
            self._disk_refuses = True
            self.tell(
                f"features: {self.folder} holds {_mb(self.max_bytes)} MB that are in use, which features.max_gb "
                "allows; the rest of this run's features is kept in memory"
            )
        self._in_memory[key] = tensors
        self._still_needed = max(self._still_needed - size, 0)

    def _refused(self, error: Exception) -> None:
        cause = error if isinstance(error, OSError) else error.__cause__
        code = getattr(cause, "errno", None)
        full = code in (errno.ENOSPC, getattr(errno, "EDQUOT", None))
        why = "the disk is full" if full else (getattr(cause, "strerror", None) or str(cause))
        self._disk_refuses = True
        self.tell(
            f"features: {self.folder} cannot be written to ({why}); the rest of this run's features is kept in memory"
        )

    def _no_room(self, missing: int) -> RegardError:
        return RegardError(
            f"features: neither the disk of {self.folder} nor the memory has room: {_mb(missing)} MB are missing; set "
            f"features.folder to a folder on a larger disk, or lower features.views (features.max_gb is "
            f"{self.max_bytes / _GB:g})"
        )

    def _free(self) -> int:
        """Bytes free on the disk of the folder, which need not exist yet."""
        if self._disk_refuses:
            return 0
        there = next((folder for folder in (self.folder, *self.folder.parents) if folder.exists()), None)
        try:
            return shutil.disk_usage(there or Path()).free
        except OSError:
            return 0

    def _use(self, key: str) -> None:
        """The time of last use is the file's time: many systems keep no time of reading."""
        if key not in self._own:
            self._own.add(key)
            with suppress(OSError):
                os.utime(self._path(key))

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.safetensors"


def file_size(tensors: Sequence[Tensor]) -> int:
    """Bytes of an entry."""
    return len(_file("0" * 64, tensors))


def _file(key: str, tensors: Sequence[Tensor]) -> bytes:
    named = {f"{number:03}": tensor.detach().cpu().contiguous() for number, tensor in enumerate(tensors)}
    return save(named, metadata={_KEY: key, CHECKSUM: checksum(named)})


def _folders(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as inside:
            return sorted(e.path for e in inside if re.fullmatch("[0-9a-f]{2}", e.name) and e.is_dir())
    except OSError:
        return []


def _remove_old_leftover(file: os.DirEntry[str]) -> None:
    """What `write_whole` leaves where it is killed, once it is too old to be in work."""
    if _LEFTOVER.fullmatch(file.name):
        with suppress(OSError):
            if time.time() - file.stat(follow_symlinks=False).st_mtime > OLD_LEFTOVER:
                Path(file.path).unlink()


def _is_whole(path: Path, key: str) -> bool:
    """Whether a file says that it is the entry of that key, and is as long as its header says."""
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = _header(file.read(min(size, _MOST_HEADER)))
            ends = [place["data_offsets"][1] for name, place in header.items() if name != "__metadata__"]
            return header["__metadata__"][_KEY] == key and path.stat().st_size == 8 + size + max(ends, default=0)
    except (OSError, ValueError, KeyError, TypeError, IndexError, RecursionError):
        return False


def _read(path: Path, key: str) -> list[Tensor] | None:
    try:
        data = path.read_bytes()
        notes = _header(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
        found = load(data)
    except (OSError, ValueError, KeyError, TypeError, RecursionError, SafetensorError):
        return None
    if notes.get(_KEY) != key or notes.get(CHECKSUM) != checksum(found):
        return None
    return [found[name] for name in sorted(found)]


def _header(data: bytes) -> dict[str, Any]:
    values = json.loads(data)
    if not isinstance(values, dict):
        raise TypeError
    return values


def _rounded_up(number: float) -> str:
    """With two digits, and never less."""
    step = 10.0 ** (math.floor(math.log10(number)) - 1)
    return f"{math.ceil(number / step) * step:.6g}"


def _mb(size: int) -> str:
    return f"{max(size, 0) / _MB:,.0f}" if size >= 10 * _MB else f"{max(size, 0) / _MB:.2g}"
