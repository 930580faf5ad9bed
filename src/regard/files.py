"""Files that are either whole or not there."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from regard.errors import RegardError


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Lets `write` make a file beside `path`, flushes it to the disk, and puts it in the place of `path` at once.

    RegardError where the disk is full; `path` is then as it was.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.touch()
        mode = beside.stat().st_mode
        write(beside)
        beside.chmod(mode)  # safetensors would let the owner alone read
        flush(beside)
        beside.replace(path)
        flush(path.parent)
    except (OSError, SafetensorError) as error:
        raise RegardError(f"{path}: could not be saved, and is as it was before: {error}") from error
    finally:
        beside.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Removes what `write_whole`, and safetensors beneath it, leave in a folder if the process is killed."""
    for pattern in (".*.[0-9]*", ".tmp*"):
        for beside in folder.glob(pattern):
            beside.unlink(missing_ok=True)


def write_json(path: Path, values: Any) -> None:
    text = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
    write_whole(path, lambda beside: beside.write_text(text, encoding="utf-8"))


def flush(path: Path) -> None:
    """fsync of a file, or of a folder's list of names."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def cache_folder() -> Path:
    """`regard` in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "regard"
