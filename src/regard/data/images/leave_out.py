"""A list of images that a training leaves out of both parts: a text file with a name a line (`data.leave_out`)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regard.errors import RegardError, first_few
from regard.files import expanded, printable, write_whole
from regard.reading import read_text


@dataclass(frozen=True)
class LeaveOut:
    """The names in a list, as they are or from `root`, the place of the data, on."""

    file: Path
    lines: tuple[str, ...]
    root: Path | None

    @classmethod
    def read(cls, file: str | Path, root: Path | None) -> "LeaveOut":
        """Empty lines, and lines that begin with #, are passed over. RegardError for a file that cannot be read."""
        lines = [line.strip() for line in read_text(expanded(file)).splitlines()]
        return cls(Path(file), tuple(line for line in lines if line and not line.startswith("#")), root)

    def _names(self, line: str) -> set[str]:
        return {line} if self.root is None else {line, str(self.root / line)}

    def kept(self, names: Sequence[str], what: str) -> list[int]:
        """The indices of the names that are not in the list. RegardError where none is left of `what`."""
        out = {name for line in self.lines for name in self._names(line)}
        kept = [index for index, name in enumerate(names) if name not in out]
        if names and not kept:
            raise RegardError(f"{self.file}: leaves no image {what}")
        return kept

    def remark(self, names: Sequence[str]) -> str:
        """What is said of lines that name no image; "" without such lines. RegardError where no line names one."""
        known = {*names}
        unknown = [line for line in self.lines if not known & self._names(line)]
        if not unknown:
            return ""
        if len(unknown) == len(self.lines):
            raise RegardError(
                f"{self.file}: no line names an image of the data: {first_few(unknown)}; there are "
                f"{first_few(sorted(known))}"
            )
        return f"{len(unknown)} lines of {self.file} name no image of the data: {first_few(unknown)}"


def classes_in(labels: Iterable[Any]) -> list[int]:
    """The class of each label, or all classes of one that has several."""
    return [int(label) for own in labels for label in (own if isinstance(own, tuple) else (own,))]


def write_leave_out(file: Path, why: Mapping[str, str], root: Path | None, doubled: Mapping[str, str]) -> None:
    """Writes a list of names, those below `root` from there on, below the reasons for them. RegardError.

    doubled: those that stand behind a #, so that they stay.
    """
    lines = ["# Images to leave out, a name a line: --set data.leave_out=FILE. A line that begins with # is none."]
    for names, mark in ((why, ""), (doubled, "# ")):
        for reason in sorted(set(names.values())):
            lines += ["", f"# {reason}:"]
            lines += [mark + _from(root, name) for name, own in names.items() if own == reason]
    if not file.parent.is_dir():
        raise RegardError(f"{file}: cannot be written: {file.parent} is not a folder")
    text = "".join(f"{printable(line)}\n" for line in lines)
    write_whole(file, lambda beside: beside.write_text(text, encoding="utf-8"))


def _from(root: Path | None, name: str) -> str:
    return Path(name).relative_to(root).as_posix() if root is not None and Path(name).is_relative_to(root) else name
