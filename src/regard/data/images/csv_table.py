"""A CSV file as rows of text. Which encoding it is in, and what stands between its cells, is found out."""

import codecs
import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unicodedata import normalize

from regard.errors import RegardError, nearest
from regard.reading import MB, read_bytes

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
ENCODINGS = {
    "utf-8": "UTF-8",
    "utf-8-sig": "UTF-8 with a byte order mark",
    "utf-16": "UTF-16",
    "utf-16-le": "UTF-16",
    "utf-16-be": "UTF-16",
    "cp1252": "Windows-1252 (cp1252)",
}
_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
# Excel's first line, where it names the separator.
_STATED = re.compile(r'"?sep=(.)"?\r?\n', re.IGNORECASE)


@dataclass(frozen=True)
class Table:
    file: Path
    columns: tuple[str, ...]
    rows: list[tuple[int, list[str]]]
    """(line in the file, its cells); lines without any text are left out."""
    encoding: str
    separator: str

    @property
    def remark(self) -> str:
        """What was found out, where it is not UTF-8 with commas; else ""."""
        if (self.encoding, self.separator) == ("utf-8", ","):
            return ""
        return f"{self.file.name} is read as {ENCODINGS[self.encoding]} with {SEPARATORS[self.separator]} between cells"

    def place(self, name: str, key: str) -> int:
        """The number of the column of this name. RegardError, which names `key` that chooses another, without one."""
        found = [place for place, column in enumerate(self.columns) if column == name]
        found = found or [place for place, column in enumerate(self.columns) if _plain(column) == _plain(name)]
        if len(found) > 1:
            raise RegardError(f"{self.file}: the column {name!r} stands {len(found)} times in the first line")
        if not found:
            near = nearest(name, self.columns)
            hint = f"; did you mean {near[0]!r}?" if near else ";"
            raise RegardError(
                f"{self.file}: has no column {name!r}{hint} its first line names the columns "
                f"{', '.join(map(repr, self.columns))}; --set {key}=NAME chooses another one"
            )
        return found[0]

    def has(self, name: str) -> bool:
        return _plain(name) in map(_plain, self.columns)


def read_table(file: Path, wanted: Sequence[str]) -> Table:
    """Reads a file whose first line names the columns. `wanted` are those that tell the separator.

    RegardError for a file that is empty, not text, or not CSV.
    """
    data = read_bytes(file, most=256 * MB)
    if data.startswith(b"PK\x03\x04"):
        raise RegardError(f"{file}: is a workbook or an archive, not text; save it as CSV")
    text, encoding = _decoded(data, file)
    stated = _STATED.match(text)
    known = [stated[1]] if stated and stated[1] in SEPARATORS else list(SEPARATORS)
    text, before = (text[stated.end() :], 1) if stated else (text, 0)
    if not text.strip():
        raise RegardError(f"{file}: is empty; its first line must name the columns: {','.join(wanted)}")
    separator = max(known, key=lambda one: _fits(text, one, wanted))
    rows: list[tuple[int, list[str]]] = []
    reader = _reader(text, separator)
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                rows.append((reader.line_num + before, [cell.strip() for cell in cells]))
    except csv.Error as error:
        raise RegardError(f"{file}: line {reader.line_num + before}: is not CSV: {error}") from None
    return Table(file, tuple(rows[0][1]), rows[1:], encoding, separator)


def _decoded(data: bytes, file: Path) -> tuple[str, str]:
    """The text, and the encoding: by its mark, by zeros as UTF-16 has them, else UTF-8, else Windows-1252."""
    likely = [name for mark, name in _MARKS if data.startswith(mark)][:1]
    if not likely and b"\0" in data[:4096]:
        likely = ["utf-16-le" if data[1:2] == b"\0" else "utf-16-be"]
    for encoding in likely or ["utf-8", "cp1252"]:
        try:
            return data.decode(encoding), encoding
        except UnicodeDecodeError:
            continue
    known = ", ".join(dict.fromkeys(ENCODINGS.values()))
    raise RegardError(f"{file}: is not text in any encoding that is read: {known}")


def _reader(text: str, separator: str) -> Any:
    return csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True)


def _fits(text: str, separator: str, wanted: Sequence[str]) -> tuple[int, int]:
    """How many of the wanted columns the first line has with this separator, and how many columns in all."""
    try:
        rows = (cells for cells in _reader(text, separator) if any(cell.strip() for cell in cells))
        first: list[str] = next(rows, [])
    except csv.Error:
        return 0, 0
    names = {_plain(cell) for cell in first}
    return sum(_plain(name) in names for name in wanted), len(first)


def _plain(name: str) -> str:
    return normalize("NFC", name).strip().casefold()
