"""Boxes around the same object: how many there are, and which of them stay."""

from torch import Tensor

from regard.errors import RegardError, shown
from regard.losses import iou
from regard.tasks.detection.result import Detections

# Two boxes of one class with this overlap are twins, if both have this score.
TWIN_SCORE, TWIN_IOU = 0.3, 0.7
# First so many boxes for each one that is asked for are looked at; all of them only where these leave too few.
LOOKED_AT = 10


def suppressed(found: Detections, overlap: float, most: int | None = None) -> Detections:
    """Non-maximum suppression, class by class; of what stays, the `most` most certain.

    A box stays unless its IoU with a more certain box of its class that stays is above `overlap`.
    """
    if most is not None and len(found) > LOOKED_AT * most:
        # Whether a box stays depends on more certain ones alone, so that a beginning can be decided by itself.
        kept = suppressed(found.chosen(slice(LOOKED_AT * most)), overlap, most)
        if len(kept) == most:
            return kept
    from torchvision.ops import batched_nms

    kept_indices: Tensor = batched_nms(found.boxes_xyxy, found.scores, found.labels, overlap)
    return found.chosen(kept_indices.sort().values[:most])


def twins(found: Detections, score: float = TWIN_SCORE, overlap: float = TWIN_IOU) -> tuple[int, int]:
    """How many boxes have a twin, another one of their class at an IoU above `overlap`; and how many boxes there are.

    Only boxes of at least `score` count.
    """
    sure = found.above(score)
    same = sure.labels[:, None] == sure.labels
    same.fill_diagonal_(False)
    close = iou(sure.boxes_xyxy[:, None], sure.boxes_xyxy[None]) > overlap
    return int((same & close).any(1).sum()), len(sure)


def overlap_of(nms: object, *, auto: bool = False) -> float | None:
    """The IoU above which a box is suppressed, None for "off". RegardError, which names what is allowed, else."""
    if isinstance(nms, str) and nms == "off":
        return None
    if isinstance(nms, int | float) and not isinstance(nms, bool) and 0 < nms < 1:
        return float(nms)
    allowed = f"{'auto, ' if auto else ''}off, or an IoU above 0 and below 1"
    raise RegardError(f"nms is {shown(nms)}; it must be {allowed}")
