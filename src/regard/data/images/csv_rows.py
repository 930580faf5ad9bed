"""The rows of a CSV file -> image files with their labels. What has no meaning is named and counted in `Repairs`."""

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from regard.data.images.csv_table import Table, read_table
from regard.data.images.folder_layout import WITHOUT_CLASSES
from regard.data.images.names import normal
from regard.data.images.paths import FilesBelow, common_tail
from regard.data.images.walk import image_files
from regard.data.repairs import Repairs
from regard.errors import RegardError, first_few

# Names of the column that says which part an image is of, and what may stand in it.
PART_COLUMNS = ("split", "part")
PARTS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}


@dataclass(frozen=True)
class CsvOptions:
    """How a CSV file is read: the recipe's keys data.file_column and so on."""

    file_column: str = "file"
    label_column: str = "label"
    part_column: str | None = None
    """None: a column `split` or `part`, where there is one; "": none."""
    label_separator: str = ";"
    multi_label: bool | None = None
    """None: where a label holds the separator."""
    image_folder: Path | None = None
    """That file names start from, as seen from here or from the CSV file; the CSV file's own unless given."""


@dataclass(frozen=True)
class Labelled:
    """An image file, the names of its classes, and its part: "train", "val", "test", or "" without such a column."""

    file: Path
    labels: tuple[str, ...]
    part: str


@dataclass
class Row:
    where: str
    """"line 3"."""
    stated: str
    labels: tuple[str, ...]
    part: str


def read_labels(
    file: Path, options: CsvOptions, address: str, *, unlabelled: bool = False
) -> tuple[list[Labelled], bool, Repairs, list[str]]:
    """The images of a CSV file in the order of their paths, each once; whether they are multi-label; and what is odd.

    unlabelled: whether the column of labels may be missing, or be called ""; no image then has a label.
    RegardError for a file or column that is not there, a table without rows, and where no image is there.
    """
    table = read_table(file, (options.file_column, options.label_column))
    repairs = Repairs()
    rows, multi_label = _rows(table, options, repairs, unlabelled=unlabelled)
    if not table.rows:
        raise RegardError(f"{file}: has a first line and no rows")
    folder = file.parent / (options.image_folder or "")
    if options.image_folder is not None and options.image_folder.is_dir():
        folder = options.image_folder
    folder = Path(os.path.normpath(folder))
    by_file: dict[Path, list[Row]] = defaultdict(list)
    for row, path in zip(rows, _files(rows, folder, address, repairs), strict=True):
        if path is not None:
            by_file[path].append(row)
    joins = multi_label and options.multi_label is True
    found = [_of_one_file(path, own, repairs, joins=joins) for path, own in sorted(by_file.items())]
    remarks = [table.remark] if table.remark else []
    others = _other_columns(table, options)
    if others and options.label_column and _label_place(table, options, unlabelled=unlabelled) is None:
        remarks.append(
            f"{file.name} has no column {options.label_column!r}, and is read without labels; "
            f"--set data.label_column=NAME takes one of {', '.join(map(repr, others))}"
        )
    return [one for one in found if one is not None], multi_label, repairs, remarks


def _label_place(table: Table, options: CsvOptions, *, unlabelled: bool) -> int | None:
    """The number of the column of labels; None where it may be missing, and is, or is called ""."""
    name = options.label_column
    if unlabelled and (not name or (name == CsvOptions.label_column and not table.has(name))):
        return None
    if not table.has(name) and not _other_columns(table, options):
        raise RegardError(f"{table.file}: has no column {name!r}, and no other that holds labels; {WITHOUT_CLASSES}")
    return table.place(name, "data.label_column")


def _other_columns(table: Table, options: CsvOptions) -> list[str]:
    """Those that may hold labels."""
    known = (options.file_column.casefold(), *PART_COLUMNS, (options.part_column or "").casefold())
    return [name for name in table.columns if name.casefold() not in known]


