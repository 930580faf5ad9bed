"""What is done with a detector's boxes: suppression or none, and from which score on one of each class is reported.

Both are measured on images that are held out of training for this, and of which no reported figure comes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from regard.data import Objects
from regard.errors import RegardError, shown
from regard.losses import iou
from regard.tasks.detection.metrics import DetectionEvaluation
from regard.tasks.detection.result import Detections
from regard.tasks.detection.suppression import overlap_of, suppressed
from regard.tasks.thresholds import best_threshold

# What holds where nothing was measured.
DEFAULT_NMS, DEFAULT_THRESHOLD = 0.7, 0.5
# From fewer objects nothing is measured; a class with fewer takes the threshold of all classes together.
LEAST_OBJECTS, LEAST_OF_A_CLASS = 50, 20
# Of equal AP the first counts: none, then the largest overlap.
OVERLAPS = (None, 0.8, 0.7, 0.6, 0.5)
# A detection is correct if it covers an object of its class so far.
MIN_IOU = 0.5


@dataclass(frozen=True)
class Calibration:
    """How boxes are suppressed, and the least score of each class; and how both were found."""

    class_names: tuple[str, ...]
    nms: float | None
    """A box is suppressed at an IoU above this with a more certain one of its class; None: none is."""
    thresholds: tuple[float, ...]
    """Of each class, the score of the largest F1; `threshold` for a class of too few objects."""
    threshold: float
    """That of all classes together."""
    pooled: tuple[str, ...]
    """The classes that have `threshold`, since they have too few objects."""
    images: int
    objects: int
    """How many it was measured on; or how many there would have been, and were too few."""
    source: str
    """"measured" or "default"."""

    @classmethod
    def default(cls, nms: float | str, class_names: Sequence[str], images: int = 0, objects: int = 0) -> "Calibration":
        """Where nothing was measured. `nms` is what the recipe says."""
        overlap = DEFAULT_NMS if nms == "auto" else overlap_of(nms)
        same = (DEFAULT_THRESHOLD,) * len(class_names)
        return cls(tuple(class_names), overlap, same, DEFAULT_THRESHOLD, tuple(class_names), images, objects, "default")

    def __str__(self) -> str:
        suppression = "no suppression" if self.nms is None else f"suppression at IoU {self.nms:g}"
        if self.source == "default":
            why = "nothing was held out to measure them on"
            if self.objects >= LEAST_OBJECTS:
                why = "the model's numbers are not finite"
            elif self.images:
                many = f"{self.objects} object{'s' * (self.objects != 1)}"
                why = f"the images to measure them on hold {many}, and {LEAST_OBJECTS} are needed"
            return f"{suppression} and score {DEFAULT_THRESHOLD:g} by default: {why}"
        low, high = min(self.thresholds), max(self.thresholds)
        scores = f"score {low:.2f}" if low == high else f"scores of {low:.2f} to {high:.2f}"
        number = f"{len(self.pooled)} class of" if len(self.pooled) == 1 else f"{len(self.pooled)} classes of"
        takes = "takes" if len(self.pooled) == 1 else "take"
        rare = f"; {number} fewer than {LEAST_OF_A_CLASS} objects {takes} {self.threshold:.2f}"
        return (
            f"{suppression} and {scores} by class, measured on {self.images:,} images with {self.objects:,} objects "
            f"that were held out of training{rare if self.pooled else ''}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as metadata.json holds them; thresholds by the names of the classes."""
        return {
            "nms": "off" if self.nms is None else self.nms,
            "thresholds": dict(zip(self.class_names, self.thresholds, strict=True)),
            "threshold": self.threshold,
            "pooled": list(self.pooled),
            "images": self.images,
            "objects": self.objects,
            "source": self.source,
        }

    @classmethod
    def from_dict(cls, values: object, class_names: Sequence[str], where: str) -> "Calibration":
        """The inverse of `to_dict`. RegardError, which begins with `where`, for anything else."""
        wanted = {"nms", "thresholds", "threshold", "pooled", "images", "objects", "source"}
        if not isinstance(values, Mapping) or not wanted <= values.keys():
            raise RegardError(f"{where}: calibration must be a table with {', '.join(sorted(wanted))}")
        by_name, pooled, source = values["thresholds"], values["pooled"], values["source"]
        if not isinstance(by_name, Mapping) or set(by_name) != set(class_names):
            raise RegardError(f"{where}: calibration.thresholds must have a score of each class, got {shown(by_name)}")
        for name, number in (*by_name.items(), ("threshold", values["threshold"])):
            if type(number) not in (int, float) or not 0 <= number <= 1:
                raise RegardError(
                    f"{where}: calibration: {shown(name)} must be a score from 0 to 1, got {shown(number)}"
                )
        if not isinstance(pooled, list) or not set(map(str, pooled)) <= set(class_names):
            raise RegardError(f"{where}: calibration.pooled must be names of classes, got {shown(pooled)}")
        counts = values["images"], values["objects"]
        if any(type(count) is not int or count < 0 for count in counts):
            raise RegardError(f"{where}: calibration.images and objects must be whole numbers, got {shown(counts)}")
        if source not in ("measured", "default"):
            raise RegardError(f"{where}: calibration.source must be measured or default, got {shown(source)}")
        try:
            nms = overlap_of(values["nms"])
        except RegardError as error:
            raise RegardError(f"{where}: calibration.{error}") from None
        thresholds = tuple(float(by_name[name]) for name in class_names)
        return cls(tuple(class_names), nms, thresholds, float(values["threshold"]), tuple(pooled), *counts, source)


