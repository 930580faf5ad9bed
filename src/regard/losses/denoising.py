"""The loss of a detector with proposals and denoising: matched queries, the encoder's tokens, denoising queries."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from regard.losses.matching import Matches, MatchingCosts
from regard.losses.set_prediction import SetLosses, SetPredictionLoss

# Deformable DETR's: the class counts twice, as a focal cost.
SIGMOID_COSTS = MatchingCosts(label=2.0, focal=True)


# What the loss reads of a model's output, which is a `regard.models.DNDETROutput`.
@runtime_checkable
class Predictions(Protocol):
    @property
    def logits(self) -> Tensor: ...
    @property
    def boxes_cxcywh(self) -> Tensor: ...


@runtime_checkable
class DenoisingQueries(Protocol):
    @property
    def real(self) -> Tensor: ...
    @property
    def group(self) -> Tensor: ...
    @property
    def target(self) -> Tensor: ...
    @property
    def positive(self) -> Tensor: ...


@runtime_checkable
class DenoisingOutput(Protocol):
    @property
    def predictions(self) -> Predictions: ...
    @property
    def queries(self) -> DenoisingQueries: ...


@runtime_checkable
class Output(Predictions, Protocol):
    @property
    def proposals(self) -> Predictions | None: ...
    @property
    def denoising(self) -> DenoisingOutput | None: ...


class DNDETRLoss(nn.Module):
    """The set loss of the decoder's layers, of the encoder's proposals (as one more layer) and of denoising queries.

    Denoising queries are not matched: the target of each is the object it was made from, and that of a negative is "no
    object" (Zhang et al. 2022, section 3.3). `total` is the sum of the three; `named` holds their terms: `loss_ce`, ...
    of the decoder, `loss_ce_enc`, ... of the proposals, `loss_ce_dn`, ... of the denoising queries. Errors as `match`.
    """

    def __init__(self, num_classes: int, *, label_loss: str = "matchability") -> None:
        super().__init__()
        self.set_loss = SetPredictionLoss(num_classes, costs=SIGMOID_COSTS, label_loss=label_loss)

    def forward(self, output: Output, labels: Sequence[Tensor], target_boxes: Sequence[Tensor]) -> SetLosses:
        """`output` is a DNDETR's; `target_boxes` are (cx, cy, w, h) in [0, 1], one tensor an image."""
        matched = self.set_loss(output.logits, output.boxes_cxcywh, labels, target_boxes)
        total, named = matched.total, dict(matched.named)
        if output.proposals is not None:
            proposed = self.set_loss(output.proposals.logits, output.proposals.boxes_cxcywh, labels, target_boxes)
            total = total + proposed.total
            named |= {f"{name}_enc": value for name, value in proposed.named.items()}
        if output.denoising is not None:
            denoised = self._denoising(output.denoising, labels, target_boxes)
            total = total + denoised.total
            named |= {_named(name): value for name, value in denoised.named.items()}
        return SetLosses(total, named, matched.matches)

    def _denoising(
        self, denoising: DenoisingOutput, labels: Sequence[Tensor], target_boxes: Sequence[Tensor]
    ) -> SetLosses:
        predictions, queries = denoising.predictions, denoising.queries
        layers = len(predictions.logits)
        image, query = (queries.real & queries.positive).nonzero(as_tuple=True)
        matches = Matches(
            torch.arange(layers, device=image.device).repeat_interleave(len(image)),
            image.repeat(layers),
            query.repeat(layers),
            queries.target[query].repeat(layers),
            unmatched=0,
            not_finite=0,
        )
        groups = int(queries.group[-1]) + 1
        return self.set_loss.for_matches(
            matches,
            predictions.logits,
            predictions.boxes_cxcywh,
            labels,
            target_boxes,
            counted=queries.real,
            repeats=groups,
        )


def _named(name: str) -> str:
    """loss_ce_0 -> loss_ce_dn_0, as the original names them."""
    parts = name.split("_")
    return "_".join([*parts[:2], "dn", *parts[2:]])
