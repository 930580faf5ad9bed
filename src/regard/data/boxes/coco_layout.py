"""Where COCO's files lie: the annotations of each part of a set, and the folders that their images may be in."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from regard.errors import RegardError, first_few

# What the parts of a set are called: folders of images, and what their annotation files are named after.
PARTS = {
    "train": ("train", "train2017", "train2014", "training"),
    "val": ("val", "val2017", "val2014", "valid", "validation"),
    "test": ("test", "test2017", "testing"),
}
_ROBOFLOW = "_annotations.coco.json"
# Names of a part's file beside COCO's own, which come first; {} is the name of the part.
_USUAL = (
    "{}/" + _ROBOFLOW,
    "annotations/{}.json",
    "annotations/{}_annotations.json",
    "annotations/annotations_{}.json",
    "instances_{}.json",
    "{}.json",
    "{}_annotations.json",
    "annotations_{}.json",
    "{}/annotations.json",
    "{}/labels.json",
    "{}/result.json",
    "{}/{}.json",
    "labels/{}.json",
)
# Names of a file for all images, as CVAT, Roboflow, labelme2coco, Label Studio and FiftyOne give them.
_OF_ALL = (
    "annotations/instances_default.json",
    _ROBOFLOW,
    "annotations.json",
    "result.json",
    "labels.json",
    "instances_default.json",
    "annotations.coco.json",
    "instances.json",
    "dataset.json",
    "coco.json",
    "annotations/annotations.json",
    "annotations/instances.json",
)
_IMAGES = ("images", "data", "img", "imgs", "JPEGImages", "images/default")
_LABELS = ("annotations", "Annotations", "labels", "json")  # folders of annotation files beside those of images
# COCO's files about the same images for other tasks.
_OTHER_TASKS = ("captions_", "person_keypoints_", "panoptic_", "stuff_", "image_info_")


@dataclass(frozen=True)
class Annotations:
    """Paths of COCO's files, where they are not in their usual places."""

    train_annotations: Path | None = None
    train_images: Path | None = None
    val_annotations: Path | None = None
    val_images: Path | None = None


@dataclass(frozen=True)
class CocoPart:
    """An annotation file, and the folders that its images may be in; the last is taken if no image is there."""

    file: Path
    folders: tuple[Path, ...]


def find_parts(path: Path, given: Annotations, *, needs_train: bool = True) -> dict[str, CocoPart]:
    """The annotation files of `train`, and of `val` and `test` where there are such.

    path: a folder, or one file for all. needs_train: whether `train` may be missing where another part is there.
    RegardError where nothing says what to train on; it names what there is.
    """
    address = f"coco:{path}"
    if path.is_file():
        files = {"train": given.train_annotations or path}
        if given.val_annotations is not None:
            files["val"] = given.val_annotations
        base = path.parent
    elif not path.is_dir():
        raise RegardError(f"{address}: is no regular file" if path.exists() else f"{address}: no such folder or file")
    else:
        usual = {part: next(_usual(path, part), None) for part in PARTS}
        usual["train"] = given.train_annotations or usual["train"]
        if usual["train"] is None and (needs_train or not (given.val_annotations or any(usual.values()))):
            usual["train"] = _file_of_all(path, [file for file in usual.values() if file is not None])
        usual["val"] = given.val_annotations or usual["val"]
        files = {part: file for part, file in usual.items() if file is not None}
        base = path
    stated = {"train": given.train_images, "val": given.val_images}
    return {part: _part(base, file, part, stated.get(part)) for part, file in files.items()}


def other_files(path: Path, parts: Sequence[CocoPart]) -> list[Path]:
    """Annotation files beside those of the parts that nothing reads."""
    read = {part.file.resolve() for part in parts}
    if path.is_file():
        return []
    found = [*path.glob("*.json"), *path.glob("annotations/*.json"), *path.glob(f"*/{_ROBOFLOW}")]
    return sorted(
        file
        for file in found
        if file.resolve() not in read and not file.name.startswith((".", *_OTHER_TASKS)) and file.is_file()
    )


def annotation_files(path: Path) -> list[Path]:
    """The JSON files in a folder that may be annotations of its images."""
    of_parts = [file for part in PARTS for file in _usual(path, part)]
    return list(
        dict.fromkeys(
            [*of_parts, *(path / name for name in _OF_ALL if (path / name).is_file()), *other_files(path, ())]
        )
    )


def _usual(path: Path, part: str) -> Iterator[Path]:
    names = [f"annotations/instances_{name}.json" for name in PARTS[part]]
    names += [usual.format(*[name] * 2) for usual in _USUAL for name in PARTS[part]]
    return (path / name for name in names if (path / name).is_file())


def _file_of_all(path: Path, others: Sequence[Path]) -> Path:
    """The file that has all images, in a folder without one to train on."""
    usual = [path / name for name in _OF_ALL if (path / name).is_file()]
    found = usual or ([] if others else other_files(path, ()))
    if usual or len(found) == 1:
        return found[0]
    others = others or found
    there = f"; there are {first_few([str(file.relative_to(path)) for file in others])}" if others else ""
    raise RegardError(
        f"coco:{path}: has no annotations/instances_train.json (nor instances_train2017.json, or one file for all "
        f"images){there}; name the file with --set data.train_annotations=FILE, or as coco:FILE.json"
    )


def _part(base: Path, file: Path, part: str, images: Path | None) -> CocoPart:
    """Folders named after the file or after the part, and others that tools use; at last the one to fall back to."""
    if images is not None:
        return CocoPart(file, (images,))
    stem = file.stem.removeprefix("instances_")
    names = sorted({*PARTS[part], stem}, key=lambda name: (name != stem, (*PARTS[part], stem).index(name)))
    of_part = [folder / name for folder in (base, base / "images") for name in names]
    beside = [file.parent] if file.name == _ROBOFLOW else []
    bases = dict.fromkeys((base, file.parent, *((file.parent.parent,) if file.parent.name in _LABELS else ())))
    others = [folder / name for folder in bases for name in (*names, *(f"images/{name}" for name in names))]
    others += [folder / name for folder in bases for name in _IMAGES]
    tried = [*beside, *of_part, base / "images", base, *others, *bases]
    listed: dict[Path, list[Path]] = {}
    folders = tuple(dict.fromkeys(folder for wanted in tried for folder in _spelt(wanted, listed)))
    fallback = next((folder for folder in (*beside, *of_part, base / "images") if folder.is_dir()), base)
    return CocoPart(file, (*folders, fallback))


def _spelt(folder: Path, listed: dict[Path, list[Path]]) -> list[Path]:
    """The folder, whatever its case. `listed` keeps the folders in each one that was looked into."""
    if folder.is_dir():
        return [folder]
    parent = folder.parent
    if parent not in listed:
        try:
            listed[parent] = [Path(entry.path) for entry in os.scandir(parent) if entry.is_dir()]
        except OSError:
            listed[parent] = []
    return [other for other in listed[parent] if other.name.lower() == folder.name.lower()]