def _rows(table: Table, options: CsvOptions, repairs: Repairs, *, unlabelled: bool) -> tuple[list[Row], bool]:
    """The rows with a file, a part and a label, and whether images have several labels, or none."""
    file_at = table.place(options.file_column, "data.file_column")
    label_at = _label_place(table, options, unlabelled=unlabelled)
    part_name = options.part_column
    if part_name is None:
        part_name = next((name for name in PART_COLUMNS if table.has(name)), "")
    part_at = table.place(part_name, "data.part_column") if part_name else None
    multi_label = True if label_at is None else options.multi_label
    if multi_label is None:
        multi_label = any(options.label_separator in _cell(cells, label_at) for _, cells in table.rows)
    too_many = "rows have more cells than the first line has columns"
    if table.separator == options.label_separator:
        too_many += f" (a label that holds {table.separator!r} must stand in quotes)"
    found: list[Row] = []
    for line, cells in table.rows:
        where, stated, text = f"line {line}", _cell(cells, file_at), _cell(cells, label_at)
        pieces = text.split(options.label_separator) if multi_label else [text]
        labels = tuple(sorted({normal(piece.strip()) for piece in pieces if piece.strip()}))
        part = "" if part_at is None else PARTS.get(_cell(cells, part_at).casefold())
        if any(cells[len(table.columns) :]):
            repairs.leave_out(too_many, where)
        elif not stated:
            repairs.leave_out("rows have no file", where)
        elif not labels and label_at is not None and options.multi_label is not True:
            repairs.leave_out("rows have an empty label", f"{where} ({stated})")
        elif part is None:
            known = "train, val or test; --set data.part_column= leaves the column out of account"
            repairs.leave_out(f"rows have in the column {part_name!r} none of {known}", where)
        else:
            found.append(Row(where, stated, labels, part))
    return found, multi_label


def _cell(cells: Sequence[str], place: int | None) -> str:
    return "" if place is None or place >= len(cells) else cells[place]


def _files(rows: Sequence[Row], folder: Path, address: str, repairs: Repairs) -> Iterable[Path | None]:
    """The file of each row, or None: as stated, or else the one below the folder that alone fits."""
    stated = [Path(os.path.normpath(folder / row.stated.replace("\0", ""))) for row in rows]
    missing = [row for row, path in zip(rows, stated, strict=True) if not os.path.isfile(path)]  # noqa: PTH113 (any name)
    if not missing:
        return stated
    if not folder.is_dir():
        raise RegardError(f"{address}: {folder}: no such folder")
    below = FilesBelow(folder, image_files(folder)[0])
    lost = {row.where for row in missing}
    found = [
        path if row.where not in lost else _found(row, below, repairs) for row, path in zip(rows, stated, strict=True)
    ]
    if not any(path is not None for path in found):
        raise RegardError(
            f"{address}: none of its {len(rows)} files is there: {first_few([row.stated for row in rows])}; they are "
            f"looked for from {folder}, and --set data.image_folder=FOLDER names another; {below.hint(rows[0].stated)}"
        )
    return found


def _found(row: Row, below: FilesBelow, repairs: Repairs) -> Path | None:
    found, how = below.find(row.stated)
    if found is not None:
        stated = row.stated.replace("\\", "/").casefold().split("/")[:-1]
        own = [part for part in stated if part not in ("", ".", "..")]
        inner = found.relative_to(below.folder).as_posix().casefold().split("/")[:-1]
        if common_tail(own, inner) == min(len(own), len(inner)):
            repairs.heal(how, f"{row.stated} ({row.where})")
            return found
    repairs.leave_out("files are not there", f"{row.stated} ({row.where})")
    return None


def _of_one_file(path: Path, rows: Sequence[Row], repairs: Repairs, *, joins: bool) -> Labelled | None:
    """One file of all rows that name it. Those that do not agree are left out, unless labels are to be joined."""
    name, first = rows[0].stated, rows[0]
    if len({row.part for row in rows}) > 1:
        repairs.leave_out("files are in several parts", f"{name} ({first_few([_said(row, 'part') for row in rows])})")
        return None
    labels = first.labels
    if len({row.labels for row in rows}) > 1:
        if not joins:
            told = first_few([_said(row, "labels") for row in rows])
            kind = "files have different labels in several rows, which data.multi_label=true would join"
            repairs.leave_out(kind, f"{name} ({told})")
            return None
        labels = tuple(sorted({label for row in rows for label in row.labels}))
        repairs.heal("files have their labels from several rows", name)
    elif len(rows) > 1:
        repairs.heal("files stand in several rows that say the same", name)
    return Labelled(path, labels, first.part)


def _said(row: Row, what: str) -> str:
    said = row.part if what == "part" else ";".join(row.labels) or "none"
    return f"{said} in {row.where}"
