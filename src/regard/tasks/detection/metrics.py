"""How good a detector is: COCO's figures, the AP of each class, the confusion matrix."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from regard.data import Objects
from regard.errors import RegardError
from regard.losses import iou
from regard.tasks.detection.result import Detections
from regard.tasks.detection.suppression import twins

# COCO's twelve figures in COCO's order.
FIGURES = (
    *("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large"),
    *("ar1", "ar10", "ar100", "ar_small", "ar_medium", "ar_large"),
)
BACKGROUND = "background"


@dataclass(frozen=True)
class ClassAP:
    """One class: AP over IoU from 0.5 to 0.95 and at 0.5 (-1 if it has no object), its images and its objects."""

    name: str
    ap: float
    ap50: float
    images: int
    objects: int


@dataclass(frozen=True)
class PrecisionRecall:
    """For each class that has objects, precision at IoU 0.5 for recalls of 0, 0.01, ..., 1."""

    recall: Float[np.ndarray, " points"]
    precision: dict[str, Float[np.ndarray, " points"]]


@dataclass(frozen=True)
class DetectionEvaluation:
    """The detections in a set of images, of whatever score, beside the true objects."""

    found: tuple[Detections, ...]
    objects: tuple[Objects, ...]
    image_ids: tuple[int, ...]
    class_names: tuple[str, ...]
    loss: float
    """Mean of the batches' losses, weighted by their images; NaN if there was no image."""
    skipped: tuple[str, ...] = ()
    """Images that could not be read."""
    max_detections: int = 100
    """How many detections of an image count, the most certain ones."""
    category_ids: tuple[int | None, ...] | None = None
    """What the data call each class of the model, None for one that they do not have; all None: as the model does."""
    not_finite: tuple[str, ...] = ()
    """Images for which the model gave no finite number: the figures say nothing."""
    nms: float | None = None
    """The overlap above which boxes were suppressed in `found`; None: none were."""
    raw: tuple[Detections, ...] | None = None
    """The detections before that; None where `found` are they."""
    thresholds: tuple[float, ...] | None = None
    """The least score of each class that the detector reports; None: 0.5."""

    def __len__(self) -> int:
        return len(self.found)

    @classmethod
    def joined(cls, shards: Sequence["DetectionEvaluation"]) -> "DetectionEvaluation":
        """The shards of several processes as one."""
        total = sum(len(shard) for shard in shards)
        return cls(
            tuple(one for shard in shards for one in shard.found),
            tuple(one for shard in shards for one in shard.objects),
            tuple(one for shard in shards for one in shard.image_ids),
            shards[0].class_names,
            sum(shard.loss * len(shard) for shard in shards if len(shard)) / max(total, 1),
            tuple(name for shard in shards for name in shard.skipped),
            max_detections=shards[0].max_detections,
            category_ids=shards[0].category_ids,
            not_finite=tuple(name for shard in shards for name in shard.not_finite),
            nms=shards[0].nms,
            raw=None if shards[0].raw is None else tuple(one for shard in shards for one in shard.raw or ()),
            thresholds=shards[0].thresholds,
        )

    @cached_property
    def unsuppressed(self) -> "DetectionEvaluation":
        """The evaluation of the same detections before any was suppressed."""
        return self if self.raw is None else replace(self, found=self.raw, raw=None, nms=None)

    def twins(self) -> float:
        """The fraction of the boxes of a score of 0.3 or more that have a twin; see `suppression.twins`."""
        counts = [twins(one) for one in self.found]
        return sum(doubled for doubled, _ in counts) / max(sum(boxes for _, boxes in counts), 1)

    def metrics(self) -> dict[str, float]:
        """COCO's twelve figures in [0, 1], and `loss`. `ap` is the mean over IoU from 0.5 to 0.95 and over the classes.

        They are those after suppression, where there is one; `ap_raw` and `ap50_raw` are those before it. `twins` and
        `twins_raw` are the fractions of boxes that have a twin, after and before.
        All but `ar1`, `ar10` and `ar100` count `max_detections` an image, and these never more than that. As in COCO,
        a figure is -1 if no object counts for it, for instance no large one for `ap_large`.
        RegardError if there is no image.
        """
        if not self.found:
            raise RegardError(f"evaluation: there is no image that can be read ({len(self.skipped)} were skipped)")
        figures, raw = self.figures(), self.unsuppressed
        before = figures if raw is self else raw.figures()
        doubled = self.twins()
        return {
            **figures,
            "loss": self.loss,
            **{f"{name}_raw": before[name] for name in ("ap", "ap50")},
            "twins": doubled,
            "twins_raw": doubled if raw is self else raw.twins(),
        }

    def figures(self) -> dict[str, float]:
        """COCO's twelve, of `found`."""
        stats, counts = [float(value) for value in self._coco.stats], self._coco.params.maxDets
        end = 6 + len(counts)
        recalls = [stats[6 + counts.index(min(count, self.max_detections))] for count in (1, 10, 100)]
        return dict(zip(FIGURES, [*stats[:6], *recalls, *stats[end : end + 3]], strict=True))

    def coco_results(self) -> list[dict[str, Any]]:
        """COCO's results of all images, under the ids that the data have: what `loadRes` takes beside their file.

        `file_name` says which image it is. Objects of classes that the data do not have are left out.
        """
        return [
            {**result, "file_name": found.name}
            for image_id, found in zip(self.image_ids, self.found, strict=True)
            for result in found.to_coco(image_id, self.category_ids)
        ]

    def per_class(self) -> list[ClassAP]:
        precision = self._coco.eval["precision"][:, :, :, 0, -1]  # IoU, recall, class
        rows = []
        for label, name in enumerate(self.class_names):
            own = [int((objects.labels[~objects.crowd] == label).sum()) for objects in self.objects]
            ap, ap50 = (_mean(values) for values in (precision[:, :, label], precision[0, :, label]))
            rows.append(ClassAP(name, ap, ap50, sum(count > 0 for count in own), sum(own)))
        return rows

    def precision_recall(self) -> PrecisionRecall:
        precision = self._coco.eval["precision"][0, :, :, 0, -1]
        curves = {name: precision[:, label] for label, name in enumerate(self.class_names) if precision[0, label] >= 0}
        return PrecisionRecall(np.linspace(0, 1, len(precision)), curves)

    def confusion(self, threshold: float | None = None, min_iou: float = 0.5) -> Int64[Tensor, "classes classes"]:
        """The number of objects of class i (row) that were detected as class j (column); the last is the background.

        Detections with a score of at least `threshold`, or unless given that of their class in `thresholds`, are
        matched in the order of their scores. Each takes the free object of highest IoU, whatever its class, if the IoU
        is at least `min_iou`; else its row is the background. The column of an object without a detection is the
        background. Crowds are left out.
        """
        count = len(self.class_names)
        table = torch.zeros(count + 1, count + 1, dtype=torch.int64)
        for found, objects in zip(self.found, self.objects, strict=True):
            for true, seen in _pairs(found.above(self._least(threshold)), objects, min_iou):
                table[count if true is None else true, count if seen is None else seen] += 1
        return table

    def errors(self, threshold: float | None = None, min_iou: float = 0.5) -> list[int]:
        """For each image, the number of missed objects, of objects with a wrong class, and of false detections."""
        return [
            sum(true != seen for true, seen in _pairs(found.above(self._least(threshold)), objects, min_iou))
            for found, objects in zip(self.found, self.objects, strict=True)
        ]

    def _least(self, threshold: float | None) -> float | tuple[float, ...]:
        return (self.thresholds or 0.5) if threshold is None else threshold

    @cached_property
    def _coco(self) -> Any:
        """faster-coco-eval's evaluator, after its evaluation."""
        from faster_coco_eval import COCO, COCOeval_faster

        # In the order of the data's ids: so does COCO rank equal scores, and so do processes that share the images.
        order = sorted(range(len(self.found)), key=self.image_ids.__getitem__)
        truth = COCO(_ground_truth([self.objects[index] for index in order], len(self.class_names)))
        results = [
            {**result, "category_id": label}
            for image, found in enumerate((self.found[index] for index in order), 1)
            for result, label in zip(found.to_coco(image), found.labels.tolist(), strict=True)
        ]
        evaluator = COCOeval_faster(truth, truth.loadRes(results), iouType="bbox", print_function=_silent)
        evaluator.params.maxDets = sorted({min(count, self.max_detections) for count in (1, 10, 100)})
        if self.max_detections > 100:
            evaluator.params.maxDets.append(self.max_detections)
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
        return evaluator


