"""Where a detector stands on its precision-recall curves: each class at its own threshold, and at the best one."""

from dataclasses import dataclass

import numpy as np

from regard.tasks.detection.calibration import DEFAULT_THRESHOLD, best_threshold, matches
from regard.tasks.detection.metrics import DetectionEvaluation


@dataclass(frozen=True)
class OperatingPoint:
    """One class at its threshold, matched at IoU 0.5; -1 where there is nothing to measure a figure on."""

    name: str
    threshold: float
    """The least score that is reported."""
    precision: float
    """The fraction of the detections from there on that are correct."""
    recall: float
    """The fraction of the objects that they find."""
    f1: float
    best_threshold: float
    """The score of the largest F1 on these same images, which flatters it."""
    best_f1: float


def operating_points(found: DetectionEvaluation, threshold: float | None = None) -> list[OperatingPoint]:
    """Of each class; at `threshold`, or unless given at that of the class, or 0.5 where none was measured."""
    columns = [matches(one, objects) for one, objects in zip(found.found, found.objects, strict=True)]
    empty = np.zeros(0, int), np.zeros(0, np.float32), np.zeros(0, bool)
    seen, scores, correct = (np.concatenate(column) for column in zip(empty, *columns, strict=True))
    labels = np.concatenate([np.zeros(0, int), *(one.labels[~one.crowd].numpy() for one in found.objects)])
    points = []
    for label, name in enumerate(found.class_names):
        own, objects = seen == label, int((labels == label).sum())
        least = threshold if threshold is not None else (found.thresholds or {label: DEFAULT_THRESHOLD})[label]
        best = best_threshold(scores[own], correct[own], objects, least)
        at, at_best = (_figures(scores[own], correct[own], objects, score) for score in (least, best))
        points.append(OperatingPoint(name, least, *at, best, at_best[2]))
    return points


def _figures(scores: np.ndarray, correct: np.ndarray, objects: int, least: float) -> tuple[float, float, float]:
    """Precision, recall and F1 = 2 |correct| / (|reported| + |objects|) of the detections of at least this score."""
    enough = scores >= least
    hits, reported = int(correct[enough].sum()), int(enough.sum())
    return (
        hits / reported if reported else -1.0,
        hits / objects if objects else -1.0,
        2 * hits / (reported + objects) if reported + objects else -1.0,
    )
