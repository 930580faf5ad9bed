"""Denoising queries: noisy copies of the ground truth, which a decoder learns to correct (DN-DETR, DINO)."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

# RT-DETR's values: the fraction of labels that are drawn anew; how far corners move, in halves of the box's sides.
LABEL_NOISE = 0.25
BOX_NOISE = 1.0


class DenoisingQueries(NamedTuple):
    """Queries of every image, group after group; a group holds a positive of each object, then perhaps a negative."""

    labels: Int64[Tensor, "batch queries"]
    """With noise: some of them are wrong."""
    boxes_cxcywh: Float[Tensor, "batch queries 4"]
    real: Bool[Tensor, "batch queries"]
    """False for a query that only pads an image with fewer objects than others have."""
    group: Int64[Tensor, " queries"]
    target: Int64[Tensor, " queries"]
    """The index of the object that a query is a copy of."""
    positive: Bool[Tensor, " queries"]
    """A positive's target is its object; a negative's target is no object (contrastive: DINO, section 3.3)."""


def make_denoising_queries(
    labels: Sequence[Int64[Tensor, " _"]],
    boxes_cxcywh: Sequence[Float[Tensor, "_ 4"]],
    num_classes: int,
    num_denoising: int,
    *,
    contrastive: bool = True,
) -> DenoisingQueries | None:
    """About `num_denoising` queries an image, in whole groups, and at least one group; None if `num_denoising` is 0.

    A batch without any object gets one group of padding, so that processes with and without objects compute the same
    sums. A positive's corners move by less than `BOX_NOISE` times half of the box's sides, a negative's by once to
    twice that (Zhang et al. 2022, section 3.3); without `contrastive` there are no negatives, as in DN-DETR.
    The noise comes from torch's global generator.
    """
    if not labels or not num_denoising:
        return None
    device, batch = boxes_cxcywh[0].device, len(labels)
    count = max(len(one) for one in labels)
    kinds = (True, False) if contrastive else (True,)
    groups, most = (max(num_denoising // (len(kinds) * count), 1), count) if count else (1, 1)
    copies = len(kinds) * groups  # of each object
    padded_labels, padded_boxes = (pad_sequence(list(part), batch_first=True) for part in (labels, boxes_cxcywh))
    if not count:
        padded_labels, padded_boxes = padded_labels.new_zeros(batch, 1), padded_boxes.new_zeros(batch, 1, 4)
    real = torch.arange(most, device=device) < torch.tensor([len(one) for one in labels], device=device)[:, None]
    positive = torch.tensor(kinds, device=device).repeat_interleave(most).repeat(groups)
    true_labels = padded_labels.repeat(1, copies)
    drawn = torch.randint(num_classes, true_labels.shape, device=device)
    changed = torch.rand(true_labels.shape, device=device) < LABEL_NOISE
    return DenoisingQueries(
        torch.where(changed, drawn, true_labels),
        _with_noise(padded_boxes.float().repeat(1, copies, 1), positive),
        real.repeat(1, copies),
        torch.arange(groups, device=device).repeat_interleave(len(kinds) * most),
        torch.arange(most, device=device).repeat(copies),
        positive,
    )


def _with_noise(boxes: Tensor, positive: Tensor) -> Tensor:
    """Boxes whose corners have moved, each on its own, but not out of the image."""
    half = boxes[..., 2:] / 2
    corners = torch.cat([boxes[..., :2] - half, boxes[..., :2] + half], dim=-1)
    distance = torch.rand_like(corners) + (~positive)[:, None]
    sign = torch.randint(0, 2, corners.shape, device=boxes.device) * 2 - 1
    corners = (corners + sign * distance * BOX_NOISE * half.repeat(1, 1, 2)).clamp(0, 1)
    start = torch.minimum(corners[..., :2], corners[..., 2:])
    end = torch.maximum(corners[..., :2], corners[..., 2:])
    return torch.cat([(start + end) / 2, end - start], dim=-1)


def denoising_attention_mask(denoising: DenoisingQueries, num_queries: int) -> Bool[Tensor, "batch 1 queries queries"]:
    """True where a query may attend to another; the `num_queries` matched queries come first.

    Matched queries attend to each other, denoising queries to the real ones of their own group. Denoising queries hold
    the ground truth, so no query outside of a group may attend to it.
    """
    device = denoising.group.device
    group = torch.cat([torch.full((num_queries,), -1, device=device), denoising.group])
    real = torch.cat([denoising.real.new_ones(len(denoising.real), num_queries), denoising.real], dim=1)
    return (group[:, None] == group)[None, None] & real[:, None, None, :]
