"""DenoisingQueries ground truth as further queries, which a decoder learns to put right (DN-DETR, DINO)."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

# Shares of the labels that are drawn anew, and of half a box's sides that its corners move by: RT-DETR's.
LABEL_NOISE = 0.25
BOX_NOISE = 1.0


class DenoisingQueries(NamedTuple):
    """Queries of every image, group after group; in each first a positive of each object, then perhaps a negative."""

    labels: Int64[Tensor, "batch noised"]
    """Some of them wrong."""
    boxes_cxcywh: Float[Tensor, "batch noised 4"]
    real: Bool[Tensor, "batch noised"]
    """False where an image has fewer objects than another."""
    group: Int64[Tensor, " noised"]
    target: Int64[Tensor, " noised"]
    """Which object of its image a query was made of."""
    positive: Bool[Tensor, " noised"]
    """What is to be put right; a negative is to be known as no object (contrastive: DINO, section 3.3)."""


def make_denoising_queries(
    labels: Sequence[Int64[Tensor, "_"]],
    boxes_cxcywh: Sequence[Float[Tensor, "_ 4"]],
    num_classes: int,
    num_denoising: int,
    *,
    contrastive: bool = True,
) -> DenoisingQueries | None:
    """About `num_denoising` queries an image, in as many groups as that makes, and one at least; None if that is 0.

    Without any object there is one group with nothing real in it, so that processes with and without objects compute
    the same sums. A positive's corners move by less than `BOX_NOISE` times half of the box's sides, a negative's by
    once to twice that (Zhang et al. 2022, section 3.3); without `contrastive` there are no negatives, as in DN-DETR.
    Drawn from torch's global generator.
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
    wanted = padded_labels.repeat(1, copies)
    drawn = torch.randint(num_classes, wanted.shape, device=device)
    changed = torch.rand(wanted.shape, device=device) < LABEL_NOISE
    return DenoisingQueries(
        torch.where(changed, drawn, wanted),
        _moved(padded_boxes.float().repeat(1, copies, 1), positive),
        real.repeat(1, copies),
        torch.arange(groups, device=device).repeat_interleave(len(kinds) * most),
        torch.arange(most, device=device).repeat(copies),
        positive,
    )


def _moved(boxes: Tensor, positive: Tensor) -> Tensor:
    """Each corner moved on its own, and kept inside of the image."""
    half = boxes[..., 2:] / 2
    corners = torch.cat([boxes[..., :2] - half, boxes[..., :2] + half], dim=-1)
    share = torch.rand_like(corners) + (~positive)[:, None]
    sign = torch.randint(0, 2, corners.shape, device=boxes.device) * 2 - 1
    corners = (corners + sign * share * BOX_NOISE * half.repeat(1, 1, 2)).clamp(0, 1)
    start = torch.minimum(corners[..., :2], corners[..., 2:])
    end = torch.maximum(corners[..., :2], corners[..., 2:])
    return torch.cat([(start + end) / 2, end - start], dim=-1)


def denoising_attention_mask(noised: DenoisingQueries, num_queries: int) -> Bool[Tensor, "batch 1 queries queries"]:
    """Which query sees which, the matched first: these see each other, and noised ones the real ones of their group.

    The ground truth is in the noised queries, so that no other may look there.
    """
    device = noised.group.device
    group = torch.cat([torch.full((num_queries,), -1, device=device), noised.group])
    real = torch.cat([noised.real.new_ones(len(noised.real), num_queries), noised.real], dim=1)
    return (group[:, None] == group)[None, None] & real[:, None, None, :]
