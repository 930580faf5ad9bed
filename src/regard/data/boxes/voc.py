"""Pascal VOC's folders: JPEGImages, Annotations as XML, ImageSets/Main. The XML is read by torchvision."""

from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError

import torch

from regard.data.boxes.sources import DetectionData, FileDetectionSource, Objects, in_two_splits
from regard.data.images.files import IMAGE_EXTENSIONS
from regard.errors import RegardError


def open_voc(path: Path, *, channels: int, val_fraction: float = 0.25, split_seed: int = 0) -> DetectionData:
    """PATH (or the only VOC20xx below it) with Annotations/*.xml and JPEGImages.

    ImageSets/Main/train.txt and val.txt say which images are which; without them a split is drawn by seed. Objects
    marked as difficult count as COCO's crowds: not trained on, and ignored in evaluation. Corners are numbered from 1
    in the files. Classes are in alphabetical order. Raises RegardError.
    """
    address = f"voc:{path}"
    if not path.is_dir():
        raise RegardError(f"{address}: is not a folder" if path.exists() else f"{address}: does not exist")
    root = next(
        (
            file.parent
            for file in sorted((path, *path.glob("VOC*"), *path.glob("VOCdevkit/VOC*")))
            for file in [file / "Annotations"]
            if file.is_dir()
        ),
        None,
    )
    if root is None:
        raise RegardError(f"{address}: has no folder Annotations, neither by itself nor in a folder VOC20xx")
    stems = {split: _listed(root / "ImageSets" / "Main" / f"{split}.txt") for split in ("train", "val")}
    if stems["train"] is None:
        stems = {"train": sorted(file.stem for file in (root / "Annotations").glob("*.xml")), "val": None}
    entries = {split: [_entry(root, stem) for stem in listed] for split, listed in stems.items() if listed is not None}
    if not entries["train"]:
        raise RegardError(f"{address}: names no image to train on")
    names = sorted({item["name"] for images in entries.values() for entry in images for item in entry["objects"]})
    sources = {
        split: FileDetectionSource(
            [entry["file"] for entry in images],
            [entry["size"] for entry in images],
            [_objects(entry["objects"], names) for entry in images],
            channels,
        )
        for split, images in entries.items()
    }
    return in_two_splits(
        address, names, sources["train"], sources.get("val"), val_fraction=val_fraction, split_seed=split_seed
    )


def _listed(file: Path) -> list[str] | None:
    """The first word of each line."""
    if not file.exists():
        return None
    return [line.split()[0] for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]


def _entry(root: Path, stem: str) -> dict[str, Any]:
    """One annotation file: the image, its (height, width), and name, corners and difficulty of each object."""
    from torchvision.datasets import VOCDetection
    from torchvision.datasets.voc import ET_parse

    file = root / "Annotations" / f"{stem}.xml"
    try:
        annotation = VOCDetection.parse_voc_xml(ET_parse(str(file)).getroot())["annotation"]
        size = annotation["size"]
        objects = [
            {
                "name": str(item["name"]),
                "box": [float(item["bndbox"][key]) for key in ("xmin", "ymin", "xmax", "ymax")],
                "difficult": str(item.get("difficult", "0")) == "1",
            }
            for item in annotation.get("object", [])
        ]
        height, width = int(size["height"]), int(size["width"])
    except ParseError as error:
        raise RegardError(f"{file}: is not XML: {error}") from None
    except OSError as error:
        raise RegardError(f"{file}: cannot be read: {error.strerror}") from None
    except (KeyError, TypeError) as error:
        raise RegardError(
            f"{file}: lacks {error}; an annotation has size, and name and bndbox of each object"
        ) from None
    except ValueError as error:
        raise RegardError(f"{file}: {error}; sizes and corners must be numbers") from None
    return {"file": _image(root, stem, annotation), "size": (height, width), "objects": objects}


def _image(root: Path, stem: str, annotation: dict[str, Any]) -> Path:
    stated = annotation.get("filename")
    if isinstance(stated, str) and stated and (root / "JPEGImages" / Path(stated).name).exists():
        return root / "JPEGImages" / Path(stated).name
    beside = (root / "JPEGImages" / f"{stem}{ending}" for ending in sorted(IMAGE_EXTENSIONS))
    return next((file for file in beside if file.exists()), root / "JPEGImages" / f"{stem}.jpg")


def _objects(items: list[dict[str, Any]], names: list[str]) -> Objects:
    boxes = torch.tensor([item["box"] for item in items], dtype=torch.float32).view(-1, 4)
    boxes[:, :2] -= 1  # the first pixel is number 1, and a corner is a pixel, not an edge
    labels = torch.tensor([names.index(item["name"]) for item in items], dtype=torch.int64)
    crowd = torch.tensor([item["difficult"] for item in items], dtype=torch.bool)
    return Objects(boxes, labels, (boxes[:, 2:] - boxes[:, :2]).prod(1), crowd)