def _ground_truth(objects: Sequence[Objects], num_classes: int) -> dict[str, Any]:
    annotations: list[dict[str, Any]] = []
    for image, one in enumerate(objects, 1):
        rows = zip(one.boxes_xyxy.tolist(), one.labels.tolist(), one.areas.tolist(), one.crowd.tolist(), strict=True)
        for (left, top, right, bottom), label, area, crowd in rows:
            annotations.append(
                {"id": len(annotations) + 1, "image_id": image, "category_id": label, "area": area}
                | {"bbox": [left, top, right - left, bottom - top], "iscrowd": int(crowd)}
            )
    images = [{"id": image, "width": 1, "height": 1} for image in range(1, len(objects) + 1)]
    categories = [{"id": label, "name": str(label)} for label in range(num_classes)]
    return {"images": images, "annotations": annotations, "categories": categories}


def _pairs(found: Detections, objects: Objects, min_iou: float) -> list[tuple[int | None, int | None]]:
    """(true class, detected class) of each pair; None is the background."""
    boxes, labels = objects.boxes_xyxy[~objects.crowd], objects.labels[~objects.crowd].tolist()
    overlaps = iou(found.boxes_xyxy[:, None], boxes[None])
    free = list(range(len(labels)))
    pairs: list[tuple[int | None, int | None]] = []
    for row, seen in zip(overlaps, found.labels.tolist(), strict=True):
        best = max(free, key=lambda index: float(row[index]), default=None)
        if best is None or row[best] < min_iou:
            pairs.append((None, seen))
        else:
            free.remove(best)
            pairs.append((labels[best], seen))
    return pairs + [(labels[index], None) for index in free]


def _mean(values: np.ndarray) -> float:
    known = values[values > -1]
    return float(known.mean()) if known.size else -1.0


def _silent(*_: object, **__: object) -> None:
    """Takes the place of the function by which faster-coco-eval prints its table."""
