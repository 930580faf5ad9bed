"""YOLO's folders: a data.yaml, images, and for each image a text file of labels.

A line is a class and either a box (centre x, centre y, width, height) or the corners of a polygon, all in fractions of
the image. A polygon or an oriented box becomes the box around it.
"""

import math
import os
import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from regard.data.boxes.sources import DetectionData, FileDetectionSource, Objects, in_two_splits
from regard.data.boxes.yolo_config import SPLITS, config_of, integer, names_of
from regard.data.images.files import BadImage, OnBadImage, check_header
from regard.data.images.paths import FilesBelow, stays_inside
from regard.data.images.pixels import ANY_SIZE
from regard.data.images.walk import files_below, image_files
from regard.data.repairs import OnBadAnnotation, Repairs
from regard.errors import RegardError, first_few, first_of
from regard.reading import read_text

# Coordinates beyond these are no fractions of an image, even where a box reaches out of it.
LEAST, MOST = -1.0, 2.0


@dataclass
class _Line:
    """One line of a label file that can be used."""

    label: int
    corners: tuple[float, float, float, float]
    """Left, top, right, bottom, in fractions of the image."""
    text: str


@dataclass
class _Image:
    file: Path
    label_file: Path
    size: tuple[int, int]
    lines: list[_Line] = field(default_factory=list)


@dataclass
class _Yolo:
    """A folder that was read."""

    names: list[str]
    splits: dict[str, list[_Image]]
    has_boxes_first: bool
    """Poses: four numbers of a box, then key points."""


def open_yolo(
    path: Path,
    *,
    channels: int,
    val_fraction: float | None = 0.25,
    split_seed: int = 0,
    on_bad_image: OnBadImage = "stop",
    on_bad_annotation: OnBadAnnotation = "stop",
) -> DetectionData:
    """PATH/data.yaml (or another *.yaml there) with `names`, `train` and `val`; or classes.txt, images and labels.

    `train` and `val` are folders of images, text files that list images, or lists of these. Labels lie where the path
    of an image has `labels` in the place of its last `images`, or beside the image. An image without a label file
    holds no object. `test` is held out where there is no `val`; without both, a split is drawn by seed. With
    `val_fraction` None, for data that are only evaluated on, `train` may be missing. Raises RegardError, and BadImage
    for images that cannot be read under "stop".
    """
    repairs = Repairs()
    address = f"yolo:{path}"
    whole = _read(path, address, repairs, on_bad_image, needs_train=val_fraction is not None)
    repairs.require(address, on_bad_annotation)
    sources = {
        split: FileDetectionSource(
            [image.file for image in images],
            [image.size for image in images],
            [_objects(image) for image in images],
            channels,
        )
        for split, images in whole.splits.items()
    }
    return in_two_splits(
        address,
        whole.names,
        sources["train"],
        sources.get("val"),
        val_fraction=val_fraction,
        split_seed=split_seed,
        repairs=repairs,
    )


def fix_yolo(path: Path, out: Path) -> Repairs:
    """Writes into the folder `out` a data.yaml, the labels that can be used, and links to the images they belong to.

    Images and labels keep their places. Raises RegardError.
    """
    import yaml

    repairs = Repairs()
    whole = _read(path, f"yolo:{path}", repairs, "skip", needs_train=False)
    listed = {}
    for split, images in whole.splits.items():
        for image in images:
            place, label_file = (out / file.relative_to(path) for file in (image.file, image.label_file))
            for made in (place, label_file):
                made.parent.mkdir(parents=True, exist_ok=True)
            if not place.is_symlink():
                place.symlink_to(os.path.relpath(image.file.resolve(), place.parent.resolve()))
            label_file.write_text("".join(f"{line.text}\n" for line in image.lines), encoding="utf-8")
        file = out / f"{split}.txt"
        file.write_text("".join(f"./{image.file.relative_to(path).as_posix()}\n" for image in images), encoding="utf-8")
        listed[split] = file.name
    config = {**listed, "names": dict(enumerate(whole.names))}
    (out / "data.yaml").write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return repairs


def _read(path: Path, address: str, repairs: Repairs, on_bad_image: OnBadImage, *, needs_train: bool) -> _Yolo:
    if not path.is_dir():
        raise RegardError(f"{address}: is not a folder" if path.exists() else f"{address}: does not exist")
    config_file, config = config_of(path, address)
    names = names_of(config_file, config, repairs)
    found, repairs.other_files = image_files(path)
    for ending in (".txt", ".yaml", ".yml"):
        del repairs.other_files[ending]
    files = FilesBelow(path, found)
    parts = {split: _images(path, config, config_file, split, files, repairs) for split in SPLITS}
    held_out = "val" if parts["val"] else "test"
    if parts["train"] is None and (needs_train or not parts[held_out]):
        raise RegardError(f"{config_file}: names no folder of images under 'train'")
    _keep_apart(parts, held_out, config_file, repairs)
    if held_out == "val":
        for file in parts["test"] or []:
            repairs.pass_over("images are of the part 'test', which a training does not use", file)
    bad: list[BadImage] = []
    read: dict[Path, _Image | None] = {}
    whole = _Yolo(names, {"train": []}, "kpt_shape" in config)
    for split, images in (("train", parts["train"]), ("val", parts[held_out])):
        if images:
            # An image that both parts name is read once, so that what is wrong with it is counted once.
            read |= {image: _image(path, image, whole, repairs, bad) for image in images if image not in read}
            whole.splits[split] = [used for image in images if (used := read[image]) is not None]
    if bad and on_bad_image == "stop":
        reason = first_of([error.reason for error in bad], "more that cannot be read")
        leaves = "leaves them out" if len(bad) > 1 else "leaves it out"
        raise BadImage(bad[0].path, f"{reason}; --set data.on_bad_image=skip {leaves}")
    if needs_train:
        _require_labels(address, whole)
    for split in whole.splits:
        if not whole.splits[split] and (parts["train"] is not None or split != "train"):
            raise RegardError(f"{address}: no image of the part {split!r} can be used: {_why(repairs, bad)}")
    _pass_over(path, whole, files, {*(parts["test"] or [])}, repairs)
    return whole


