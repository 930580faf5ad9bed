"""COCO's annotation file as it stands: a JSON file of images, annotations and categories, read into columns."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from reprlib import repr as shortened
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64

from regard.errors import RegardError, one_line

LARGEST = 1e15  # of a number; an area has to fit into float32
LARGEST_FILE = 2 * 2**30  # bytes; a file is read whole, and takes some ten times as much memory
LISTS = "images, annotations and categories"


@dataclass(frozen=True)
class CocoFile:
    """An annotation file of which nothing is mended or left out: boxes may be nonsense, ids may lead nowhere."""

    path: Path
    folder: Path
    """Where the file names start from."""
    image_ids: Int64[np.ndarray, " images"]
    file_names: list[str]
    sizes: Int64[np.ndarray, "images 2"]
    """(height, width) as stated."""
    ids: Int64[np.ndarray, " annotations"]
    of_image: Int64[np.ndarray, " annotations"]
    """The image id of each annotation."""
    of_category: Int64[np.ndarray, " annotations"]
    boxes_xywh: Float64[np.ndarray, "annotations 4"]
    areas: Float64[np.ndarray, " annotations"]
    crowd: Bool[np.ndarray, " annotations"]
    category_ids: list[int]
    """As listed, those that repeat too."""
    category_names: list[str]

    def places(self) -> Int64[np.ndarray, " annotations"]:
        """The index of each annotation's image, the first that has its id; -1 where there is no such image."""
        if not len(self.image_ids):
            return np.full(len(self.of_image), -1)
        known, first = np.unique(self.image_ids, return_index=True)
        near = np.minimum(np.searchsorted(known, self.of_image), len(known) - 1)
        return np.where(known[near] == self.of_image, first[near], -1)

    def file(self, index: int) -> Path:
        return self.folder / self.file_names[index]


def read_coco_file(path: Path, folder: Path) -> CocoFile:
    """Reads an annotation file whose file names start from `folder`.

    An annotation may do without `iscrowd` (0) and `area` (that of its box). RegardError says what is wrong, in which
    file, list, entry and key, and what should be there.
    """
    whole = _read_json(path)
    images = _table(path, whole, "images", ("id", "file_name", "width", "height"))
    annotations = _table(path, whole, "annotations", ("id", "image_id", "category_id", "bbox"))
    categories = _table(path, whole, "categories", ("id", "name"))
    boxes = annotations.boxes("bbox")
    return CocoFile(
        path=path,
        folder=folder,
        image_ids=images.integers("id"),
        file_names=images.column("file_name", _is_file_name, f"a path inside of {folder}"),
        sizes=np.stack([images.integers(key, least=1) for key in ("height", "width")], axis=1),
        ids=annotations.integers("id"),
        of_image=annotations.integers("image_id"),
        of_category=annotations.integers("category_id"),
        boxes_xywh=boxes,
        areas=annotations.numbers("area", (boxes[:, 2] * boxes[:, 3]).tolist()),
        crowd=annotations.flags("iscrowd"),
        category_ids=categories.integers("id").tolist(),
        category_names=categories.column("name", _is_name, "a name"),
    )


@dataclass(frozen=True)
class _Table:
    """One of the file's lists, which is read key by key."""

    path: Path
    name: str
    entries: list[dict[str, Any]]

    def column(self, key: str, fits: Callable[[Any], bool], wanted: str) -> list[Any]:
        values = [entry[key] for entry in self.entries]
        self._require(key, values, fits, wanted)
        return values

    def integers(self, key: str, *, least: int = -(2**63)) -> np.ndarray:
        wanted = "an integer" if least < 0 else f"an integer from {least} on"
        values = self.column(key, lambda value: _is_integer(value) and least <= value < 2**63, wanted)
        return np.array([int(value) for value in values], dtype=np.int64)  # some are written as 7.0

    def numbers(self, key: str, otherwise: Sequence[float]) -> np.ndarray:
        values = [entry.get(key, value) for entry, value in zip(self.entries, otherwise, strict=True)]
        self._require(key, values, _is_number, "a finite number")
        return np.array(values, dtype=np.float64)

    def flags(self, key: str) -> np.ndarray:
        values = [entry.get(key, 0) for entry in self.entries]
        self._require(key, values, lambda value: type(value) in (int, bool) and value in (0, 1), "0 or 1")
        return np.array(values, dtype=bool)

    def boxes(self, key: str) -> np.ndarray:
        return np.array(self.column(key, _is_box, "four finite numbers"), dtype=np.float64).reshape(-1, 4)

    def _require(self, key: str, values: list[Any], fits: Callable[[Any], bool], wanted: str) -> None:
        for index, value in enumerate(values):
            if not fits(value):
                where = f"{self.path}: {self.name}[{index}].{key}"
                raise RegardError(f"{where} is {shortened(value)}; it must be {wanted}")


def _is_integer(value: Any) -> bool:
    return type(value) is int or (type(value) is float and value.is_integer())


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and -LARGEST <= value <= LARGEST


def _is_box(value: Any) -> bool:
    return type(value) is list and len(value) == 4 and all(map(_is_number, value))


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_file_name(value: Any) -> bool:
    """Whether a path stays below the folder it starts from, on any system."""
    if not isinstance(value, str) or not value or "\0" in value:
        return False
    if not value.startswith("/") and not {"\\", ":"} & set(value) and ".." not in value:
        return True  # nearly all of them
    kinds = (PurePosixPath(value), PureWindowsPath(value))
    return not any(path.anchor or ".." in path.parts for path in kinds)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        size = path.stat().st_size
        if size > LARGEST_FILE:
            raise RegardError(
                f"{path}: is a file of {size / 2**30:.1f} GiB; up to {LARGEST_FILE / 2**30:g} GiB are read: leave out "
                "the segmentations, which are not used, or cut it into parts"
            )
        whole = json.loads(path.read_bytes())
    except RegardError:
        raise
    except ValueError as error:  # of JSON, of UTF-8, or a number of thousands of digits
        raise RegardError(f"{path}: is not JSON: {one_line(error)}") from None
    except OSError as error:
        raise RegardError(f"{path}: cannot be read: {error.strerror}") from None
    except RecursionError:
        raise RegardError(f"{path}: is not COCO's: its values are nested too deeply") from None
    if not isinstance(whole, dict):
        raise RegardError(
            f"{path}: holds a {type(whole).__name__}; COCO's files hold an object of three lists, {LISTS}"
        )
    return whole


def _table(path: Path, whole: dict[str, Any], name: str, keys: Sequence[str]) -> _Table:
    """A list of the file, in which every entry has the keys."""
    if name not in whole:
        raise RegardError(f"{path}: lacks the key {name!r}; COCO's files have {LISTS}")
    entries = whole[name]
    if not isinstance(entries, list):
        raise RegardError(f"{path}: {name} is {shortened(entries)}; it must be a list")
    wanted = set(keys)
    for index, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise RegardError(f"{path}: {name}[{index}] is {shortened(entry)}; it must be an object")
        if not entry.keys() >= wanted:
            missing = ", ".join(repr(key) for key in keys if key not in entry)
            raise RegardError(f"{path}: {name}[{index}] lacks the key {missing}; it needs {', '.join(keys)}")
    return _Table(path, name, entries)
