"""`coco:PATH`: images with boxes in COCO's format, one JSON file for each part or one for all, and their images."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from reprlib import repr as shortened
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64, UInt8
from torch import Tensor

from regard.data.boxes.coco_json import CocoFile, read_coco_file
from regard.data.boxes.coco_layout import Annotations, CocoPart, find_parts, other_files
from regard.data.boxes.coco_lists import collecting_no_cycles
from regard.data.boxes.sources import DetectionData, DetectionSource, Objects, SelectedDetectionSource, split_detection
from regard.data.images.digests import digest_of_file
from regard.data.images.files import BadImage, read_image
from regard.data.repairs import OnBadAnnotation, Repairs
from regard.errors import RegardError


class CocoImages(DetectionSource):
    """The images of one file, with the usable boxes: clipped to the image, with a width and height above 0."""

    def __init__(self, file: CocoFile, category_ids: Sequence[int], channels: int) -> None:
        self.file, self.channels = file, channels
        self.image_ids = file.image_ids.tolist()
        self.sizes = [(height, width) for height, width in file.sizes.tolist()]
        self.objects = _objects(file, category_ids)

    def read(self, index: int) -> UInt8[Tensor, "channels height width"]:
        """Image `index`. BadImage also where its size is not the stated one: the boxes would lie elsewhere."""
        image = read_image(self.file.file(index), self.channels, self.decoding)
        size = (image.shape[1], image.shape[2])
        if size != self.sizes[index]:
            raise BadImage(self.name(index), other_size(size, self.sizes[index]))
        return image

    def name(self, index: int) -> str:
        return str(self.file.file(index))

    def digest(self, index: int) -> str:
        return digest_of_file(self.file.file(index))


def other_size(size: tuple[int, int], stated: tuple[int, int]) -> str:
    """The message for an image whose (height, width) is not the stated one."""
    turned = ", perhaps as it lies in the file before its EXIF orientation turns it" if size == stated[::-1] else ""
    return f"is {size[1]} × {size[0]} pixels, and stated as {stated[1]} × {stated[0]}{turned}"


def open_coco(
    path: Path,
    *,
    channels: int,
    val_fraction: float | None = 0.25,
    split_seed: int = 0,
    annotations: Annotations | None = None,
    on_bad_annotation: OnBadAnnotation = "stop",
) -> DetectionData:
    """A folder with annotations/instances_train[2017].json, instances_val[2017].json and folders of images, or a file.

    Other usual names and places are found too (`coco_layout`), and `annotations` names files that lie elsewhere. Where
    there is no file for `val`, one for `test` is held out if it has boxes; without both a split is drawn by seed. With
    `val_fraction` None, for data that are only evaluated on, there may be no file for `train`.

    Labels count the categories of both files in the order of their ids. What has one meaning is mended, and counted in
    `repairs`. What has none is an error, or is left out, as `on_bad_annotation` says: entries that cannot be read are
    counted in `repairs` too; annotations of no image or category, and boxes outside of their image or without extent,
    stay in the columns, where `check_detection` finds them. Raises RegardError, also for what cannot be read as COCO's.
    """
    address = f"coco:{path}"
    parts = find_parts(path, annotations or Annotations(), needs_train=val_fraction is not None)
    repairs = Repairs()
    test = None if "val" in parts else parts.get("test")
    files = read_parts(path, {name: part for name, part in parts.items() if part is test or name != "test"}, repairs)
    if test is not None and not len(files["test"].ids) and "train" in files:
        del files["test"]  # its boxes are the author's secret
    if not any(file.category_ids for file in files.values()):
        raise RegardError(f"{next(iter(files.values())).path}: has no categories; at least one is needed")
    for file in files.values():
        count_unused(file, repairs)
    repairs.require(address, on_bad_annotation)
    names, joined = joined_categories(list(files.values()), repairs, skip=on_bad_annotation == "skip")
    if "test" in parts and "test" not in files:
        kind = "annotation files are of a test part, which is neither trained on nor held out"
        repairs.pass_over(kind, parts["test"].file)
    for other in other_files(path, list(parts.values())):
        repairs.pass_over("annotation files are not read", other)
    ids = tuple(sorted(names))
    class_names = tuple(names[identity] for identity in ids)
    sources = [CocoImages(file, ids, channels) for file in joined]
    whole, has_val = sources[0], len(sources) == 2 or "train" not in files
    if has_val:
        train: DetectionSource = whole if len(sources) == 2 else SelectedDetectionSource(whole, [])
        val: DetectionSource = sources[-1]
    else:
        paths = [joined[0].file(index) for index in range(len(whole))]
        kept, held = split_detection(
            len(whole), val_fraction=val_fraction, split_seed=split_seed, where=address, files=paths
        )
        train, val = SelectedDetectionSource(whole, kept), SelectedDetectionSource(whole, held)
    return DetectionData(address, class_names, ids, train, val, has_val, can_mirror(class_names), repairs=repairs)


def read_parts(path: Path, parts: Mapping[str, CocoPart], repairs: Repairs) -> dict[str, CocoFile]:
    """The files of several parts, the categories of each with ids of its own."""
    base = path if path.is_dir() else path.parent
    read = {}
    for name, part in parts.items():
        inside = part.file.is_relative_to(base)
        label = str(part.file.relative_to(base) if inside else part.file)
        with collecting_no_cycles():
            read[name] = read_coco_file(part.file, part.folders, repairs, label=label)
    return read


def count_unused(file: CocoFile, repairs: Repairs) -> None:
    """Counts annotations that can be read but not used: those of no image or category, and boxes that are nowhere."""
    place = file.places()
    extent = _extent(file, place)
    start, sides = file.boxes_xywh[:, :2], file.boxes_xywh[:, 2:]
    turned = (sides < 0).any(axis=1)
    outside = ((start >= extent) | (start + sides <= 0)).any(axis=1)
    kinds = {
        "annotations name no image of the file": place < 0,
        "annotations name no category of the file": ~np.isin(file.of_category, file.category_ids),
        "boxes are turned inside out": turned,
        "boxes lie wholly outside of their image": (place >= 0) & (sides > 0).all(axis=1) & outside,
    }
    for kind, chosen in kinds.items():
        for index in np.flatnonzero(chosen).tolist():
            repairs.unused.setdefault(kind, []).append(f"{file.label} annotations[{file.rows[1][index]}]")


def _extent(file: CocoFile, place: Int64[np.ndarray, " annotations"]) -> Int64[np.ndarray, "annotations 2"]:
    """(width, height) of each annotation's image; 0 where there is no image."""
    return np.append(file.sizes, [[0, 0]], axis=0)[place][:, ::-1]


