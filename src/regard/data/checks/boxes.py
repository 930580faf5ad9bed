"""`regard data check` for boxes: what would spoil a training. It runs before each training too."""

import math
from collections import Counter
from dataclasses import dataclass, replace

import torch

from regard.data.boxes.coco import CocoImages
from regard.data.boxes.sources import DetectionData, DetectionSource
from regard.data.checks.box_geometry import check_boxes
from regard.data.checks.coco_ids import check_ids
from regard.data.checks.image_files import check_files, origin, shared_files
from regard.data.checks.issue import Issue, Severity, group, shared_images
from regard.data.checks.repairs import check_repairs, check_unlisted
from regard.data.checks.seen import See, see_nothing
from regard.data.checks.suspect_images import Suspect
from regard.data.images.files import OnBadImage
from regard.data.images.pixels import Decoding
from regard.data.repairs import OnBadAnnotation
from regard.errors import first_few

# DETR leaves most of its queries to "no object": the paper has 100 for at most 63 objects.
QUERIES_AN_OBJECT = 1.5
UNLABELLED = "where they are only not labelled yet, --set data.leave_out=FILE leaves out the images that FILE names"
NOTHING = (
    "label some fifty images, with any tool that writes COCO, YOLO or VOC, and train on them; `regard predict RUN "
    "FOLDER -o OUT --as coco` then labels others, to be corrected"
)


def queries_for(objects: int) -> int:
    """How many queries suit images of up to that many objects: half as many more, a multiple of ten."""
    return math.ceil(objects * QUERIES_AN_OBJECT / 10) * 10


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


Checked = tuple[list[Issue], DetectionSummary, list[Suspect]]


def check_opened_detection(
    data: DetectionData,
    *,
    num_queries: int | None = None,
    pixels: bool = True,
    strict: bool = False,
    on_bad_image: OnBadImage = "stop",
    on_bad_annotation: OnBadAnnotation = "stop",
    see: See = see_nothing,
) -> Checked:
    """The issues of opened data, errors first; a summary; and a few images to look at.

    num_queries: the most objects that the model can find in an image. pixels: whether every image is decoded; else
    only headers are read, which is quick enough before each training. strict: whether held-out files that are trained
    on too, in a split that the data bring, are an error. on_bad_image, on_bad_annotation: whether images and
    annotations that cannot be used are an error or a warning. All faults of one kind in a split are one issue, with the
    first few examples. see: is given the part, the index and the pixels of each image that is decoded.
    """
    splits = {"train": data.train} if data.val is data.train else {"train": data.train, "val": data.val}
    severity: Severity = "error" if on_bad_annotation == "stop" else "warning"
    issues = check_repairs(data.repairs, data.address, severity)
    suspects: list[Suspect] = []
    wholes = {id(origin(source)[0]): (_where(data, split), origin(source)[0]) for split, source in splits.items()}
    for where, whole in wholes.values():  # once where both splits come from one file
        if isinstance(whole, CocoImages):
            issues += check_ids(whole.file, severity)
        more_issues, more_suspects = check_boxes(where, whole, severity)
        issues, suspects = issues + more_issues, suspects + more_suspects
    issues += check_unlisted([whole.file for _, whole in wholes.values() if isinstance(whole, CocoImages)])
    for split, source in splits.items():
        more_issues, more_suspects = check_files(
            _where(data, split), source, pixels=pixels, on_bad_image=on_bad_image, part=split, see=see
        )
        issues, suspects = issues + more_issues, suspects + more_suspects
    objects = {split: _Counts(source, len(data.class_names)) for split, source in splits.items()}
    for split, counts in objects.items():
        issues += _check_objects(counts, data.class_names, num_queries, split, _where(data, split))
    issues += _check_classes(data.class_names, data.address)
    if data.decoding != Decoding(data.decoding.max_megapixels):
        issues.append(Issue("warning", f"images have more than 8 bits: {data.decoding}", data.address))
    if "val" in splits:
        issues += _check_shared(data, strict)
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


