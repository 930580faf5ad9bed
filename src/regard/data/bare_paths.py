"""A bare path as a data address: it is taken for what it holds."""

import re
from collections.abc import Iterator
from pathlib import Path

from regard.data.addresses import KINDS
from regard.data.boxes.coco_layout import PARTS, annotation_files
from regard.data.boxes.voc import ANNOTATIONS, IMAGES, has_xml_files
from regard.data.images.walk import entries_of, files_below, image_files, is_image_file, left_out
from regard.errors import RegardError, first_few
from regard.files import expanded

# What each kind of address reads, in a few words.
HOLDS = {
    "folder": "images in folders, one a class",
    "coco": "images with boxes, in COCO's format",
    "yolo": "images with boxes, in YOLO's format",
    "voc": "images with boxes, in Pascal VOC's format",
    "csv": "a table of images and labels",
    "pairs": "pairs of texts",
    "text": "text",
}
_FILES = {".json": "coco", ".csv": "csv", ".tsv": "pairs", ".txt": "text", ".md": "text"}
# Folders that belong to a format, and are no class.
_OF_FORMATS = {name for names in PARTS.values() for name in names} | {"test", *ANNOTATIONS, *IMAGES, "imagesets"}
_LEAST_JSON = 2**16  # bytes at the beginning and at the end of a JSON file that are looked at


def address_of(text: str, *, unlabelled: bool = False) -> str:
    """An address as it is; a bare path with the kind of what it holds before it: `my-photos` -> `folder:my-photos`.

    A path that is not there stays as it is, for `parse_address` to judge. RegardError where two kinds are possible
    (it lists both addresses), and where there is nothing to train on (it says how to begin).
    unlabelled: whether images without labels will do.
    """
    path = expanded(text)
    if text.partition(":")[0].strip() in KINDS or not text or not path.exists():
        return text
    if path.is_file():
        kind = "yolo" if path.suffix.lower() in (".yaml", ".yml") else _FILES.get(path.suffix.lower(), "")
        if not kind:
            raise RegardError(f"{text}: is no data; a file can be {', '.join(_FILES)} or data.yaml, else name a folder")
        return f"{kind}:{Path(text).parent if kind == 'yolo' else text}"
    found = list(_kinds(path)) or [f"csv:{Path(text) / table.name}" for table in _tables(path)]
    if not found and _holds_texts(path):
        found = ["text"]
    if not found and unlabelled and image_files(path)[0]:
        found = ["folder"]
    addresses = [kind if ":" in kind else f"{kind}:{text}" for kind in found]
    if len(addresses) > 1:
        raise RegardError(f"{text}: can be read in {len(addresses)} ways; write one of {', '.join(addresses)}")
    if addresses:
        return addresses[0]
    raise RegardError(f"{text}: {_nothing_in(path)}")


def _kinds(path: Path) -> Iterator[str]:
    """The formats whose marks a folder holds. Annotations of boxes go before folders of classes."""
    boxes = [kind for kind, holds in (("coco", _coco), ("yolo", _yolo), ("voc", has_xml_files)) if holds(path)]
    yield from boxes
    if not boxes and _has_classes(path):
        yield "folder"


def _coco(path: Path) -> bool:
    return any(_is_coco(file) for file in annotation_files(path))


def _is_coco(file: Path) -> bool:
    """Whether a JSON file names what COCO's have, near one of its ends: they can be gigabytes long."""
    with file.open("rb") as opened:
        head = opened.read(_LEAST_JSON)
        opened.seek(max(file.stat().st_size - _LEAST_JSON, 0))
        ends = head + opened.read(_LEAST_JSON)
    return any(re.search(rb'"%s"\s*:\s*\[' % key, ends) for key in (b"images", b"annotations", b"categories"))


def _yolo(path: Path) -> bool:
    for file in sorted(path.glob("*.y*ml")):
        with file.open("rb") as opened:
            if re.search(rb"^['\"]?names['\"]?\s*:", opened.read(2**20), re.MULTILINE):
                return True
    named = any((path / name).is_file() for name in ("classes.txt", "obj.names"))
    return named and any(path.rglob("*.txt"))


def _has_classes(path: Path) -> bool:
    """Whether images lie in sub-folders that are no part of a format, here or in `train`."""
    train = path / "train"
    inside = _classes(train) if train.is_dir() else []
    return bool(inside or _classes(path))


def _classes(path: Path) -> list[Path]:
    folders = [entry for entry in entries_of(path) if entry.is_dir() and not left_out(entry.name)]
    return [folder for folder in folders if folder.name.lower() not in _OF_FORMATS and _has_image(folder)]


def _has_image(folder: Path) -> bool:
    inside = entries_of(folder)
    return any(is_image_file(entry) for entry in inside) or any(
        entry.is_dir() and not left_out(entry.name) and _has_image(entry) for entry in inside
    )


def _tables(path: Path) -> list[Path]:
    return sorted(file for file in path.glob("*.csv") if file.is_file())


def _holds_texts(path: Path) -> bool:
    texts = any(True for ending in (".txt", ".md") for _ in files_below(path, ending))
    return texts and not image_files(path)[0]


def _nothing_in(path: Path) -> str:
    images, _ = image_files(path)
    if images:
        return (
            f"holds {len(images):,} images and no labels; sort them into one folder a class, or draw boxes with a "
            "labelling tool (CVAT, Label Studio, labelImg) and export them as COCO, YOLO or VOC; a hundred are a "
            "beginning; as they are they can be pre-trained on: `regard pretrain`"
        )
    there = [entry.name for entry in entries_of(path)]
    what = f"holds {first_few(there)}, which" if there else "is empty, which"
    return f"{what} is nothing to train on; `regard data list` shows what is"
