"""Where the images are that annotations name: paths as labelling tools write them, brought to files that are there."""

import os
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any
from urllib.parse import unquote

from regard.data.images.files import IMAGE_EXTENSIONS
from regard.errors import first_few
from regard.files import printable

MOST_COMPARED = 5_000  # names, to find the one that was probably meant


def is_inside(name: Any) -> bool:
    """Whether a path stays below the folder it starts from, on any system."""
    if not isinstance(name, str) or not name or "\0" in name:
        return False
    if not name.startswith("/") and not {"\\", ":"} & set(name) and ".." not in name:
        return True  # nearly all of them
    kinds = (PurePosixPath(name), PureWindowsPath(name))
    return not any(path.anchor or ".." in path.parts for path in kinds)


def present(names: Sequence[Any], folder: Path) -> list[bool]:
    """Whether each of the names is inside of the folder and there, as it is written. Each folder is listed once."""
    listed: dict[str, frozenset[str]] = {}

    def is_there(name: Any) -> bool:
        if not is_inside(name):
            return False
        parent, _, last = name.rpartition("/")
        if parent not in listed:
            try:
                listed[parent] = frozenset(entry.name for entry in os.scandir(folder / parent))
            except (OSError, ValueError):
                listed[parent] = frozenset()
        return last in listed[parent]

    return [is_there(name) for name in names]


class ImagesBelow:
    """The image files below a folder, to be found by names that were written on another system.

    A name is that of a file if the file's path below the folder is its end: `C:\\me\\train\\a.JPG` is `train/a.jpg` or
    `a.jpg`. Case, Unicode's form, and %20 for a space make no difference, and the ending none where nothing else fits.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names: list[str] = []
        self._whole: dict[str, list[str]] = defaultdict(list)
        self._stems: dict[str, list[str]] = defaultdict(list)
        for parent, folders, files in os.walk(folder):
            folders[:] = [name for name in folders if not _is_hidden(name)]
            for file in files:
                if Path(file).suffix.lower() in IMAGE_EXTENSIONS and not _is_hidden(file):
                    self.names.append(Path(parent, file).relative_to(folder).as_posix())
        for name in sorted(self.names):
            self._whole[_folded(name)].append(name)
            self._stems[_stem(_folded(name))].append(name)

    def find(self, name: str) -> str | None:
        """The path below the folder of the one file that a name means; None where there is none, or several."""
        parts = _parts(name)
        for known, key_of in ((self._whole, _folded), (self._stems, lambda tail: _stem(_folded(tail)))):
            for first in range(len(parts)):
                found = known.get(key_of("/".join(parts[first:])), [])
                if found:
                    return found[0] if len(found) == 1 else None
        return None

    def hint(self, missing: str) -> str:
        """What is there instead of a file that isn't."""
        if not self.names:
            return f"{self.folder} {'holds no images' if self.folder.is_dir() else 'is no folder'}"
        last = (_parts(missing) or [""])[-1]
        few = {PurePosixPath(name).name: name for name in self.names[:MOST_COMPARED]}
        near = get_close_matches(last, few, n=1, cutoff=0.75)
        meant = f", perhaps {few[near[0]]} is meant" if near else ""
        examples = first_few([printable(name) for name in sorted(self.names)])
        return f"{self.folder} holds {len(self.names)} images: {examples}{meant}"


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _stem(name: str) -> str:
    stem, dot, ending = name.rpartition(".")
    return stem if dot and f".{ending}" in IMAGE_EXTENSIONS else name


def _parts(name: str) -> list[str]:
    """The folders and the file of a path of any system, or of an address on the web."""
    if "://" in name or "?d=" in name:  # Label Studio serves local files as /data/local-files/?d=images/a.jpg
        name = name.partition("?d=")[2] or name.partition("?")[0]
    if "%" in name:
        name = unquote(name)
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
    if ".." in parts:
        parts = parts[len(parts) - parts[::-1].index("..") :]
    return parts
