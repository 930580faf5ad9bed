"""Paths as labelling tools write them, and the files that they mean."""

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any
from unicodedata import normalize
from urllib.parse import unquote

from regard.errors import first_few

MOST_COMPARED = 5_000  # names, to find the one that was probably meant


class FilesBelow:
    """The files of a folder, found by a stated path: with backslashes, of another machine, of other case or ending."""

    def __init__(self, folder: Path, files: Iterable[Path]) -> None:
        self.folder = folder
        self.exact = {file.relative_to(folder).as_posix(): file for file in files}
        self._by_name: defaultdict[str, list[str]] = defaultdict(list)
        self._by_stem: defaultdict[str, list[str]] = defaultdict(list)
        for name in self.exact:
            last = _plain(name).rpartition("/")[2]
            self._by_name[last].append(name)
            self._by_stem[PurePosixPath(last).stem].append(name)

    def find(self, stated: str) -> tuple[Path | None, str]:
        """The file, and how it was found: "" by its path as stated. None where no file, or more than one, fits best."""
        if stated in self.exact:
            return self.exact[stated], ""
        parts = _plain(stated).split("/")
        for known, key, how in (
            (self._by_name, parts[-1], "paths are written in another way"),
            (self._by_stem, PurePosixPath(parts[-1]).stem, "files have another ending than stated"),
        ):
            tails = [(common_tail(parts[:-1], _plain(name).split("/")[:-1]), name) for name in known.get(key, [])]
            longest = max(tails, default=(0, ""))[0]
            best = [name for tail, name in tails if tail == longest]
            if len(best) == 1:
                return self.exact[best[0]], how
        return None, ""

    def find_tail(self, stated: str) -> tuple[Path | None, str]:
        """As `find`, where the file's whole path below the folder is the end of the stated one."""
        found, how = self.find(stated)
        if found is not None:
            folders = _plain(found.relative_to(self.folder).as_posix()).split("/")[:-1]
            if common_tail(folders, _plain(stated).split("/")[:-1]) < len(folders):
                return None, ""
        return found, how

    def hint(self, stated: str) -> str:
        """What is there instead of a file that was not found."""
        parts = _plain(stated).split("/")
        several = self._by_name.get(parts[-1]) or self._by_stem.get(PurePosixPath(parts[-1]).stem, [])
        if several:
            return f"{len(several)} such files are there: {first_few(several)}"
        if not self.exact:
            return f"{self.folder} holds no such files"
        known = {name.rpartition("/")[2]: name for name in list(self.exact)[:MOST_COMPARED]}
        near = get_close_matches(parts[-1], known, n=1, cutoff=0.8)
        meant = f", perhaps {known[near[0]]} is meant" if near else ""
        return f"{self.folder} holds {len(self.exact)} others: {first_few(sorted(self.exact))}{meant}"


def stays_inside(name: Any) -> bool:
    """Whether a stated path stays below the folder it starts from, on any system."""
    if not isinstance(name, str) or not name or "\0" in name:
        return False
    if not name.startswith("/") and not {"\\", ":"} & set(name) and ".." not in name:
        return True  # nearly all of them
    kinds = (PurePosixPath(name), PureWindowsPath(name))
    return not any(path.anchor or ".." in path.parts for path in kinds)


def are_there(names: Sequence[Any], folder: Path) -> list[bool]:
    """Whether each of the stated paths is inside of the folder and there as it is written. Folders are listed once."""
    listed: dict[str, frozenset[str]] = {}

    def is_there(name: Any) -> bool:
        if not stays_inside(name):
            return False
        parent, _, last = name.rpartition("/")
        if parent not in listed:
            try:
                listed[parent] = frozenset(entry.name for entry in os.scandir(folder / parent))
            except (OSError, ValueError):
                listed[parent] = frozenset()
        return last in listed[parent]

    return [is_there(name) for name in names]


def _plain(path: str) -> str:
    """A path without drive, dots and differences of case, Unicode form and slashes."""
    if "://" in path or "?d=" in path:  # Label Studio serves local files as /data/local-files/?d=images/a.jpg
        path = path.partition("?d=")[2] or path.partition("?")[0]
    path = re.sub(r"^[A-Za-z]:", "", (unquote(path) if "%" in path else path).replace("\\", "/"))
    parts = [part for part in path.split("/") if part not in ("", ".", "..")]
    return normalize("NFC", "/".join(parts)).casefold()


def common_tail(first: Sequence[str], second: Sequence[str]) -> int:
    """How many parts two paths have in common, from their ends."""
    count = 0
    for one, other in zip(reversed(first), reversed(second), strict=False):
        if one != other:
            break
        count += 1
    return count
