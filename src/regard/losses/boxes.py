"""Boxes as numbers: two ways to write them, and how much two of them overlap."""

import torch
from jaxtyping import Float
from torch import Tensor


def xyxy_of(boxes_cxcywh: Float[Tensor, "*shape 4"]) -> Float[Tensor, "*shape 4"]:
    """(centre x, centre y, width, height) -> (left, top, right, bottom)."""
    centre, size = boxes_cxcywh[..., :2], boxes_cxcywh[..., 2:]
    return torch.cat([centre - size / 2, centre + size / 2], dim=-1)


def cxcywh_of(boxes_xyxy: Float[Tensor, "*shape 4"]) -> Float[Tensor, "*shape 4"]:
    """(left, top, right, bottom) -> (centre x, centre y, width, height)."""
    start, end = boxes_xyxy[..., :2], boxes_xyxy[..., 2:]
    return torch.cat([(start + end) / 2, end - start], dim=-1)


def iou(a_xyxy: Float[Tensor, "*a 4"], b_xyxy: Float[Tensor, "*b 4"]) -> Float[Tensor, "..."]:
    """Intersection over union, |A ∩ B| / |A ∪ B|, of boxes that broadcast; 0 where both have no area."""
    intersection, union, _ = _areas(a_xyxy, b_xyxy)
    return _ratio(intersection, union)


def generalized_iou(a_xyxy: Float[Tensor, "*a 4"], b_xyxy: Float[Tensor, "*b 4"]) -> Float[Tensor, "..."]:
    """IoU - |C \\ (A ∪ B)| / |C|, with C the smallest box around both  (Rezatofighi et al. 2019, algorithm 1).

    In [-1, 1], and 1 for equal boxes that have an area. A box that is inside out has no area; where C has none either,
    what is left out of it counts as nothing. Boxes broadcast: a[:, None] and b[None] give every pair.
    """
    intersection, union, hull = _areas(a_xyxy, b_xyxy)
    return _ratio(intersection, union) - _ratio(hull - union, hull)


def _areas(a_xyxy: Tensor, b_xyxy: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Areas of the intersection, the union and the hull; computed side by side, several times as fast as by corners."""
    a, b = a_xyxy.unbind(-1), b_xyxy.unbind(-1)
    width_a, width_b, width = _extents(a[0], a[2], b[0], b[2])
    height_a, height_b, height = _extents(a[1], a[3], b[1], b[3])
    intersection = width.clamp(min=0) * height.clamp(min=0)
    union = width_a * height_a + width_b * height_b - intersection
    hull = (width_a + width_b - width) * (height_a + height_b - height)
    return intersection, union, hull


def _extents(start_a: Tensor, end_a: Tensor, start_b: Tensor, end_b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Lengths along one axis: of a, of b, and of their intersection, which is negative where they are apart.

    An end that lies before its start counts as at its start.
    """
    end_a, end_b = torch.maximum(start_a, end_a), torch.maximum(start_b, end_b)
    common = torch.minimum(end_a, end_b) - torch.maximum(start_a, start_b)
    return end_a - start_a, end_b - start_b, common


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    """part / whole; 0 / 1 where the whole is 0, so that the gradients are finite."""
    return part / (whole + (whole <= torch.finfo(whole.dtype).tiny))
