"""COCO's annotation file, a JSON file of images, annotations and categories, read into columns.

What has one meaning is mended and what has none is left out; `Repairs` says which, and how often.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, compress
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64

from regard.data.boxes.coco_lists import ABSENT, LISTS, Table, read_json
from regard.data.boxes.coco_values import (
    LARGEST_SIDE,
    as_box,
    as_flag,
    as_name,
    as_number,
    as_side,
    box_of_segments,
    is_sound,
)
from regard.data.images.files import BadImage, check_header
from regard.data.images.paths import FilesBelow, are_there, stays_inside
from regard.data.images.pixels import ANY_SIZE
from regard.data.images.walk import image_files
from regard.data.repairs import Repairs
from regard.errors import RegardError


@dataclass(frozen=True)
class CocoFile:
    """An annotation file. Each row of a column is an image, annotation or category that can be read; boxes may still
    lie outside of their image, and ids lead nowhere."""

    path: Path
    label: str
    """What the file is called where one of its entries is named."""
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
    category_names: list[str]
    more_of_categories: list[dict[str, Any]]
    """What else is stated of each category, its `supercategory` above all."""
    rows: tuple[list[int], list[int]]
    """Which entries of the file's lists the images and the annotations are."""

    def places(self) -> Int64[np.ndarray, " annotations"]:
        """The index of each annotation's image, the first that has its id; -1 where there is no such image."""
        if not len(self.image_ids):
            return np.full(len(self.of_image), -1)
        known, first = np.unique(self.image_ids, return_index=True)
        near = np.minimum(np.searchsorted(known, self.of_image), len(known) - 1)
        return np.where(known[near] == self.of_image, first[near], -1)

    def file(self, index: int) -> Path:
        return self.folder / self.file_names[index]

    def hint(self, index: int) -> str:
        """What is there where an image is missing."""
        return files_below_folder(self.folder).hint(self.file_names[index])


def read_coco_file(path: Path, folders: Sequence[Path], repairs: Repairs, *, label: str) -> CocoFile:
    """Reads an annotation file whose file names start from the first of `folders` that has some of them.

    label: what to call the file in `repairs`, where an entry that cannot be used is counted.
    RegardError for what is no COCO file at all.
    """
    whole = read_json(path)
    for name in ("images", "categories"):
        if name not in whole:
            raise RegardError(f"{path}: lacks the key {name!r}; COCO's files have {LISTS}")
    if whole.get("annotations") is None:
        repairs.heal("files have no annotations", label)
        whole = {**whole, "annotations": []}
    images, annotations, categories = (
        Table(path, label, whole, name, repairs) for name in ("images", "annotations", "categories")
    )
    image_ids = images.own_ids()
    folder, file_names = _file_names(images, folders)
    sizes = _sizes(images, folder, file_names)
    images.settle(image_ids, file_names, "files")
    category_ids = categories.own_ids()
    category_names = _category_names(categories, category_ids)
    categories.settle(category_ids, category_names, "names")
    of_image = annotations.references("image_id", images)
    of_category = annotations.references("category_id", categories)
    boxes = _boxes(annotations)
    areas = _areas(annotations, boxes)
    crowd = _crowd(annotations)
    ids = annotations.own_ids()
    kept = annotations.kept
    return CocoFile(
        path=path,
        label=label,
        folder=folder,
        image_ids=_int64(image_ids)[images.kept],
        file_names=list(compress(file_names, images.kept)),
        sizes=sizes[images.kept],
        ids=_int64(ids)[kept],
        of_image=_int64(of_image)[kept],
        of_category=_int64(of_category)[kept],
        boxes_xywh=boxes[kept],
        areas=areas[kept],
        crowd=crowd[kept],
        category_ids=list(compress(category_ids, categories.kept)),
        category_names=list(compress(category_names, categories.kept)),
        more_of_categories=[
            {key: value for key, value in entry.items() if key not in ("id", "name")}
            for entry in compress(categories.entries, categories.kept)
        ],
        rows=(images.kept_rows(), annotations.kept_rows()),
    )


def _file_names(images: Table, folders: Sequence[Path]) -> tuple[Path, list[str]]:
    """The folder, and the images' paths below it: as they are written, or those of the files that they mean."""
    names = images.values("file_name")
    folder = next((folder for folder in folders if any(are_there(names[:20], folder))), folders[-1])
    there = are_there(names, folder)
    if all(there):
        return folder, names
    below = files_below_folder(folder)
    for index in [index for index, found in enumerate(there) if not found]:
        name = names[index]
        if not isinstance(name, str) or not name.strip() or "\0" in name:
            images.leave_out("images have no file name", index, "file_name")
            names[index] = ""
            continue
        found, how = below.find_tail(name) if below.exact else (None, "")
        if found is not None:
            images.heal(f"image {how}", index, "file_name")
            names[index] = found.relative_to(folder).as_posix()
        elif not stays_inside(name):
            images.leave_out(f"file names lead out of {folder}, where no such file is", index, "file_name")
    return folder, names