def can_mirror(class_names: Sequence[str]) -> bool:
    """False where a mirror image belongs to another class or to none: characters, and classes called left or right."""
    words = {word for name in class_names for word in name.lower().replace("-", " ").replace("_", " ").split()}
    return not words & {"left", "right"} and any(len(name) > 1 for name in class_names)


def joined_categories(
    files: Sequence[CocoFile], repairs: Repairs, *, skip: bool
) -> tuple[dict[int, str], list[CocoFile]]:
    """Names by id, of the files together, and the files with these ids.

    Files whose ids differ are joined by their names, if those are the same; else an id with two names is an error, or
    with `skip` left out of all files but the first. Categories of one name are one class if nothing else differs. A
    category that is another's supercategory, as the root that Roboflow writes, is no class unless it has objects.
    """
    names: dict[int, str] = {}
    more: dict[int, dict[str, Any]] = {}
    joined = []
    for file in files:
        own = dict(zip(reversed(file.category_ids), reversed(file.category_names), strict=True))
        conflict = next((identity for identity, name in own.items() if names.get(identity, name) != name), None)
        if conflict is not None:
            by_name = {name: identity for identity, name in names.items()}
            if (
                len(by_name) == len(names)
                and len(set(own.values())) == len(own)
                and by_name.keys() >= set(own.values())
            ):
                repairs.heal("files have other ids for the same names of categories: the names count", file.path)
                file = _renumbered(file, {identity: by_name[name] for identity, name in own.items()})
            elif skip:
                file = _without_conflicts(file, names, repairs)
            else:
                raise RegardError(
                    f"{file.path}: category {conflict} is {shortened(own[conflict])}, and {shortened(names[conflict])} "
                    f"in {files[0].path}; both files need the same categories; --set data.on_bad_annotation=skip "
                    "leaves out what is of such a category here"
                )
        names = dict(zip(reversed(file.category_ids), reversed(file.category_names), strict=True)) | names
        more = dict(zip(reversed(file.category_ids), reversed(file.more_of_categories), strict=True)) | more
        joined.append(file)
    of_name = defaultdict(list)
    for identity in sorted(names):
        of_name[names[identity], json.dumps(more[identity], sort_keys=True)].append(identity)
    twins = {twin: same[0] for same in of_name.values() for twin in same[1:]}
    if twins:
        for twin, identity in twins.items():
            repairs.heal("categories have the name of another, and are one class with it", f"{twin} is {identity}")
        joined = [_renumbered(file, twins) for file in joined]
        names = {identity: name for identity, name in names.items() if identity not in twins}
    used = set(np.unique(np.concatenate([file.of_category for file in joined])).tolist())
    roots = [
        identity
        for identity, name in names.items()
        if identity not in used
        and any(of.get("supercategory") == name for other, of in more.items() if other not in (identity, *twins))
    ]
    for root in roots if len(roots) < len(names) else ():
        repairs.heal("categories are no classes: others belong to them, and no object", f"{names.pop(root)} ({root})")
    return names, joined


