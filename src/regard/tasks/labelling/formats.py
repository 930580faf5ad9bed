"""Boxes as COCO's JSON, as lines of YOLO, as XML of Pascal VOC; boxes and classes as CSV. No file is touched here."""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from regard.errors import RegardError, shown
from regard.files import json_text, printable
from regard.tasks.classification.predictor import Classifier
from regard.tasks.classification.result import Prediction
from regard.tasks.detection.data_ids import DataIds, Id
from regard.tasks.detection.predictor import Detector
from regard.tasks.detection.result import Detections

# Columns of a table of boxes, and of one of classes, which `csv:FILE` trains on.
BOX_COLUMNS = ("file", "class", "score", "left", "top", "right", "bottom")
CLASS_COLUMNS = ("file", "label", "score")
# What separates several labels of one image.
SEPARATOR = ";"
# XML has no way to write these.
_NOT_IN_XML = re.compile("[\x00-\x08\x0b-\x1f\ufffe\uffff]")


@dataclass(frozen=True)
class Labelled:
    """One image as it is annotated."""

    name: str
    """Its file among the images of the folder."""
    image_id: Id
    answer: Detections | Prediction
    uncertainty: float | None = None
    """Where the images are sorted by it."""


@dataclass(frozen=True)
class Classes:
    """The classes of the annotations, which may be those of other data than the model's."""

    names: tuple[str, ...]
    ids: tuple[Id, ...]
    places: tuple[int | None, ...]
    """For each class of the model its place among `names`; None where the other data do not have it."""


def classes_of(predictor: Classifier | Detector, ids: DataIds | None) -> Classes:
    """The classes of the model, or those of the data with `ids`."""
    names = predictor.class_names
    if ids is not None:
        own = [name for *_, name in sorted((isinstance(i, str), i, name) for name, i in ids.category_ids.items())]
        places = tuple(own.index(name) if name in ids.category_ids else None for name in names)
        return Classes(tuple(own), tuple(ids.category_ids[name] for name in own), places)
    numbers = predictor.category_ids if isinstance(predictor, Detector) else range(len(names))
    return Classes(names, tuple(numbers), tuple(range(len(names))))


def boxes_of(found: Detections, classes: Classes) -> Iterator[tuple[int, float, tuple[float, float, float, float]]]:
    """(place of the class, score, (left, top, right, bottom)) of each box that has an extent and a class."""
    for label, score, box in zip(found.labels.tolist(), found.scores.tolist(), found.boxes_xyxy.tolist(), strict=True):
        left, top, right, bottom = box
        place = classes.places[label]
        if place is not None and right > left and bottom > top:
            yield place, score, (left, top, right, bottom)


def coco_text(images: Sequence[Labelled], classes: Classes) -> str:
    """COCO's file of instances, with a `score` beside each box."""
    entries: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image in images:
        found = image.answer
        assert isinstance(found, Detections)
        height, width = found.image_size
        entry = {"id": image.image_id, "file_name": image.name, "width": width, "height": height}
        entries.append(entry if image.uncertainty is None else {**entry, "uncertainty": round(image.uncertainty, 4)})
        for place, score, (left, top, right, bottom) in boxes_of(found, classes):
            sides = right - left, bottom - top
            annotations.append(
                {"id": len(annotations) + 1, "image_id": image.image_id, "category_id": classes.ids[place]}
                | {"bbox": [left, top, *sides], "area": sides[0] * sides[1], "iscrowd": 0}
                | {"segmentation": [], "score": score}
            )
    categories = [
        {"id": own, "name": name, "supercategory": ""} for own, name in zip(classes.ids, classes.names, strict=True)
    ]
    whole = {"info": {"description": "predictions, to be corrected"}, "licenses": [], "images": entries}
    return json_text({**whole, "annotations": annotations, "categories": categories}) + "\n"


def yolo_text(found: Detections, classes: Classes) -> str:
    """A line for each box: class, centre x, centre y, width, height, in fractions of the image.

    No score: a sixth number is refused by tools that train on such files.
    """
    height, width = found.image_size
    return "".join(
        f"{place} {(left + right) / 2 / width:.6f} {(top + bottom) / 2 / height:.6f} "
        f"{(right - left) / width:.6f} {(bottom - top) / height:.6f}\n"
        for place, _, (left, top, right, bottom) in boxes_of(found, classes)
    )


def voc_text(image: Labelled, classes: Classes) -> bytes:
    """The XML file of an image. The first pixel is number 1, and a corner is a pixel: left 0 is xmin 1."""
    found = image.answer
    assert isinstance(found, Detections)
    root = Element("annotation")
    SubElement(root, "folder").text = "JPEGImages"
    SubElement(root, "filename").text = image.name
    size = SubElement(root, "size")
    for key, value in zip(("width", "height", "depth"), (*reversed(found.image_size), 3), strict=True):
        SubElement(size, key).text = str(value)
    SubElement(root, "segmented").text = "0"
    for place, _, (left, top, right, bottom) in boxes_of(found, classes):
        item = SubElement(root, "object")
        SubElement(item, "name").text = _in_xml(classes.names[place])
        for key, text in (("pose", "Unspecified"), ("truncated", "0"), ("difficult", "0")):
            SubElement(item, key).text = text
        box = SubElement(item, "bndbox")
        # A box of less than a pixel would end before it begins.
        corners = (left + 1, top + 1, max(right, left + 1), max(bottom, top + 1))
        for key, corner in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True):
            SubElement(box, key).text = f"{corner:.2f}".rstrip("0").rstrip(".")
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n"


def csv_text(images: Sequence[Labelled], classes: Classes, folder: str) -> str:
    """A row for each box, or for each image that was classified; `file` is below the folder of the table."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    more = ["uncertainty"] if any(image.uncertainty is not None for image in images) else []
    is_boxes = any(isinstance(image.answer, Detections) for image in images)
    writer.writerow([*(BOX_COLUMNS if is_boxes else CLASS_COLUMNS), *more])
    for image in images:
        file, answer = f"{folder}/{image.name}", image.answer
        unsure = [] if image.uncertainty is None else [f"{image.uncertainty:.4f}"]
        if isinstance(answer, Detections):
            for place, score, box in boxes_of(answer, classes):
                corners = (f"{value:.2f}" for value in box)
                writer.writerow([file, printable(classes.names[place]), f"{score:.4f}", *corners, *unsure])
        else:
            scores = dict(answer.top(len(answer.class_names)))
            of_labels = (f"{scores[name]:.4f}" for name in answer.labels)
            writer.writerow([file, SEPARATOR.join(map(_label, answer.labels)), SEPARATOR.join(of_labels), *unsure])
    return text.getvalue()


def _label(label: str) -> str:
    if SEPARATOR in label:
        raise RegardError(f"csv: the class {shown(label)} holds {SEPARATOR!r}, which stands between labels there")
    return printable(label)


def _in_xml(name: str) -> str:
    if _NOT_IN_XML.search(name):
        raise RegardError(f"voc: XML cannot hold the class {shown(name)}; write coco or yolo")
    return printable(name)