def _require_labels(address: str, whole: _Yolo) -> None:
    """RegardError where no image has a label file: then the labels lie elsewhere, or have other names."""
    images = [image for images in whole.splits.values() for image in images]
    if images and not any(image.label_file.is_file() for image in images):
        raise RegardError(
            f"{address}: none of {len(images)} images has a file of labels; that of {images[0].file} would be "
            f"{images[0].label_file}"
        )


def _keep_apart(parts: dict[str, list[Path] | None], held_out: str, config_file: Path, repairs: Repairs) -> None:
    """Takes the held-out images out of those to train on, unless both parts are the same on purpose."""
    train, held = parts["train"] or [], set(parts[held_out] or [])
    if held < set(train):
        for file in held:
            repairs.heal(
                f"images of {held_out!r} are named under 'train' too, and are held out", f"{config_file}: {file}"
            )
        parts["train"] = [file for file in train if file not in held]


def _why(repairs: Repairs, bad: Sequence[BadImage]) -> str:
    if bad:
        return first_of([str(error) for error in bad], "more that cannot be read")
    places = [where for kind in repairs.left_out.values() for where in kind]
    return f"see {places[0]}" if places else "the folder holds no images"


def _images(
    path: Path, config: dict[str, Any], config_file: Path, split: str, files: FilesBelow, repairs: Repairs
) -> list[Path] | None:
    """The image files of a part; None where there is no such part."""
    stated = next((config[name] for name in SPLITS[split] if config.get(name) not in (None, "", "null", "~")), None)
    if stated is None:
        usual = [path / name / "images" for name in SPLITS[split]] + [path / "images" / name for name in SPLITS[split]]
        folder = next((folder for folder in usual if folder.is_dir()), None)
        return None if folder is None else _below(folder, files)
    images: list[Path] = []
    for entry in stated if isinstance(stated, list) else [stated]:
        if not isinstance(entry, str):
            raise RegardError(f"{config_file}: {split!r} must be a folder of images, a text file, or a list of these")
        place = _place(path, config, entry)
        if place is None:
            folders = sorted(inner.name for inner in path.iterdir() if inner.is_dir())
            what = f"{split!r} is {entry!r}, but {path} holds no such folder or list"
            there = f"it holds {first_few(folders, 8) or 'no folder'}"
            if split == "train":
                raise RegardError(f"{config_file}: {what}; {there}")
            repairs.heal("parts that are named are not there", f"{config_file}: {what}; {there}")
            continue
        images += _below(place, files) if place.is_dir() else _listed(place, path, files, repairs)
    return list(dict.fromkeys(images))


def _place(path: Path, config: dict[str, Any], stated: str) -> Path | None:
    """The folder or list that an entry means. It lies in PATH, wherever the author's own lay."""
    parts = [part for part in stated.replace("\\", "/").split("/") if part not in ("", ".")]
    base = [part for part in str(config.get("path", "")).replace("\\", "/").split("/") if part not in ("", ".")]
    # From `path` in the file, from the file, and, for Roboflow's ../train/images and for paths of another machine,
    # each tail of the path.
    tried = [[*base, *parts], parts, *(parts[start:] for start in range(1, len(parts)))]
    for tail in tried:
        place = path.joinpath(*tail)  # os.path says no to names that no system takes; Path's own tests raise
        there = os.path.isdir(place) or (os.path.isfile(place) and place.suffix == ".txt")  # noqa: PTH112, PTH113
        if there and stays_inside(posixpath.normpath("/".join(tail))):
            return place
    return None


def _below(folder: Path, files: FilesBelow) -> list[Path]:
    return [file for file in files.exact.values() if file.is_relative_to(folder)]


def _listed(list_file: Path, path: Path, files: FilesBelow, repairs: Repairs) -> list[Path]:
    """The images that a text file lists, one a line."""
    below = list_file.parent.relative_to(path)
    images = []
    for number, line in enumerate(read_text(list_file).splitlines(), start=1):
        stated = line.strip()
        if not stated:
            continue
        name = (below / stated).as_posix() if (below / stated).as_posix() in files.exact else stated
        found, how = files.find(name.removeprefix("./"))
        if found is None:
            where = f"{list_file}, line {number}: {stated} ({files.hint(stated)})"
            repairs.leave_out("listed images are not there", where)
            continue
        if how and not stated.startswith(("./", "/")):
            repairs.heal(how, f"{list_file}, line {number}")
        images.append(found)
    return images


