"""`regard data check` for boxes: what would spoil a training. It runs before each training too."""

from collections import Counter
from dataclasses import dataclass
from typing import Literal

import torch

from regard.data.boxes.coco import CocoImages
from regard.data.boxes.sources import DetectionData, DetectionSource
from regard.data.checks.box_geometry import check_boxes
from regard.data.checks.coco_ids import check_ids
from regard.data.checks.image_files import check_files, origin, shared_files
from regard.data.checks.issue import Issue
from regard.data.checks.suspect_images import Suspect
from regard.errors import first_few

# Of the held-out images: so many that are also trained on flatter no figure by much, and only cause a warning.
SHARED = 0.01
# DETR leaves most of its queries to "no object": the paper has 100 for at most 63 objects.
QUERIES_AN_OBJECT = 1.5


@dataclass(frozen=True)
class DetectionSummary:
    """How much data there is. Crowds are not counted."""

    num_train: int
    num_val: int
    boxes_train: int
    boxes_val: int
    most: int
    """Boxes in one image."""
    class_counts: dict[str, int]
    """Boxes of each class to train on."""

    def __str__(self) -> str:
        return (
            f"{self.num_train} images with {self.boxes_train} boxes to train on, {self.num_val} with {self.boxes_val} "
            f"held out, {len(self.class_counts)} classes, at most {self.most} boxes in an image"
        )


Found = tuple[list[Issue], DetectionSummary, list[Suspect]]


def check_opened_detection(data: DetectionData, *, num_queries: int | None = None, pixels: bool = True) -> Found:
    """What is wrong with opened data, errors first, and a few images to look at.

    num_queries: the most objects that the model can find in an image. pixels: decodes every image; without, only the
    headers are read, so that it is quick enough to go before each training. One issue tells all of a kind in a part,
    with the first few examples.
    """
    parts = {"train": data.train} if data.val is data.train else {"train": data.train, "val": data.val}
    issues: list[Issue] = []
    suspects: list[Suspect] = []
    wholes = {id(origin(source)[0]): (_where(data, part), origin(source)[0]) for part, source in parts.items()}
    for where, whole in wholes.values():  # once where both parts are of one file
        if isinstance(whole, CocoImages):
            issues += check_ids(whole.file)
        found = check_boxes(where, whole)
        issues, suspects = issues + found[0], suspects + found[1]
    for part, source in parts.items():
        found = check_files(_where(data, part), source, pixels=pixels)
        issues, suspects = issues + found[0], suspects + found[1]
    objects = {part: _Counts(source, len(data.class_names)) for part, source in parts.items()}
    for part, counts in objects.items():
        issues += _check_objects(counts, data.class_names, num_queries, part, _where(data, part))
    issues += _check_classes(data.class_names, data.address)
    if "val" in parts:
        issues += _check_shared(data)
    train, val = objects["train"], objects.get("val", objects["train"])
    summary = DetectionSummary(
        num_train=len(data.train),
        num_val=len(data.val),
        boxes_train=len(train),
        boxes_val=len(val),
        most=max((*train.of_image, *val.of_image), default=0),
        class_counts=dict(zip(data.class_names, train.of_class, strict=True)),
    )
    return sorted(issues, key=lambda issue: issue.severity), summary, suspects


def _where(data: DetectionData, part: str) -> str:
    whole, _ = origin(data.train if part == "train" else data.val)
    return str(whole.file.path) if isinstance(whole, CocoImages) and data.has_val else f"{data.address}, {part}"


class _Counts:
    """How many objects each image and class has, crowds apart."""

    def __init__(self, source: DetectionSource, num_classes: int) -> None:
        self.source = source
        labels = [objects.labels[~objects.crowd] for objects in source.objects]
        self.of_image = [len(own) for own in labels]
        self.of_class = torch.cat([torch.zeros(0, dtype=torch.int64), *labels]).bincount(minlength=num_classes).tolist()
        self.crowds = sum(len(objects) for objects in source.objects) - len(self)

    def __len__(self) -> int:
        return sum(self.of_image)

    def names(self, indices: list[int]) -> str:
        return first_few([self.source.name(index) for index in indices])


def _check_objects(
    counts: _Counts, class_names: tuple[str, ...], num_queries: int | None, part: str, where: str
) -> list[Issue]:
    """What one part has too little or too much of."""
    total = len(counts.of_image)
    if not len(counts):
        use = "to train on" if part == "train" else "to evaluate on: no figure is defined"
        crowds = f" ({counts.crowds} crowds do not count)" if counts.crowds else ""
        return [Issue("error", f"there is no box {use} in {total} images{crowds}", where)]
    told = []
    absent = [name for name, number in zip(class_names, counts.of_class, strict=True) if not number]
    if absent:
        told.append(f"{len(absent)} of {len(class_names)} classes are without examples: {first_few(absent)}")
    empty = [index for index, number in enumerate(counts.of_image) if not number]
    if empty:
        told.append(f"{len(empty)} of {total} images are without objects: {counts.names(empty)}")
    if counts.crowds:
        told.append(f"{counts.crowds} boxes are crowds, which are not trained on, and ignored in evaluation")
    above = [index for index, number in enumerate(counts.of_image) if num_queries and number > num_queries]
    if above:
        most = max(counts.of_image)
        rest = "whose rest is not learned" if part == "train" else "whose rest cannot be found"
        told.append(
            f"{len(above)} of {total} images have more objects than the {num_queries} queries, up to {most}, {rest}: "
            f"{counts.names(above)}; model.num_queries={-(-most * QUERIES_AN_OBJECT // 10) * 10:.0f} would do"
        )
    return [Issue("warning", what, where) for what in told]


def _check_classes(class_names: tuple[str, ...], address: str) -> list[Issue]:
    repeated = [name for name, count in Counter(class_names).items() if count > 1]
    if repeated:
        return [Issue("error", f"{len(repeated)} names are of several classes: {first_few(repeated)}", address)]
    if len(class_names) == 1:
        what = f"there is a single class, {class_names[0]}: it is told from the background only"
        return [Issue("warning", what, address)]
    return []


def _check_shared(data: DetectionData) -> list[Issue]:
    shared = shared_files(data.train, data.val)
    if not shared:
        return []
    severity: Literal["error", "warning"] = "error" if len(shared) > SHARED * len(data.val) else "warning"
    pairs = first_few([f"{held_out} is {trained}" for held_out, trained in shared])
    what = f"{len(shared)} of {len(data.val)} held-out images are trained on too: {pairs}"
    return [Issue(severity, what, data.address)]
