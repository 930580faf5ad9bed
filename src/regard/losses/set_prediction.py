"""The loss of a set of predictions (Carion et al. 2020, section 3.1 and appendix A.2)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor, nn

from regard.errors import RegardError, unknown
from regard.losses.boxes import generalized_iou, iou, xyxy_of
from regard.losses.matching import DETR_COSTS, Matches, MatchingCosts, finite_predictions, match

LABEL_LOSSES = ("cross_entropy", "focal", "varifocal", "matchability")
# Weight and exponent for "no object" in the varifocal loss, and the exponent of the matchability-aware one.
VARIFOCAL_ALPHA, VARIFOCAL_GAMMA, MATCHABILITY_GAMMA = 0.75, 2.0, 1.5


@dataclass(frozen=True)
class SetLosses:
    """The loss that is minimised, and its terms."""

    total: Float32[Tensor, ""]
    """The weighted sum over the terms and over all layers."""
    named: dict[str, Tensor]
    """`loss_ce`, `loss_bbox` and `loss_giou` of the last layer; with `_0`, `_1`, ... those of the layers before it."""
    matches: Matches


class SetPredictionLoss(nn.Module):
    """Σ over the layers of 1 · class loss + 5 · L1 + 2 · (1 - GIoU): the object matched with a query is its target.

    `label_loss` names the class loss. "cross_entropy" is over `num_classes` and "no object", which comes last and has
    the weight `no_object_weight`. The other three have a sigmoid for each class and no "no object", are divided by the
    number of objects, and need `costs.focal`: "focal" is the default there; in "varifocal" and "matchability" the
    target of a matched query is its IoU with the object. L1 and GIoU are summed over the matched pairs and divided by
    the number of objects. That number is at least 1. In training it is the mean over all processes; in evaluation
    (`eval()`) each process takes its own, since another may have no such batch.

    Everything is computed in float32. A prediction that is not finite is left out of all terms, so that the loss and
    the gradients of the others stay finite; `matches.not_finite` counts these predictions.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        costs: MatchingCosts = DETR_COSTS,
        label_weight: float = 1.0,
        l1_weight: float = 5.0,
        giou_weight: float = 2.0,
        no_object_weight: float = 0.1,
        label_loss: str | None = None,
    ) -> None:
        super().__init__()
        self.label_loss = label_loss or ("focal" if costs.focal else "cross_entropy")
        if self.label_loss not in LABEL_LOSSES:
            raise unknown("label_loss", self.label_loss, LABEL_LOSSES)
        if costs.focal == (self.label_loss == "cross_entropy"):
            wanted = "False: a softmax" if costs.focal else "True: a sigmoid of each class"
            raise RegardError(f"label_loss is {self.label_loss!r}; then costs.focal must be {wanted}")
        self.num_classes = num_classes
        self.costs = costs
        self.weights = {"loss_ce": label_weight, "loss_bbox": l1_weight, "loss_giou": giou_weight}
        class_weights = torch.ones(num_classes + 1)
        class_weights[-1] = no_object_weight
        self.class_weights: Tensor
        self.register_buffer("class_weights", class_weights, persistent=False)

    def forward(
        self,
        logits: Float[Tensor, "layers batch queries classes"],
        boxes_cxcywh: Float[Tensor, "layers batch queries 4"],
        labels: Sequence[Int64[Tensor, " _"]],
        target_boxes: Sequence[Float[Tensor, "_ 4"]],
    ) -> SetLosses:
        """`target_boxes` are (cx, cy, w, h) in [0, 1], as predictions are, one tensor an image; errors as `match`."""
        with torch.autocast(logits.device.type, enabled=False):
            matches = match(logits.float(), boxes_cxcywh.float(), labels, target_boxes, self.costs)
        return self.for_matches(matches, logits, boxes_cxcywh, labels, target_boxes)

    def for_matches(
        self,
        matches: Matches,
        logits: Float[Tensor, "layers batch queries classes"],
        boxes_cxcywh: Float[Tensor, "layers batch queries 4"],
        labels: Sequence[Int64[Tensor, " _"]],
        target_boxes: Sequence[Float[Tensor, "_ 4"]],
        *,
        counted: Bool[Tensor, "batch queries"] | None = None,
        repeats: int = 1,
    ) -> SetLosses:
        """The loss of given matches, as in denoising, where each query is made from the object it is matched with.

        counted: False for queries that the loss ignores, such as padding. repeats: how many queries each object is
        matched with; the number of objects is multiplied by it.
        """
        with torch.autocast(logits.device.type, enabled=False):
            logits, boxes_cxcywh = logits.float(), boxes_cxcywh.float()
            finite = finite_predictions(logits, boxes_cxcywh)
            # Zeros in the place of what is not finite, before anything is computed: 0 · NaN would be NaN.
            logits = logits.masked_fill(~finite[..., None], 0.0)
            boxes_cxcywh = boxes_cxcywh.masked_fill(~finite[..., None], 0.5)
            num_boxes = torch.tensor(float(repeats * sum(map(len, target_boxes))), device=logits.device)
            if self.training:
                num_boxes = _mean_over_processes(num_boxes)
            num_boxes = num_boxes.clamp(min=1.0)
            counts = finite if counted is None else finite & counted
            terms = {
                "loss_ce": self._label_loss(logits, boxes_cxcywh, counts, labels, target_boxes, matches, num_boxes),
                **self._box_losses(boxes_cxcywh, finite, target_boxes, matches, num_boxes),
            }
        total = sum((self.weights[name] * value.sum() for name, value in terms.items()), logits.new_zeros(()))
        last = len(logits) - 1
        named = {
            name if layer == last else f"{name}_{layer}": value[layer]
            for layer in range(len(logits))
            for name, value in terms.items()
        }
        return SetLosses(total, named, matches)

    def _label_loss(
        self,
        logits: Tensor,
        boxes: Tensor,
        counts: Tensor,
        labels: Sequence[Tensor],
        target_boxes: Sequence[Tensor],
        matches: Matches,
        num_boxes: Tensor,
    ) -> Float32[Tensor, " layers"]:
        of_objects = _taken(labels, matches, logits.device)
        if self.label_loss == "cross_entropy":
            wanted = torch.full(logits.shape[:3], self.num_classes, dtype=torch.int64, device=logits.device)
            wanted[matches.layer, matches.image, matches.query] = of_objects
            loss = F.cross_entropy(logits.flatten(0, 2), wanted.flatten(), self.class_weights, reduction="none")
            weight = self.class_weights[wanted] * counts
            loss = loss.view(counts.shape) * counts
            return loss.sum(dim=(1, 2)) / weight.sum(dim=(1, 2)).clamp(min=torch.finfo(torch.float32).tiny)
        quality = torch.zeros_like(logits)
        place = (matches.layer, matches.image, matches.query, of_objects)
        quality[place] = self._quality(boxes, target_boxes, matches)
        is_it = torch.zeros_like(logits, dtype=torch.bool)
        is_it[place] = True
        loss = self._sigmoid_loss(logits, quality, is_it) * counts[..., None]
        return loss.sum(dim=(1, 2, 3)) / num_boxes

    @torch.no_grad()
    def _quality(self, boxes: Tensor, target_boxes: Sequence[Tensor], matches: Matches) -> Tensor:
        """The target of each match's score: 1, or the IoU of its box."""
        if self.label_loss == "focal":
            return boxes.new_ones(len(matches.layer))
        wanted = _taken(target_boxes, matches, boxes.device).float().view(-1, 4)
        return iou(xyxy_of(boxes[matches.layer, matches.image, matches.query]), xyxy_of(wanted))

    def _sigmoid_loss(self, logits: Tensor, quality: Tensor, is_it: Tensor) -> Tensor:
        if self.label_loss == "focal":
            return _focal_loss(logits, quality, self.costs.alpha, self.costs.gamma)
        if self.label_loss == "varifocal":
            return varifocal_loss(logits, quality, is_it)
        return matchability_loss(logits, quality, is_it)

    def _box_losses(
        self, boxes: Tensor, finite: Tensor, target_boxes: Sequence[Tensor], matches: Matches, num_boxes: Tensor
    ) -> dict[str, Float32[Tensor, " layers"]]:
        predicted = boxes[matches.layer, matches.image, matches.query]
        counts = finite[matches.layer, matches.image, matches.query]
        wanted = _taken(target_boxes, matches, boxes.device).float().view(-1, 4)
        distance = (predicted - wanted).abs().sum(dim=-1)
        apart = 1 - generalized_iou(xyxy_of(predicted), xyxy_of(wanted))
        nothing = boxes.new_zeros(len(boxes))
        return {
            name: nothing.index_add(0, matches.layer, value * counts) / num_boxes
            for name, value in (("loss_bbox", distance), ("loss_giou", apart))
        }


