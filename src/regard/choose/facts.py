"""What a data set is like, as far as file headers and labels say."""

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from regard.data import SORTS, DetectionSource, OnBadImage, classes_of, open_detection, open_images, parse_address
from regard.errors import RegardError
from regard.tasks import sizes_of

Quartiles = tuple[float, float, float]


@dataclass(frozen=True)
class Facts:
    address: str
    sort: str
    """A key of `regard.data.SORTS`."""
    kind: str
    """Of the address."""
    images: int = 0
    """That can be trained on."""
    held_out: int = 0
    classes: int = 0
    fewest: int = 0
    """Training images of the rarest class, or objects of it."""
    height: int = 0
    width: int = 0
    """Medians over the training images."""
    one_size: bool = False
    """Whether nine of ten images have the same height and width, as those of one camera have."""
    objects: int = 0
    """In the training images, without crowds."""
    most_objects: int = 0
    """In one image."""
    object_sides: Quartiles = (0.0, 0.0, 0.0)
    """Quartiles of the root of a box's area, as a fraction of the image's longer side."""
    unlabelled: int = 0
    """Training images without an object."""

    def pixels_of_objects(self, longest: int) -> Quartiles:
        """The quartiles in pixels, in images whose longer side has `longest`."""
        lower, middle, upper = (side * longest for side in self.object_sides)
        return lower, middle, upper


def facts_of(address: str, *, val_fraction: float = 0.25, on_bad: str = "stop") -> Facts:
    """Opens the data, which reads headers and labels. RegardError for data that cannot be read, or hold no label."""
    kind = parse_address(address).kind
    sort = next(sort for sort, kinds in SORTS.items() if kind in kinds)
    if sort == "images":
        return _of_classes(address, kind, val_fraction, on_bad)
    if sort == "images with boxes":
        return _of_boxes(address, kind, val_fraction, on_bad)
    return Facts(address, sort, kind)


def _of_classes(address: str, kind: str, val_fraction: float, on_bad: str) -> Facts:
    data = open_images(
        address, channels=3, val_fraction=val_fraction, on_bad_image="skip" if on_bad == "skip" else "stop"
    )
    train = data.train
    height, width, one_size = _typical(sizes_of(train))
    counts = Counter(label for own in train.labels for label in classes_of(own))
    return Facts(
        address,
        "images",
        kind,
        images=len(train),
        held_out=len(data.val),
        classes=len(data.class_names),
        fewest=min(counts[label] for label in range(len(data.class_names))),
        height=height,
        width=width,
        one_size=one_size,
    )


def _of_boxes(address: str, kind: str, val_fraction: float, on_bad: str) -> Facts:
    skip: OnBadImage = "skip" if on_bad == "skip" else "stop"
    data = open_detection(address, val_fraction=val_fraction, on_bad_image=skip, on_bad_annotation=skip)
    train, counts = data.train, [int((~one.crowd).sum()) for one in data.train.objects]
    if not sum(counts):
        raise RegardError(
            f"{address}: none of the {len(train):,} training images has an object; draw boxes in a hundred of them "
            "with a labelling tool (CVAT, Label Studio, labelImg), and export them as COCO, YOLO or VOC"
        )
    labels = torch.cat([one.labels[~one.crowd] for one in train.objects])
    of_class = torch.bincount(labels, minlength=len(data.class_names))
    height, width, one_size = _typical(train.sizes)
    lower, middle, upper = torch.quantile(_sides(train), torch.tensor([0.25, 0.5, 0.75])).tolist()
    return Facts(
        address,
        "images with boxes",
        kind,
        images=len(train),
        held_out=len(data.val),
        classes=len(data.class_names),
        fewest=int(of_class.min()),
        height=height,
        width=width,
        one_size=one_size,
        objects=sum(counts),
        most_objects=max(counts),
        object_sides=(lower, middle, upper),
        unlabelled=counts.count(0),
    )


def _typical(sizes: Sequence[tuple[int, int]]) -> tuple[int, int, bool]:
    """Median height and width, and whether nine of ten sizes are the same."""
    ((_, most),) = Counter(sizes).most_common(1)
    height, width = (round(statistics.median(side)) for side in zip(*sizes, strict=True))
    return height, width, most >= 0.9 * len(sizes)


def _sides(source: DetectionSource) -> torch.Tensor:
    """The root of each box's area, over the longer side of its image."""
    found = [
        (one.boxes_xyxy[~one.crowd, 2:] - one.boxes_xyxy[~one.crowd, :2]).clamp(min=0).prod(1).sqrt() / max(size)
        for one, size in zip(source.objects, source.sizes, strict=True)
    ]
    return torch.cat(found).float()
