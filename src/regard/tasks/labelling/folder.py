"""A folder of annotations with the images they belong to, as labelling tools import it and `--data` opens it."""

import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from regard.data import image_endings
from regard.errors import RegardError, unknown
from regard.files import whole_folder
from regard.tasks.detection.result import Detections
from regard.tasks.labelling.formats import Classes, Labelled, coco_text, csv_text, voc_text, yolo_text

# Where a format has its images.
IMAGES = {"coco": "images", "yolo": "images", "voc": "JPEGImages", "csv": "images"}
# What would end a line of a list, act as a path, or is not UTF-8; and a dot in front, which hides a file.
_UNSAFE = re.compile("^\\.+|[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\\\\/:]")


def require_format(name: str) -> None:
    """RegardError unless it is one of the formats."""
    if name not in IMAGES:
        raise unknown("format of annotations", name, IMAGES)


def address_of(out: Path, form: str) -> str:
    """What `--data` opens."""
    return f"csv:{out / 'labels.csv'}" if form == "csv" else f"{form}:{out}"


def names_in_folder(files: Sequence[Path]) -> list[str]:
    """A name for each image, with a stem of its own: labels are called after it, and tools look in one folder alone.

    It is the file's own name where that can be; of several a.jpg, those after the first have their folder's in front.
    """
    taken: set[str] = set()
    names = []
    for file in files:
        suffix = file.suffix if file.suffix.lower() in image_endings() else f"{file.suffix}.jpg"
        stem = _UNSAFE.sub("_", file.stem)
        if stem.casefold() in taken:
            stem = f"{_UNSAFE.sub('_', file.absolute().parent.name)}-{stem}"
        whole, number = stem, 1
        while whole.casefold() in taken:
            number += 1
            whole = f"{stem}-{number}"
        taken.add(whole.casefold())
        names.append(f"{whole}.{_UNSAFE.sub('_', suffix[1:])}")
    return names


def write_labels(
    images: Sequence[Labelled], files: Sequence[Path], classes: Classes, out: Path, form: str, *, copy: bool = False
) -> None:
    """Writes the annotations of `images`, whose files are `files`, in their order, into a new folder.

    coco: annotations/instances_default.json, images/. yolo: data.yaml, classes.txt, images/, labels/, and train.txt
    where the images are sorted. voc: Annotations/, ImageSets/Main/train.txt, JPEGImages/. csv: labels.csv, images/.
    Images are hard links where the file system has them, and copies elsewhere or with `copy`. RegardError where the
    folder is not new or cannot be written.
    """
    require_format(form)
    with whole_folder(out) as folder:
        place = folder / IMAGES[form]
        place.mkdir()
        for image, file in zip(images, files, strict=True):
            _put(file, place / image.name, copy)
        _WRITERS[form](images, classes, folder)


def _put(file: Path, place: Path, copy: bool) -> None:
    """Another name of the same file, which takes no room, or a copy: of links, tools refuse those that lead outside."""
    try:
        if copy:
            raise OSError
        place.hardlink_to(file.resolve())
    except OSError:  # another disk, or a file of another user
        shutil.copyfile(file, place)


def _write_coco(images: Sequence[Labelled], classes: Classes, folder: Path) -> None:
    _write(folder / "annotations" / "instances_default.json", coco_text(images, classes))


def _write_yolo(images: Sequence[Labelled], classes: Classes, folder: Path) -> None:
    import yaml

    is_sorted = any(image.uncertainty is not None for image in images)
    if is_sorted:
        _write(folder / "train.txt", "".join(f"./images/{image.name}\n" for image in images))
    config = {"train": "train.txt" if is_sorted else "images", "names": dict(enumerate(classes.names))}
    _write(folder / "data.yaml", yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
    _write(folder / "classes.txt", "".join(f"{name}\n" for name in classes.names))
    for image in images:
        assert isinstance(image.answer, Detections)
        _write(folder / "labels" / f"{Path(image.name).stem}.txt", yolo_text(image.answer, classes))


def _write_voc(images: Sequence[Labelled], classes: Classes, folder: Path) -> None:
    for image in images:
        _write(folder / "Annotations" / f"{Path(image.name).stem}.xml", voc_text(image, classes))
    _write(folder / "ImageSets" / "Main" / "train.txt", "".join(f"{Path(image.name).stem}\n" for image in images))


def _write_csv(images: Sequence[Labelled], classes: Classes, folder: Path) -> None:
    _write(folder / "labels.csv", csv_text(images, classes, IMAGES["csv"]))


_WRITERS: dict[str, Callable[[Sequence[Labelled], Classes, Path], None]] = {
    "coco": _write_coco,
    "yolo": _write_yolo,
    "voc": _write_voc,
    "csv": _write_csv,
}


def _write(file: Path, text: str | bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text.encode("utf-8", "backslashreplace") if isinstance(text, str) else text)


def require_outside(out: Path, folder: Path) -> None:
    """RegardError where the annotations would lie among the images, which would then be there twice."""
    if out.resolve().is_relative_to(folder.resolve()):
        raise RegardError(f"{out}: lies in {folder}, whose images would then be there twice; choose another folder")