def _without_conflicts(file: CocoFile, names: Mapping[int, str], repairs: Repairs) -> CocoFile:
    """The file without categories that have another name elsewhere, so that annotations name no category there."""
    kept = []
    for index, (identity, name) in enumerate(zip(file.category_ids, file.category_names, strict=True)):
        if names.get(identity, name) == name:
            kept.append(index)
        else:
            where = f"{file.label}: {identity} is {shortened(name)}, and {shortened(names[identity])} elsewhere"
            repairs.leave_out("categories have another name in another file", where)
    return _with_categories(file, kept, file.category_ids)


def _with_categories(file: CocoFile, kept: Sequence[int], ids: Sequence[int]) -> CocoFile:
    """The file with some of its categories, which may have other ids now."""
    return replace(
        file,
        category_ids=[ids[index] for index in kept],
        category_names=[file.category_names[index] for index in kept],
        more_of_categories=[file.more_of_categories[index] for index in kept],
    )


def _renumbered(file: CocoFile, ids: dict[int, int]) -> CocoFile:
    """The file with other ids of categories; those that become one are listed once."""
    was = np.array(list(ids), dtype=np.int64)
    order = np.argsort(was)
    become = np.array(list(ids.values()), dtype=np.int64)[order]
    near = np.minimum(np.searchsorted(was[order], file.of_category), len(was) - 1)
    of_category = np.where(was[order][near] == file.of_category, become[near], file.of_category)
    listed = [ids.get(own, own) for own in file.category_ids]
    first = [index for index, own in enumerate(listed) if listed.index(own) == index or own not in ids.values()]
    return replace(_with_categories(file, first, listed), of_category=of_category)


class _ObjectsOfImages(Sequence[Objects]):
    """The objects of image i, cut out of the columns of all: a worker process gets four tensors, not millions."""

    def __init__(self, columns: tuple[Tensor, ...], ends: list[int]) -> None:
        self.columns, self.ends = columns, ends

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[number] for number in range(len(self))[index]]
        number = range(len(self))[index]
        start, end = self.ends[number - 1] if number else 0, self.ends[number]
        return Objects(*(column[start:end] for column in self.columns))


def usable(
    file: CocoFile, category_ids: Sequence[int]
) -> tuple[Float32[np.ndarray, "annotations 4"], Bool[np.ndarray, " annotations"]]:
    """Corners of the boxes, clipped to their images, and which annotations are of a class and have an extent there."""
    place, known = file.places(), np.isin(file.of_category, category_ids)
    extent = _extent(file, place)
    start = np.clip(file.boxes_xywh[:, :2], 0, extent)
    end = np.clip(file.boxes_xywh[:, :2] + file.boxes_xywh[:, 2:], 0, extent)
    corners = np.concatenate([start, end], axis=1).astype(np.float32)
    return corners, (place >= 0) & known & (corners[:, 2:] > corners[:, :2]).all(axis=1)


def _objects(file: CocoFile, category_ids: Sequence[int]) -> Sequence[Objects]:
    """The usable annotations, image by image."""
    place, (corners, chosen) = file.places(), usable(file, category_ids)
    kept = np.flatnonzero(chosen)
    order = kept[np.argsort(place[kept], kind="stable")]
    columns = (
        torch.from_numpy(corners[order]),
        torch.from_numpy(np.searchsorted(category_ids, file.of_category[order]).astype(np.int64)),
        torch.from_numpy(file.areas[order].astype(np.float32)),
        torch.from_numpy(file.crowd[order]),
    )
    return _ObjectsOfImages(columns, np.bincount(place[order], minlength=len(file.image_ids)).cumsum().tolist())
