"""COCO's annotations, mended: what `open_coco` reads, written so that nothing has to be said of it."""

import os
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from regard.data.boxes.coco import count_unused, joined_categories, read_parts, usable
from regard.data.boxes.coco_json import CocoFile
from regard.data.boxes.coco_layout import Annotations, find_parts
from regard.data.boxes.coco_lists import read_json
from regard.data.repairs import Repairs
from regard.errors import RegardError
from regard.files import json_text


def fix_coco(path: Path, out: Path, annotations: Annotations | None = None) -> Repairs:
    """Writes OUT/annotations/instances_{train,val,test}.json, and links to the images in OUT/{train,val,test}.

    Entries that are kept keep all that is stated of them; a value changes where it is mended. Boxes are cut at the edge
    of their image. A file for all images becomes `train`. Raises RegardError, also OSError.
    """
    parts = find_parts(path, annotations or Annotations(), needs_train=False)
    repairs = Repairs()
    test = parts.pop("test", None) if len(parts) > 1 else None
    files = read_parts(path, parts, repairs)
    if test is not None:
        own = Repairs()
        try:
            tested = read_parts(path, {"test": test}, own)
            joined_categories([*files.values(), *tested.values()], Repairs(), skip=True)
        except RegardError as error:  # nothing else needs it
            repairs.pass_over("test parts are left as they are", error)
        else:
            files |= tested
            repairs.add(own)
    names, joined = joined_categories(list(files.values()), repairs, skip=True)
    for part, file in zip(files, joined, strict=True):
        count_unused(file, repairs)
        target = out / "annotations" / f"instances_{part}.json"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json_text(_mended(file, names, repairs)), encoding="utf-8")
        _link(file, out / part, part, repairs)
    return repairs


def _mended(file: CocoFile, names: dict[int, str], repairs: Repairs) -> dict[str, Any]:
    """The file's own object, with what is kept of its three lists."""
    whole = read_json(file.path)
    corners, kept = usable(file, sorted(names))
    image_rows, rows = file.rows
    images = [
        _changed(whole["images"][row], {"id": identity, "file_name": name, "width": size[1], "height": size[0]})
        for row, identity, name, size in zip(
            image_rows, file.image_ids.tolist(), file.file_names, file.sizes.tolist(), strict=True
        )
    ]
    ids = _own_ids(file, kept, repairs)
    annotations = []
    for index in np.flatnonzero(kept).tolist():
        entry, where = whole["annotations"][rows[index]], f"{file.label} annotations[{rows[index]}]"
        box = file.boxes_xywh[index].tolist()
        left, top, right, bottom = corners[index].astype(np.float64).tolist()
        values: dict[str, Any] = {
            "id": ids[index],
            "image_id": int(file.of_image[index]),
            "category_id": int(file.of_category[index]),
        }
        if not np.array_equal(corners[index], np.array([*box[:2], box[0] + box[2], box[1] + box[3]], np.float32)):
            repairs.heal("boxes reach out of their image, and are cut at its edge", where)
            box = [left, top, right - left, bottom - top]
            values["area"] = float(file.areas[index])
        values["bbox"] = box
        if "area" in entry:
            values["area"] = float(file.areas[index])
        if "iscrowd" in entry:
            values["iscrowd"] = int(file.crowd[index])
        annotations.append(_changed(entry, values))
    empty = (file.boxes_xywh[:, 2:] == 0).any(axis=1)
    for index in np.flatnonzero(~kept & empty).tolist():
        repairs.heal("boxes have no width or height, and are left out", f"{file.label} annotations[{rows[index]}]")
    categories = [
        {"id": identity, "name": name} | more
        for identity, name, more in zip(file.category_ids, file.category_names, file.more_of_categories, strict=True)
        if identity in names
    ]
    return whole | {"images": images, "annotations": annotations, "categories": categories}


def _changed(entry: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """The entry with other values where they differ: 7.0 stays 7.0, and "7" becomes 7."""
    return entry | {key: value for key, value in values.items() if key not in entry or entry[key] != value}


def _own_ids(file: CocoFile, kept: np.ndarray, repairs: Repairs) -> list[int]:
    """The ids of annotations; those that repeat are numbered anew."""
    ids, seen = file.ids.tolist(), set()
    used = set(ids)
    fresh = (number for number in count(1) if number not in used)
    for index in np.flatnonzero(kept).tolist():
        if ids[index] in seen:
            ids[index] = next(fresh)
            repairs.heal(
                "annotation ids repeat, and are numbered anew", f"{file.label} annotations[{file.rows[1][index]}]"
            )
        seen.add(ids[index])
    return ids


def _link(file: CocoFile, folder: Path, part: str, repairs: Repairs) -> None:
    """Links to the images that are there; where a system has no links, they are left where they are."""
    folder.mkdir(exist_ok=True)
    for index, name in enumerate(file.file_names):
        source, place = file.file(index), folder / name
        if os.path.lexists(place) or not source.is_file():
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            place.symlink_to(os.path.relpath(source.resolve(), place.parent.resolve()))
        except OSError:
            try:
                place.hardlink_to(source)
            except OSError:
                repairs.pass_over(
                    f"folders of images stay where they are: --set data.{part}_images=FOLDER", file.folder
                )
                return
