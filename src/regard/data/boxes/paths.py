"""Paths as labelling tools write them, and the files that they mean."""

import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path, PurePath, PurePosixPath
from unicodedata import normalize

from regard.errors import first_few


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
            tails = [(_common_tail(parts[:-1], _plain(name).split("/")[:-1]), name) for name in known.get(key, [])]
            longest = max(tails, default=(0, ""))[0]
            best = [name for tail, name in tails if tail == longest]
            if len(best) == 1:
                return self.exact[best[0]], how
        return None, ""

    def hint(self, stated: str) -> str:
        """What is there instead of a file that was not found."""
        parts = _plain(stated).split("/")
        several = self._by_name.get(parts[-1]) or self._by_stem.get(PurePosixPath(parts[-1]).stem, [])
        if several:
            return f"{len(several)} such files are there: {first_few(several)}"
        if not self.exact:
            return f"{self.folder} holds no such files"
        return f"{self.folder} holds {len(self.exact)} others: {first_few(sorted(self.exact))}"


def is_inside(path: PurePath, folder: Path) -> bool:
    """Whether `folder / path` stays in the folder, as far as the path itself says."""
    whole = Path(folder / path)
    depth = 0
    for part in whole.relative_to(folder).parts if whole.is_relative_to(folder) else ("..",):
        depth += -1 if part == ".." else 1
        if depth < 0:
            return False
    return True


def _plain(path: str) -> str:
    """A path without drive, dots and differences of case, Unicode form and slashes."""
    path = re.sub(r"^[A-Za-z]:", "", path.replace("\\", "/"))
    parts = [part for part in path.split("/") if part not in ("", ".", "..")]
    return normalize("NFC", "/".join(parts)).casefold()


def _common_tail(first: list[str], second: list[str]) -> int:
    count = 0
    for one, other in zip(reversed(first), reversed(second), strict=False):
        if one != other:
            break
        count += 1
    return count
