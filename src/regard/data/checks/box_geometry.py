"""Boxes that cannot be right: outside of their image, without extent, or written in another format."""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float64, Int64

from regard.data.boxes.coco import CocoImages
from regard.data.boxes.sources import DetectionSource, FileDetectionSource
from regard.data.checks.issue import Issue, Severity, group
from regard.data.checks.suspect_images import DRAWN, Suspect
from regard.errors import first_few

TOLERANCE = 1.0  # pixels by which a box may reach out of its image without an issue: coordinates get rounded

# Boxes are probably in another format if this fraction of them does not fit the images as they are read, ...
MISFITS = 0.2
# ... this fraction would fit in the other format, ...
FITS = 0.95
# ... and there are at least this many.
ENOUGH = 10

CORNERS = "(left, top, right, bottom)"
SIZED = "(left, top, width, height)"
CENTRED = "(centre x, centre y, width, height)"

Stated = Float64[np.ndarray, "boxes 4"]


def check_boxes(where: str, source: DetectionSource, severity: Severity) -> tuple[list[Issue], list[Suspect]]:
    """Issues for the boxes of a source as its files state them, one for each kind of fault; and images to look at.

    severity: of boxes that are left out, as `on_bad_annotation` says.
    """
    stated, place, format_ = _stated(source)
    extent = np.array(source.sizes, dtype=np.float64).reshape(-1, 2)[place][:, ::-1]
    corners = _corners(stated, format_)
    start, end = corners[:, :2], corners[:, 2:]
    turned = np.any(end < start, axis=1)
    empty = np.any(end == start, axis=1) & ~turned
    sound = ~turned & ~empty
    outside = sound & np.any((start >= extent) | (end <= 0), axis=1)
    reaching = sound & ~outside & np.any((start < -TOLERANCE) | (end > extent + TOLERANCE), axis=1)
    switch = "--set data.on_bad_annotation=skip takes the others" if severity == "error" else "they are left out"
    kinds: list[tuple[Severity, np.ndarray, str, str]] = [
        (severity, turned, "turned inside out", f"their end lies before their start; {switch}"),
        (severity, outside, "wholly outside of their image", f"nothing of them is in it; {switch}"),
        ("warning", empty, "empty", "their width or height is 0; they are left out"),
        ("warning", reaching, "reaching out of their image", "they are cut at its edge"),
    ]
    issues: list[Issue] = []
    suspects: list[Suspect] = []
    if misread := suspect_format(stated, extent, format_):
        issues.append(Issue("error", misread, where))
        suspects += _suspects(source, corners, place, np.ones(len(place), dtype=bool), "perhaps another format")
    for severity, chosen, what, means in kinds:
        if chosen.any():
            images = [source.name(index) for index in np.unique(place[chosen]).tolist()]
            message = f"{chosen.sum()} of {len(chosen)} boxes are {what} ({means}), in {first_few(images)}"
            issues.append(group(severity, message, where, images, int(chosen.sum())))
            suspects += _suspects(source, corners, place, chosen, what)
    return issues, suspects


def suspect_format(stated: Stated, extent: Float64[np.ndarray, "boxes 2"], read_as: str) -> str:
    """The message that boxes are probably in another format than `read_as`; "" where they are not.

    stated: the four numbers as they are written. extent: (width, height) of each one's image. read_as: `SIZED`, as in
    COCO's files, or `CORNERS`, as in VOC's.
    """
    if not len(stated):
        return ""
    if 0 < stated.max() <= 1 and extent.min() > 2:
        return "all numbers of the boxes are at most 1: they seem to be fractions of the image, and must be pixels"
    misfits = 1 - _fit(stated, extent, read_as).mean()
    if len(stated) < ENOUGH or misfits < MISFITS:
        return ""
    for other in (CORNERS, SIZED, CENTRED):
        fits = _fit(stated, extent, other).mean()
        if other != read_as and fits >= FITS:
            return (
                f"{misfits:.0%} of the boxes do not fit their images as {read_as}, and {fits:.0%} would as {other}: "
                "they seem to be written so"
            )
    return ""


def _fit(stated: np.ndarray, extent: np.ndarray, format_: str) -> np.ndarray:
    """Whether each box has an extent, and lies in its image."""
    corners = _corners(stated, format_)
    inside = (corners[:, :2] >= -TOLERANCE) & (corners[:, 2:] <= extent + TOLERANCE)
    return np.all(inside & (corners[:, 2:] > corners[:, :2]), axis=1)


def _corners(stated: np.ndarray, format_: str) -> np.ndarray:
    first, last = stated[:, :2], stated[:, 2:]
    if format_ == CORNERS:
        return stated
    start = first if format_ == SIZED else first - last / 2
    return np.concatenate([start, start + last], axis=1)


def _stated(source: DetectionSource) -> tuple[Stated, Int64[np.ndarray, " boxes"], str]:
    """Boxes as the files state them, the index of each one's image, and the format they are read in."""
    if isinstance(source, CocoImages):
        place = source.file.places()
        return source.file.boxes_xywh[place >= 0], place[place >= 0], SIZED
    objects = source.stated if isinstance(source, FileDetectionSource) else source.objects
    boxes = [of_image.boxes_xyxy for of_image in objects]
    place = np.repeat(np.arange(len(boxes)), np.array([len(of_image) for of_image in boxes], dtype=np.int64))
    return torch.cat([torch.zeros(0, 4), *boxes]).double().numpy(), place, CORNERS


def _suspects(
    source: DetectionSource, corners: np.ndarray, place: np.ndarray, chosen: np.ndarray, why: str
) -> Iterator[Suspect]:
    for index in np.unique(place[chosen]).tolist()[:DRAWN]:
        boxes = corners[(place == index) & chosen]
        yield Suspect(source, index, torch.from_numpy(boxes).float(), why)
