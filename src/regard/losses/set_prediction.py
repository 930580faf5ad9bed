"""The loss of a set of predictions (Carion et al. 2020, section 3.1 and appendix A.2)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Int64
from torch import Tensor, nn

from regard.losses.boxes import generalized_iou, xyxy_of
from regard.losses.matching import DETR_COSTS, Matches, MatchingCosts, finite_predictions, match


@dataclass(frozen=True)
class SetLosses:
    """What is minimised, and what it is made of."""

    total: Float32[Tensor, ""]
    """The weighted sum over the terms and over all layers."""
    named: dict[str, Tensor]
    """`loss_ce`, `loss_bbox` and `loss_giou` of the last layer; with `_0`, `_1`, ... those of the layers before it."""
    matches: Matches


class SetPredictionLoss(nn.Module):
    """Σ over the layers of 1 · class loss + 5 · L1 + 2 · (1 - GIoU), each query held to the object it is matched with.

    The class loss is the cross-entropy over `num_classes` and "no object", which comes last and counts
    `no_object_weight`; with `costs.focal` it is the focal loss of a sigmoid for each class (there is no "no object"),
    and is divided by the number of objects. L1 and GIoU are of the matched pairs, divided by the number of objects,
    which is the mean over all processes and at least 1.

    Everything is computed in float32. A prediction that is not finite is left out of all terms, so that the loss and
    the gradients of the others stay finite; `matches.not_finite` counts such.
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
    ) -> None:
        super().__init__()
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
        labels: Sequence[Int64[Tensor, "_"]],
        target_boxes: Sequence[Float[Tensor, "_ 4"]],
    ) -> SetLosses:
        """`target_boxes` are (cx, cy, w, h) in [0, 1], as predictions are, one tensor an image; errors as `match`."""
        with torch.autocast(logits.device.type, enabled=False):
            logits, boxes_cxcywh = logits.float(), boxes_cxcywh.float()
            matches = match(logits, boxes_cxcywh, labels, target_boxes, self.costs)
            finite = finite_predictions(logits, boxes_cxcywh)
            # Zeros in the place of what is not finite, before anything is computed: 0 · NaN would be NaN.
            logits = logits.masked_fill(~finite[..., None], 0.0)
            boxes_cxcywh = boxes_cxcywh.masked_fill(~finite[..., None], 0.5)
            num_boxes = _mean_over_processes(sum(len(boxes) for boxes in target_boxes), logits.device)
            terms = {
                "loss_ce": self._label_loss(logits, finite, labels, matches, num_boxes),
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
        self, logits: Tensor, finite: Tensor, labels: Sequence[Tensor], matches: Matches, num_boxes: Tensor
    ) -> Float32[Tensor, " layers"]:
        of_objects = _taken(labels, matches, logits.device)
        if self.costs.focal:
            wanted = torch.zeros_like(logits)
            wanted[matches.layer, matches.image, matches.query, of_objects] = 1.0
            loss = _focal_loss(logits, wanted, self.costs.alpha, self.costs.gamma) * finite[..., None]
            return loss.sum(dim=(1, 2, 3)) / num_boxes
        wanted = torch.full(logits.shape[:3], self.num_classes, dtype=torch.int64, device=logits.device)
        wanted[matches.layer, matches.image, matches.query] = of_objects
        loss = F.cross_entropy(logits.flatten(0, 2), wanted.flatten(), self.class_weights, reduction="none")
        weight = self.class_weights[wanted] * finite
        loss = loss.view(finite.shape) * finite
        return loss.sum(dim=(1, 2)) / weight.sum(dim=(1, 2)).clamp(min=torch.finfo(torch.float32).tiny)

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


def _taken(of_images: Sequence[Tensor], matches: Matches, device: torch.device) -> Tensor:
    """What belongs to the object of each match, out of one tensor an image."""
    starts = torch.tensor([0, *(len(one) for one in of_images)], device=device).cumsum(0)
    joined = torch.cat([one.to(device) for one in of_images])
    return joined[starts[matches.image] + matches.target]


def _mean_over_processes(number: int, device: torch.device) -> Float32[Tensor, ""]:
    mean = torch.tensor(float(number), device=device)
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(mean)
        mean /= torch.distributed.get_world_size()
    return mean.clamp(min=1.0)