def calibrated(found: DetectionEvaluation, nms: float | str, counted: int) -> Calibration:
    """What suits the images of an evaluation: the overlap of the highest AP, then each class's score of the largest F1.

    found: the detections of all queries, unsuppressed. nms: what the recipe says, "auto", "off" or an overlap. counted:
    how many detections of an image count for AP. With fewer than 50 objects, or numbers that are not finite, the
    default.
    """
    labels = np.concatenate([np.zeros(0, int), *(one.labels[~one.crowd].numpy() for one in found.objects)])
    if len(labels) < LEAST_OBJECTS or found.not_finite:
        return Calibration.default(nms, found.class_names, len(found), len(labels))
    best, chosen, kept = -2.0, None, found.found
    for overlap in OVERLAPS if nms == "auto" else [overlap_of(nms)]:
        boxes = tuple(_kept(one, overlap, counted) for one in found.found)
        ap = replace(found, found=boxes, max_detections=counted).metrics()["ap"]
        if ap > best:
            best, chosen, kept = ap, overlap, boxes
    matched = [matches(one, objects) for one, objects in zip(kept, found.objects, strict=True)]
    seen, scores, correct = (np.concatenate(column) for column in zip(*matched, strict=True))
    threshold = best_threshold(scores, correct, len(labels), DEFAULT_THRESHOLD)
    thresholds, pooled = [], []
    for label, name in enumerate(found.class_names):
        number, own = int((labels == label).sum()), seen == label
        if number < LEAST_OF_A_CLASS:
            pooled.append(name)
        enough = number >= LEAST_OF_A_CLASS
        thresholds.append(best_threshold(scores[own], correct[own], number, threshold) if enough else threshold)
    counts = len(found), len(labels)
    return Calibration(found.class_names, chosen, tuple(thresholds), threshold, tuple(pooled), *counts, "measured")


def _kept(found: Detections, overlap: float | None, most: int) -> Detections:
    return found.chosen(slice(most)) if overlap is None else suppressed(found, overlap, most)


def matches(found: Detections, objects: Objects) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(class, score, whether it is correct) of each detection, as COCO matches them: each in the order of the scores
    takes the free object of its class that it covers best. Those that find but a crowd count neither way."""
    same = found.labels[:, None] == objects.labels
    overlaps = iou(found.boxes_xyxy[:, None], objects.boxes_xyxy[None]) * (same & ~objects.crowd)
    correct = np.zeros(len(found), dtype=bool)
    free = overlaps.numpy().copy()
    for index in np.flatnonzero((free >= MIN_IOU).any(1)) if free.size else ():
        place = int(free[index].argmax())
        if free[index, place] >= MIN_IOU:
            correct[index], free[:, place] = True, 0.0
    counts = correct | ~_in_a_crowd(found, objects, same).numpy()
    return found.labels.numpy()[counts], found.scores.numpy()[counts], correct[counts]


def _in_a_crowd(found: Detections, objects: Objects, same: Tensor) -> Tensor:
    """Whether so much of a detection lies in a region that stands for many objects of its class."""
    boxes, crowds = found.boxes_xyxy[:, None], objects.boxes_xyxy[None]
    sides = (boxes[..., 2:].minimum(crowds[..., 2:]) - boxes[..., :2].maximum(crowds[..., :2])).clamp(min=0)
    areas = (found.boxes_xyxy[:, 2:] - found.boxes_xyxy[:, :2]).prod(1, keepdim=True)
    return ((sides.prod(-1) >= MIN_IOU * areas.clamp(min=1e-9)) & same & objects.crowd).any(1)
