"""Which prediction answers for which object: Hungarian matching (Carion et al. 2020, section 3.1)."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

from regard.errors import RegardError
from regard.losses.boxes import generalized_iou, xyxy_of
from regard.ops.arguments import require_floats, require_shape

OP = "matching"
# Logits or coordinates beyond this count as not finite: soon after, areas and exponents would not be either.
LARGEST = 1e6
# Costs more than anything finite can, and still leaves a sum of costs exact enough in float64.
NOT_FINITE = 1e9
INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
# Up to this weight a term of a finite cost is below 8e8, since a coordinate is at most 2e6.
LARGEST_WEIGHT = 100.0


@dataclass(frozen=True)
class MatchingCosts:
    """Weights of the three terms of a match's cost; `alpha` and `gamma` shape the class term of `focal`."""

    label: float = 1.0
    l1: float = 5.0
    giou: float = 2.0
    focal: bool = False
    """Each class has a sigmoid of its own, as in Deformable DETR, instead of one softmax with "no object"."""
    alpha: float = 0.25
    gamma: float = 2.0

    def __post_init__(self) -> None:
        for name in ("label", "l1", "giou", "alpha", "gamma"):
            value = getattr(self, name)
            if not 0 <= value <= LARGEST_WEIGHT:  # NaN is not either
                raise RegardError(f"{OP}: the cost's {name} must be from 0 to {LARGEST_WEIGHT:g}, got {value}")


DETR_COSTS = MatchingCosts()


@torch.no_grad()
def match_image(
    logits: Float[Tensor, "queries classes"],
    boxes_cxcywh: Float[Tensor, "queries 4"],
    labels: Int64[Tensor, " objects"],
    target_boxes: Float[Tensor, "objects 4"],
    costs: MatchingCosts = DETR_COSTS,
) -> tuple[Int64[Tensor, " matches"], Int64[Tensor, " matches"]]:
    """The definition, for one image: (queries, objects), the pairs whose costs have the least sum.

    cost(q, t) = label · (-p_q(c_t)) + l1 · |b_q - b_t|_1 + giou · (-GIoU(b_q, b_t))  (eq. 1 and 2), with the class c_t
    and the box b_t of object t. No query and no object is in two pairs; there are min(queries, objects) pairs, sorted
    by query. All numbers have to be finite: RegardError if they are not. `match` is held to this by a test.
    """
    _check(logits[None, None], boxes_cxcywh[None, None], [labels], [target_boxes])
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < logits.shape[1]:
        raise RegardError(f"{OP}: labels must be from 0 to {logits.shape[1] - 1}, got {labels.tolist()}")
    if (
        not finite_predictions(logits[None, None], boxes_cxcywh[None, None]).all()
        or not (target_boxes.abs() <= LARGEST).all()
    ):
        raise RegardError(f"{OP}: match_image takes finite numbers only, of at most {LARGEST:g}")
    boxes, target_boxes = boxes_cxcywh.float(), target_boxes.float()
    score = _class_scores(logits.float(), costs)[:, labels]
    distance = torch.cdist(boxes, target_boxes, p=1)
    overlap = generalized_iou(xyxy_of(boxes)[:, None], xyxy_of(target_boxes)[None])
    cost = -costs.label * score + costs.l1 * distance - costs.giou * overlap  # (queries, objects)
    queries, objects = linear_sum_assignment(cost.cpu().numpy())
    return torch.from_numpy(queries).to(boxes.device), torch.from_numpy(objects).to(boxes.device)


@dataclass(frozen=True)
class Matches:
    """Match i: in `layer[i]`, query `query[i]` of image `image[i]` answers for that image's object `target[i]`.

    Sorted by layer, image and query; on the device of the predictions.
    """

    layer: Int64[Tensor, " matches"]
    image: Int64[Tensor, " matches"]
    query: Int64[Tensor, " matches"]
    target: Int64[Tensor, " matches"]
    unmatched: int
    """Objects of the batch that are left without a query."""
    not_finite: int
    """Predictions, over all layers, with a logit or a box that is NaN or infinite."""

    def pairs(self, layer: int, image: int) -> tuple[Int64[Tensor, " pairs"], Int64[Tensor, " pairs"]]:
        """(queries, targets) of one image in one layer."""
        chosen = (self.layer == layer) & (self.image == image)
        return self.query[chosen], self.target[chosen]