def _label_file(image: Path, path: Path) -> Path:
    """Where `labels` stands for the last `images` of the path below PATH; else beside the image."""
    parts = list(image.relative_to(path).parts)
    folders = parts[:-1]
    beside = image.with_suffix(".txt")
    if "images" not in folders:
        # PATH itself may be the folder of images, with the labels beside it.
        return beside
    last = len(folders) - 1 - folders[::-1].index("images")
    parts[last] = "labels"
    mirrored = path.joinpath(*parts).with_suffix(".txt")
    return beside if beside.is_file() and not mirrored.is_file() else mirrored


def _image(path: Path, file: Path, whole: _Yolo, repairs: Repairs, bad: list[BadImage]) -> _Image | None:
    """An image and its labels; None where one of the two files cannot be read."""
    label_file = _label_file(file, path)
    image = _Image(file, label_file, (1, 1))
    if label_file.exists():
        try:
            text = read_text(label_file)
        except RegardError as error:
            repairs.leave_out("label files of images cannot be read", str(error))
            return None
        image.lines = list(_lines(text, label_file, whole, repairs))
    try:
        image.size = check_header(file, ANY_SIZE)
    except BadImage as error:  # under "skip" the image is left out later, with its reason
        bad.append(error)
        image.lines = []
    return image


def _lines(text: str, file: Path, whole: _Yolo, repairs: Repairs) -> Iterator[_Line]:
    seen = set()
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{file}, line {number}"
        parsed = _parsed(line.split(), where, whole, repairs)
        if isinstance(parsed, str):
            repairs.leave_out(parsed, f"{where}: {line.strip()[:60]}")
        elif parsed.corners[0] == parsed.corners[2] or parsed.corners[1] == parsed.corners[3]:
            repairs.heal("boxes have no width or height, and are left out", where)
        elif (parsed.label, parsed.corners) in seen:
            repairs.heal("labels stand twice, and count once", where)
        else:
            seen.add((parsed.label, parsed.corners))
            yield parsed


def _parsed(words: Sequence[str], where: str, whole: _Yolo, repairs: Repairs) -> _Line | str:
    """The label of a line, or the kind of fault."""
    label = integer(words[0])
    if label is None:
        return "labels do not begin with the number of a class"
    if not 0 <= label < len(whole.names):
        return f"labels have a class outside of 0 to {len(whole.names) - 1}"
    try:
        numbers = [float(word) for word in words[1:]]
    except ValueError:
        return "labels have something else than numbers"
    if whole.has_boxes_first:
        numbers = numbers[:4]
    elif len(numbers) == 5:
        repairs.heal("labels have a sixth number, a score, which is not used", where)
        numbers = numbers[:4]
    if len(numbers) < 4 or len(numbers) % 2:
        return "labels have a wrong count of numbers: a class and 4 of a box, or the corners of a polygon, are needed"
    if not all(map(math.isfinite, numbers)):
        return "labels have numbers that are not finite"
    if not all(LEAST <= number <= MOST for number in numbers):
        return "labels are no fractions of their image, from 0 to 1"
    if len(numbers) == 4:
        x, y, width, height = numbers
        corners = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    else:
        corners = (min(numbers[::2]), min(numbers[1::2]), max(numbers[::2]), max(numbers[1::2]))
    left, top, right, bottom = corners
    if right < left or bottom < top:
        return "boxes have a negative width or height"
    if left >= 1 or top >= 1 or right <= 0 or bottom <= 0:
        return "boxes lie outside of their image"
    return _Line(label, corners, " ".join([str(label), *words[1 : 1 + len(numbers)]]))


def _objects(image: _Image) -> Objects:
    height, width = image.size
    boxes = torch.tensor([line.corners for line in image.lines], dtype=torch.float64).view(-1, 4)
    boxes = (boxes * torch.tensor([width, height, width, height])).float()
    labels = torch.tensor([line.label for line in image.lines], dtype=torch.int64)
    return Objects(boxes, labels, (boxes[:, 2:] - boxes[:, :2]).prod(1), torch.zeros(len(labels), dtype=torch.bool))


def _pass_over(path: Path, whole: _Yolo, files: FilesBelow, test: set[Path], repairs: Repairs) -> None:
    """Counts the images that are of no part, and the text files among the labels that are of no image."""
    used = test | {image.file for images in whole.splits.values() for image in images}
    for file in files.exact.values():
        if file not in used:
            repairs.pass_over("image files are in no part that is named, or cannot be used", file)
    label_files = {_label_file(file, path) for file in files.exact.values()}
    folders = {file.parent for file in label_files} - {path}
    for file in files_below(path, ".txt"):
        if file.parent in folders and file not in label_files:
            repairs.pass_over("text files among the labels belong to no image", file)