def _focal_loss(logits: Tensor, wanted: Tensor, alpha: float, gamma: float) -> Tensor:
    """-α_t (1 - p_t)^γ log p_t  (Lin et al. 2017, eq. 5)."""
    cross_entropy = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    probability = logits.sigmoid()
    missed = probability * (1 - wanted) + (1 - probability) * wanted
    return (alpha * wanted + (1 - alpha) * (1 - wanted)) * missed**gamma * cross_entropy


def varifocal_loss(
    logits: Float[Tensor, "*shape"], quality: Float[Tensor, "*shape"], is_it: Bool[Tensor, "*shape"]
) -> Float[Tensor, "*shape"]:
    """q · BCE(p, q) for objects, α p^γ · BCE(p, 0) for "no object"  (Zhang et al. 2021, eq. 2)."""
    weight = torch.where(is_it & (quality > 0), quality, VARIFOCAL_ALPHA * logits.detach().sigmoid() ** VARIFOCAL_GAMMA)
    return weight * F.binary_cross_entropy_with_logits(logits, quality, reduction="none")


def matchability_loss(
    logits: Float[Tensor, "*shape"], quality: Float[Tensor, "*shape"], is_it: Bool[Tensor, "*shape"]
) -> Float[Tensor, "*shape"]:
    """BCE(p, q^γ) for objects, p^γ · BCE(p, 0) for "no object"  (DEIM, Huang et al. 2024, eq. 3).

    A match of low quality q counts here too; the varifocal loss nearly ignores it.
    """
    weight = torch.where(is_it, 1.0, logits.detach().sigmoid() ** MATCHABILITY_GAMMA)
    return weight * F.binary_cross_entropy_with_logits(logits, quality**MATCHABILITY_GAMMA, reduction="none")


def _taken(of_images: Sequence[Tensor], matches: Matches, device: torch.device) -> Tensor:
    """The entry of each match's object, from one tensor an image with an entry for each object."""
    starts = torch.tensor([0, *(len(one) for one in of_images)], device=device).cumsum(0)
    joined = torch.cat([one.to(device) for one in of_images])
    return joined[starts[matches.image] + matches.target]


def _mean_over_processes(mean: Float32[Tensor, ""]) -> Float32[Tensor, ""]:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(mean)
        mean /= torch.distributed.get_world_size()
    return mean
