"""Files that are either whole or not there, names as they are written, and folders that belong to one process."""

import json
import math
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from safetensors import SafetensorError

from regard.errors import RegardError

# A name that is not UTF-8 is a string with such characters in Python: one for each byte that has no meaning.
_SURROGATE = re.compile("[\ud800-\udfff]")

LOCK = ".lock"


class Taken(RegardError):  # noqa: N818 (a caller reads: except Taken)
    """A folder that another process writes into."""


def write_whole(path: Path, write: Callable[[Path], object], *, flushed: bool = True) -> None:
    """Lets `write` make a file beside `path`, flushes it to the disk, and puts it in the place of `path` at once.

    Without `flushed`, which takes some twenty times as long as the rest, a file may be damaged after a power cut,
    though not after a kill: for what has a checksum and can be made again. RegardError where the disk is full; `path`
    is then as it was.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.touch()
        mode = beside.stat().st_mode
        write(beside)
        beside.chmod(mode)  # safetensors would let the owner alone read
        if flushed:
            flush(beside)
        beside.replace(path)
        if flushed:
            flush(path.parent)
    except (OSError, SafetensorError) as error:
        raise RegardError(f"{path}: could not be saved, and is as it was before: {error}") from error
    finally:
        beside.unlink(missing_ok=True)


def require_new_folder(path: Path) -> None:
    """RegardError where there is something at `path`, but for an empty folder."""
    if os.path.lexists(path) and (not path.is_dir() or any(path.iterdir())):
        raise RegardError(f"{path}: exists already; choose another folder")


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Within, a folder beside `path` is filled; at the end it takes its place at once. After an error nothing is there.

    RegardError where `path` is not new, or cannot be written.
    """
    require_new_folder(path)
    beside = path.resolve().with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.mkdir(parents=True)
        yield beside
        if path.is_dir():
            path.rmdir()
        beside.rename(path)
    except OSError as error:
        raise RegardError(f"{path}: could not be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def remove_leftovers(folder: Path) -> None:
    """Removes what `write_whole`, and safetensors beneath it, leave in a folder if the process is killed."""
    for pattern in (".*.[0-9]*", ".tmp*"):
        for beside in folder.glob(pattern):
            beside.unlink(missing_ok=True)


def write_json(path: Path, values: Any) -> None:
    text = json_text(values, indent=2) + "\n"
    write_whole(path, lambda beside: beside.write_text(text, encoding="utf-8"))


def json_text(values: Any, *, indent: int | None = None) -> str:
    """JSON that every reader reads and every encoding can write: a name that is not UTF-8 is read back as it was.

    A number that is not finite, which JSON does not have, is null.
    """
    try:
        text = json.dumps(values, indent=indent, ensure_ascii=False, allow_nan=False)
    except ValueError:
        text = json.dumps(_finite(values), indent=indent, ensure_ascii=False, allow_nan=False)
    return _SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _finite(values: Any) -> Any:
    """The same with None for NaN and infinity."""
    if isinstance(values, Mapping):
        return {key: _finite(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [_finite(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values


def printable(name: object) -> str:
    """A name for people: what is not UTF-8 in it is written as \\udcff. Names are stored by `json_text`."""
    return _SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", str(name))


def flush(path: Path) -> None:
    """fsync of a file, or of a folder's list of names where the system can do that."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except PermissionError:  # Windows opens no folders
        if path.is_dir():
            return
        raise
    try:
        os.fsync(handle)
    except OSError:
        if not path.is_dir():
            raise
    finally:
        os.close(handle)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Within, `folder`, which must exist, belongs to this process; the lock ends with the process, however it ends.

    The file `.lock` is removed at the end. RegardError where another process holds it.
    """
    file = folder / LOCK
    lock = FileLock(file, timeout=0)
    try:
        lock.acquire()
        while not _is_there(lock, file):  # who held it before removed it when we had opened it already
            lock.release()
            lock.acquire()
    except Timeout:
        holder = ""
        with suppress(OSError, UnicodeDecodeError):
            holder = file.read_text(encoding="utf-8").strip()
        raise Taken(
            f"{folder}: another process{f' ({holder})' if holder else ''} is writing into this folder; "
            "wait until it ends, or choose another folder"
        ) from None
    except OSError as error:
        raise RegardError(f"{file}: the folder cannot be locked: {error.strerror or error}") from None
    try:
        with suppress(OSError):
            file.write_text(f"process {os.getpid()}\n", encoding="utf-8")
        yield
    finally:
        with suppress(OSError):  # while it is held: who opens the file after that makes a new one
            file.unlink()
        lock.release()
        with suppress(OSError):  # Windows removes no open file
            file.unlink(missing_ok=True) if os.name == "nt" else None


def _is_there(lock: FileLock, file: Path) -> bool:
    """Whether the file that is locked is still the one in the folder."""
    handle = lock._context.lock_file_fd
    try:
        return handle is None or os.name == "nt" or os.path.samestat(os.fstat(handle), file.stat())
    except FileNotFoundError:
        return False


def expanded(path: str | Path) -> Path:
    """A path with the home directory for ~; as it is where there is none, so that it is told as a missing path."""
    with suppress(RuntimeError):
        return Path(path).expanduser()
    return Path(path)


def cache_folder() -> Path:
    """`regard` in the user's cache folder. RegardError where there is no home directory, as in some containers."""
    stated = os.environ.get("XDG_CACHE_HOME", "")
    try:
        return (Path(stated) if Path(stated).is_absolute() else Path.home() / ".cache") / "regard"
    except RuntimeError:
        raise RegardError(
            "there is no home directory to keep files in; set XDG_CACHE_HOME to a folder that can be written"
        ) from None