def _where(data: DetectionData, split: str) -> str:
    whole, _ = origin(data.train if split == "train" else data.val)
    return str(whole.file.path) if isinstance(whole, CocoImages) and data.has_val else f"{data.address}, {split}"


class _Counts:
    """How many objects each image and class has, without crowds."""

    def __init__(self, source: DetectionSource, num_classes: int) -> None:
        self.source = source
        labels = [objects.labels[~objects.crowd] for objects in source.objects]
        self.of_image = [len(own) for own in labels]
        self.of_class = torch.cat([torch.zeros(0, dtype=torch.int64), *labels]).bincount(minlength=num_classes).tolist()
        self.crowds = sum(len(objects) for objects in source.objects) - len(self)

    def __len__(self) -> int:
        return sum(self.of_image)

    @property
    def with_crowds(self) -> list[int]:
        return [index for index, objects in enumerate(self.source.objects) if objects.crowd.any()]

    def names_of(self, indices: list[int]) -> list[str]:
        return [self.source.name(index) for index in indices]

    def names(self, indices: list[int]) -> str:
        return first_few(self.names_of(indices))


def _check_objects(
    counts: _Counts, class_names: tuple[str, ...], num_queries: int | None, split: str, where: str
) -> list[Issue]:
    """Warnings for classes and images without objects, crowds, and images with too many objects in one split."""
    total = len(counts.of_image)
    if not len(counts):
        use = "to train on" if split == "train" else "to evaluate on: no figure is defined"
        crowds = f" ({counts.crowds} crowds do not count)" if counts.crowds else ""
        what = f"there is no box {use} in {total} images{crowds}"
        return [Issue("error", what, where, count=total, way_on=NOTHING if split == "train" else "")]
    warnings: list[tuple[str, list[str]]] = []
    absent = [name for name, number in zip(class_names, counts.of_class, strict=True) if not number]
    if absent:
        what = f"{len(absent)} of {len(class_names)} classes are without examples: {first_few(absent)}"
        warnings.append((what, absent))
    empty = [index for index, number in enumerate(counts.of_image) if not number]
    if empty:
        what = f"{len(empty)} of {total} images are without objects: {counts.names(empty)}"
        warnings.append((what, counts.names_of(empty)))
    if counts.crowds:
        what = f"{counts.crowds} boxes are crowds, which are not trained on, and ignored in evaluation"
        warnings.append((what, counts.names_of(counts.with_crowds)))
    above = [index for index, number in enumerate(counts.of_image) if num_queries and number > num_queries]
    if above:
        most = max(counts.of_image)
        rest = "whose rest is not learned" if split == "train" else "whose rest cannot be found"
        what = (
            f"{len(above)} of {total} images have more objects than the {num_queries} queries, up to {most}, {rest}: "
            f"{counts.names(above)}; model.num_queries={queries_for(most)} would do"
        )
        warnings.append((what, counts.names_of(above)))
    issues = [group("warning", what, where, names, int(what.split()[0])) for what, names in warnings]
    return [replace(issue, way_on=UNLABELLED) if "without objects" in issue.what else issue for issue in issues]


def _check_classes(class_names: tuple[str, ...], address: str) -> list[Issue]:
    repeated = [name for name, count in Counter(class_names).items() if count > 1]
    if repeated:
        return [Issue("error", f"{len(repeated)} names are of several classes: {first_few(repeated)}", address)]
    if len(class_names) == 1:
        what = f"there is a single class, {class_names[0]}: it is distinguished from the background only"
        return [Issue("warning", what, address)]
    return []


def _check_shared(data: DetectionData, strict: bool) -> list[Issue]:
    pairs = shared_files(data.train, data.val)
    return shared_images(pairs, len(data.val), data.address, has_val=data.has_val, strict=strict)