@torch.no_grad()
def match(
    logits: Float[Tensor, "layers batch queries classes"],
    boxes_cxcywh: Float[Tensor, "layers batch queries 4"],
    labels: Sequence[Int64[Tensor, " _"]],
    target_boxes: Sequence[Float[Tensor, "_ 4"]],
    costs: MatchingCosts = DETR_COSTS,
) -> Matches:
    """`match_image` for each layer and image of a batch, with one transfer to the processor.

    `target_boxes` are (cx, cy, w, h) in [0, 1], as predictions are. An object goes to one query at most, a query to one
    object. With more objects than queries the cheapest are matched, and a warning counts the rest. A prediction that is
    not finite, or beyond `LARGEST`, is matched only where no finite one is left, and a warning counts them. Predictions
    and boxes are of any floating dtype, and computed with in float32; labels are integers, on any device. RegardError
    where labels, boxes and predictions do not belong together, and for a target that is not finite.
    """
    _check(logits, boxes_cxcywh, labels, target_boxes)
    counts = [len(boxes) for boxes in target_boxes]
    most, num_queries = max(counts, default=0), logits.shape[2]
    finite = finite_predictions(logits, boxes_cxcywh)
    padded_labels, padded_boxes = _padded(labels, target_boxes, most, boxes_cxcywh)
    known = (padded_labels >= 0) & (padded_labels < logits.shape[3])
    sound = known & (padded_boxes.abs() <= LARGEST).all(-1)
    cost = cost_matrix(logits, boxes_cxcywh, padded_labels.where(known, 0), padded_boxes, costs)
    cost.masked_fill_(~finite[:, :, None], NOT_FINITE)

    # All that the processor has to know, in one transfer.
    columns = [cost.flatten(), (~finite).sum().float().view(1), sound.float().flatten()]
    costs_on_cpu, bad, sound_on_cpu = torch.cat(columns).cpu().split([len(column) for column in columns])
    _require_sound(sound_on_cpu.view(len(counts), most))
    not_finite = int(bad)
    unmatched = sum(max(count - num_queries, 0) for count in counts)
    if not_finite:
        warnings.warn(
            f"matching: {not_finite} of {finite.numel()} predictions are not finite, and match last", stacklevel=2
        )
    if unmatched:
        warnings.warn(
            f"matching: {unmatched} objects have no query left; one image has {most}, the model {num_queries} queries",
            stacklevel=2,
        )
    assigned = torch.from_numpy(_assign(costs_on_cpu.view(cost.shape).numpy(), counts)).to(logits.device)
    layer, image, query, target = assigned.unbind(0)
    return Matches(layer, image, query, target, unmatched, not_finite)


def cost_matrix(
    logits: Float[Tensor, "layers batch queries classes"],
    boxes_cxcywh: Float[Tensor, "layers batch queries 4"],
    labels: Int64[Tensor, "batch objects"],
    target_boxes: Float32[Tensor, "batch objects 4"],
    costs: MatchingCosts = DETR_COSTS,
) -> Float32[Tensor, "layers batch objects queries"]:
    """The costs of `match_image` for each layer and image, in float32, with the objects first."""
    boxes = boxes_cxcywh.float()
    scores = _class_scores(logits.float(), costs)
    index = labels[None, :, None].expand(len(scores), -1, scores.shape[2], -1)
    score = scores.gather(3, index).transpose(2, 3)
    distance = torch.cdist(target_boxes.expand(len(boxes), -1, -1, -1), boxes, p=1)
    overlap = generalized_iou(xyxy_of(boxes)[:, :, None], xyxy_of(target_boxes)[None, :, :, None])
    return (costs.l1 * distance).sub_(score, alpha=costs.label).sub_(overlap, alpha=costs.giou)


def finite_predictions(
    logits: Float[Tensor, "layers batch queries classes"], boxes_cxcywh: Float[Tensor, "layers batch queries 4"]
) -> Bool[Tensor, "layers batch queries"]:
    """True where the logits and the coordinates of a prediction have a root mean square of at most `LARGEST`.

    So all of them are finite.
    """
    finite = boxes_cxcywh.new_ones(logits.shape[:-1], dtype=torch.bool)
    for values in (logits, boxes_cxcywh):
        # A sum of squares is the fastest way to look at each: nothing cancels, and no comparison holds with NaN.
        size = torch.linalg.vector_norm(values, dim=-1, dtype=torch.promote_types(values.dtype, torch.float32))
        finite &= size <= LARGEST * values.shape[-1] ** 0.5
    return finite