def files_below_folder(folder: Path) -> FilesBelow:
    return FilesBelow(folder, image_files(folder)[0] if folder.is_dir() else ())


def _sizes(images: Table, folder: Path, file_names: Sequence[str]) -> Int64[np.ndarray, "images 2"]:
    """(height, width) as stated, or where nothing usable is stated, that of the file."""
    columns = []
    for key in ("height", "width"):
        values = images.values(key)
        if set(map(type, values)) != {int} or min(values) < 1 or max(values) > LARGEST_SIDE:
            for index, value in enumerate(values):
                values[index] = as_side(value) or 0
                if type(value) is str and values[index]:
                    images.heal(f"images have a {key} that is written as text", index, key)
        columns.append(values)
    sizes = np.array(columns, dtype=np.int64).reshape(2, -1).T
    for index in np.flatnonzero(images.kept & (sizes == 0).any(axis=1)).tolist():
        try:
            sizes[index] = check_header(folder / file_names[index], ANY_SIZE)
        except BadImage:
            images.leave_out("images have no usable width and height, and cannot be read", index, "file_name")
        else:
            images.heal("images have no usable width and height: those of the files are taken", index, "width")
    return sizes


def _category_names(categories: Table, ids: Sequence[int]) -> list[str]:
    names = []
    for index, (value, identity) in enumerate(zip(categories.values("name"), ids, strict=True)):
        name = as_name(value)
        if name != value:
            kind = "categories have no name, and are called by their id" if name is None else "categories have a number"
            categories.heal(kind if name is None else f"{kind} for a name", index, "name")
        names.append(str(identity) if name is None else name)
    return names


def _boxes(annotations: Table) -> Float64[np.ndarray, "annotations 4"]:
    """(left, top, width, height), around the segmentation where the box itself is not usable."""
    values = annotations.values("bbox")
    boxes = np.full((len(values), 4), np.nan)
    if set(map(type, values)) == {list}:
        numbers = chain.from_iterable(values)
        if set(map(len, values)) == {4} and set(map(type, numbers)) <= {int, float}:
            boxes = _float64(values, boxes)
    unsound = np.flatnonzero(~is_sound(boxes).all(axis=1) | (boxes[:, 2:] <= 0).any(axis=1)).tolist()
    for index in unsound:
        value = values[index]
        box = as_box(value)
        around = None
        if box is None or min(box[2:]) <= 0:
            around = box_of_segments(annotations.entries[index].get("segmentation"))
        if around is not None:
            annotations.heal("boxes are not usable: those around the segmentation are taken", index, "bbox")
        elif box is None:
            annotations.leave_out("boxes are not four finite numbers", index, "bbox")
        elif box != value:
            annotations.heal("boxes are written as text", index, "bbox")
        boxes[index] = around or box or (0, 0, 0, 0)
    return boxes


def _areas(annotations: Table, boxes: Float64[np.ndarray, "annotations 4"]) -> Float64[np.ndarray, " annotations"]:
    """As stated; those of the boxes where nothing is stated that an area can be."""
    values = annotations.values("area")
    types = set(map(type, values))
    otherwise = boxes[:, 2] * boxes[:, 3]
    if types == {object}:
        return otherwise
    areas = _float64(values, np.full(len(values), np.nan)) if types <= {int, float} else np.full(len(values), np.nan)
    for index in np.flatnonzero(~(is_sound(areas) & (areas >= 0))).tolist():
        value, area = values[index], as_number(values[index])
        usable = area is not None and area >= 0
        areas[index] = area if usable else otherwise[index]
        if value is not ABSENT and annotations.kept[index] and not (usable and area == value):
            taken = "are no numbers from 0 on: those of the boxes are taken"
            annotations.heal(f"areas {'are written as text' if usable else taken}", index, "area")
    return areas


def _crowd(annotations: Table) -> Bool[np.ndarray, " annotations"]:
    values = annotations.values("iscrowd")
    types = set(map(type, values))
    if not (types <= {int, bool} and set(values) <= {0, 1}) and types != {object}:
        for index, value in enumerate(values):
            flag = False if value is ABSENT else as_flag(value)
            if flag is None:
                annotations.leave_out("annotations have an iscrowd that is neither 0 nor 1", index, "iscrowd")
            elif value is not ABSENT and flag != value and annotations.kept[index]:
                annotations.heal("annotations have an iscrowd that is text or null", index, "iscrowd")
            values[index] = bool(flag)
    return np.array([value is not ABSENT and value for value in values], dtype=bool)


def _float64(values: Sequence[Any], otherwise: np.ndarray) -> np.ndarray:
    try:
        return np.array(values, dtype=np.float64).reshape(otherwise.shape)
    except OverflowError:  # an integer of hundreds of digits
        return otherwise


def _int64(values: Sequence[int]) -> Int64[np.ndarray, " values"]:
    return np.array(values, dtype=np.int64)
