"""`coco:PATH`: images with boxes in COCO's format, one JSON file for each split, and folders of images."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from regard.data.boxes.coco_json import CocoFile, read_coco_file
from regard.data.boxes.sources import DetectionData, DetectionSource, Objects, SelectedDetectionSource, split_detection
from regard.data.images.files import BadImage, read_image
from regard.errors import RegardError

# The names of a split's folder of images; its annotation file is named after it.
SPLITS = {"train": ("train", "train2017"), "val": ("val", "val2017", "valid")}


@dataclass(frozen=True)
class Annotations:
    """Paths of COCO's files, where they are not in their usual places."""

    train_annotations: Path | None = None
    train_images: Path | None = None
    val_annotations: Path | None = None
    val_images: Path | None = None


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


def other_size(size: tuple[int, int], stated: tuple[int, int]) -> str:
    """The message for an image whose (height, width) is not the stated one."""
    turned = ", perhaps as it lies in the file before its EXIF orientation turns it" if size == stated[::-1] else ""
    return f"is {size[1]} × {size[0]} pixels, and stated as {stated[1]} × {stated[0]}{turned}"


def open_coco(
    path: Path,
    *,
    channels: int,
    val_fraction: float = 0.25,
    split_seed: int = 0,
    annotations: Annotations | None = None,
) -> DetectionData:
    """PATH/train and val (or train2017 and val2017) with PATH/annotations/instances_train[2017].json and so on.

    Files that lie elsewhere are named in `annotations`. Without a file for `val`, a split is drawn by seed. Labels
    count the categories of both files in the order of their ids; those of one id must have one name. Annotations that
    belong to no image or category, and boxes without extent in their image, are left out; `check_detection` reports
    them. Raises RegardError for what cannot be read as COCO's.
    """
    address = f"coco:{path}"
    train, val = _read_splits(path, annotations or Annotations())
    names = _joined_categories([train] if val is None else [train, val])
    ids = tuple(sorted(names))
    class_names = tuple(names[identity] for identity in ids)
    source: DetectionSource = CocoImages(train, ids, channels)
    if val is not None:
        held_out: DetectionSource = CocoImages(val, ids, channels)
    else:
        files = [train.file(index) for index in range(len(source))]
        kept, held = split_detection(
            len(source), val_fraction=val_fraction, split_seed=split_seed, where=address, files=files
        )
        source, held_out = SelectedDetectionSource(source, kept), SelectedDetectionSource(source, held)
    return DetectionData(
        address, class_names, ids, source, held_out, has_val=val is not None, can_flip=can_mirror(class_names)
    )


def can_mirror(class_names: Sequence[str]) -> bool:
    """False where a mirror image belongs to another class or to none: characters, and classes called left or right."""
    words = {word for name in class_names for word in name.lower().replace("-", " ").replace("_", " ").split()}
    return not words & {"left", "right"} and any(len(name) > 1 for name in class_names)


def _read_splits(path: Path, given: Annotations) -> tuple[CocoFile, CocoFile | None]:
    """The files for training and for evaluation; None where there is none for it."""
    if not path.is_dir():
        raise RegardError(f"coco:{path}: is not a folder" if path.exists() else f"coco:{path}: no such folder")
    train_file = given.train_annotations or _annotation_file(path, "train")
    if train_file is None:
        raise RegardError(
            f"coco:{path}: has no annotations/instances_train.json (nor instances_train2017.json); "
            "name the file with --set data.train_annotations=FILE"
        )
    train = read_coco_file(train_file, given.train_images or _image_folder(path, train_file, "train"))
    val_file = given.val_annotations or _annotation_file(path, "val")
    if val_file is None:
        return train, None
    return train, read_coco_file(val_file, given.val_images or _image_folder(path, val_file, "val"))


def _annotation_file(path: Path, split: str) -> Path | None:
    names = [path / "annotations" / f"instances_{name}.json" for name in SPLITS[split]]
    names += [path / name / "_annotations.coco.json" for name in SPLITS[split]]  # as Roboflow exports them
    return next((name for name in names if name.exists()), None)


def _image_folder(path: Path, annotations: Path, split: str) -> Path:
    """The folder named after the file or after the split; else PATH/images or PATH, which serve both splits."""
    if annotations.name == "_annotations.coco.json":
        return annotations.parent
    names = sorted(SPLITS[split], key=lambda name: annotations.stem != f"instances_{name}")
    folders = [folder / name for folder in (path, path / "images") for name in names]
    return next((folder for folder in (*folders, path / "images") if folder.is_dir()), path)


def _joined_categories(files: Sequence[CocoFile]) -> dict[int, str]:
    """Names by id, of the files together; the first counts where one file has an id twice."""
    joined: dict[int, str] = {}
    for file in files:
        names = dict(zip(reversed(file.category_ids), reversed(file.category_names), strict=True))
        for identity, name in names.items():
            if joined.setdefault(identity, name) != name:
                raise RegardError(
                    f"{file.path}: category {identity} is {name!r}, and {joined[identity]!r} in {files[0].path}; "
                    "both files need the same categories"
                )
    if not joined:
        raise RegardError(f"{files[0].path}: has no categories; at least one is needed")
    return joined


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


def _objects(file: CocoFile, category_ids: Sequence[int]) -> Sequence[Objects]:
    """The usable annotations, image by image."""
    place, known = file.places(), np.isin(file.of_category, category_ids)
    extent = np.append(file.sizes, [[0, 0]], axis=0)[place][:, ::-1]  # no extent where there is no image
    start = np.clip(file.boxes_xywh[:, :2], 0, extent)
    end = np.clip(file.boxes_xywh[:, :2] + file.boxes_xywh[:, 2:], 0, extent)
    corners = np.concatenate([start, end], axis=1).astype(np.float32)
    usable = np.flatnonzero((place >= 0) & known & (corners[:, 2:] > corners[:, :2]).all(axis=1))
    order = usable[np.argsort(place[usable], kind="stable")]
    columns = (
        torch.from_numpy(corners[order]),
        torch.from_numpy(np.searchsorted(category_ids, file.of_category[order]).astype(np.int64)),
        torch.from_numpy(file.areas[order].astype(np.float32)),
        torch.from_numpy(file.crowd[order]),
    )
    return _ObjectsOfImages(columns, np.bincount(place[order], minlength=len(file.image_ids)).cumsum().tolist())