def _class_scores(logits: Tensor, costs: MatchingCosts) -> Tensor:
    """What a match with each class gains: its probability; with `focal`, the focal loss of "is not" less that of "is".

    The focal losses are computed by logsigmoid, so that no probability of 0 has its logarithm taken.
    """
    if not costs.focal:
        return logits.softmax(-1)
    probability = logits.sigmoid()
    is_it = -costs.alpha * (1 - probability) ** costs.gamma * torch.nn.functional.logsigmoid(logits)
    is_not = -(1 - costs.alpha) * probability**costs.gamma * torch.nn.functional.logsigmoid(-logits)
    return is_not - is_it


def linear_sum_assignment(cost: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """scipy's, which is imported where it is needed: that takes half a second."""
    from scipy.optimize import linear_sum_assignment as assign

    rows, columns = assign(cost)
    return rows, columns


def _assign(cost: np.ndarray, counts: Sequence[int]) -> np.ndarray:
    """(4, matches): layer, image, query and target of each match."""
    queries, targets, sizes = [], [], []
    for of_layer in cost:
        for of_image, count in zip(of_layer, counts, strict=True):
            of_objects = of_image[:count].astype(np.float64)  # fewer rows than columns: faster in scipy
            # One that is not finite must cost more than can be saved by moving all other matches.
            of_objects[of_objects >= NOT_FINITE] *= max(count, 1)
            of_targets, of_queries = linear_sum_assignment(of_objects)
            order = of_queries.argsort()
            queries.append(of_queries[order])
            targets.append(of_targets[order])
            sizes.append(len(order))
    place = np.repeat(np.arange(len(sizes)), sizes)
    layer, image = np.divmod(place, max(len(counts), 1))
    return np.stack([layer, image, np.concatenate([*queries, place[:0]]), np.concatenate([*targets, place[:0]])])


def _padded(
    labels: Sequence[Tensor], target_boxes: Sequence[Tensor], most: int, like: Tensor
) -> tuple[Int64[Tensor, "batch most"], Float32[Tensor, "batch most 4"]]:
    """The objects of all images in one tensor, zeros behind those of an image; the zeros are never looked at."""
    padded_labels = torch.zeros(len(labels), most, dtype=torch.int64, device=like.device)
    padded_boxes = torch.zeros(len(labels), most, 4, device=like.device)
    for image, (of_image, boxes) in enumerate(zip(labels, target_boxes, strict=True)):
        padded_labels[image, : len(of_image)] = of_image
        padded_boxes[image, : len(boxes)] = boxes
    return padded_labels, padded_boxes


def _check(logits: Tensor, boxes: Tensor, labels: Sequence[Tensor], target_boxes: Sequence[Tensor]) -> None:
    require_floats(OP, logits=logits, boxes=boxes)
    if logits.ndim != 4 or not logits.shape[3]:
        raise RegardError(
            f"{OP}: logits must be (layers, batch, queries, classes) with at least one class, got {tuple(logits.shape)}"
        )
    require_shape(OP, "boxes", boxes, (*logits.shape[:3], 4), "(layers, batch, queries, 4)")
    if logits.device != boxes.device:
        raise RegardError(f"{OP}: boxes are on {boxes.device}, but must be on {logits.device}, as logits are")
    if not len(labels) == len(target_boxes) == logits.shape[1]:
        raise RegardError(
            f"{OP}: predictions of {logits.shape[1]} images, labels of {len(labels)}, boxes of {len(target_boxes)}"
        )
    for image, (of_image, boxes_of_image) in enumerate(zip(labels, target_boxes, strict=True)):
        require_floats(f"{OP}: image {image}", target_boxes=boxes_of_image)
        if of_image.dtype not in INTEGERS or of_image.ndim != 1:
            raise RegardError(
                f"{OP}: image {image}: labels must be integers, (objects,), "
                f"got {str(of_image.dtype).removeprefix('torch.')} {tuple(of_image.shape)}"
            )
        if boxes_of_image.ndim and len(of_image) != len(boxes_of_image):
            raise RegardError(f"{OP}: image {image} has {len(of_image)} labels and {len(boxes_of_image)} boxes")
        require_shape(f"{OP}: image {image}", "target_boxes", boxes_of_image, (len(of_image), 4), "(objects, 4)")


def _require_sound(sound: Tensor) -> None:
    bad = (sound == 0).nonzero().tolist()
    if bad:
        raise RegardError(
            f"{OP}: object {bad[0][1]} of image {bad[0][0]} has a label that the model has no class for, "
            f"or a box that is not finite, or beyond {LARGEST:g}"
        )
