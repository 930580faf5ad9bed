"""Scenes enlarged, reduced, and four in one: what makes many images with boxes of few."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import UInt8
from torch import Tensor

from regard.data.boxes.sources import DetectionSource, Objects
from regard.data.boxes.transforms import scaled, scaled_objects

Scene = tuple[UInt8[Tensor, "channels _ _"], Objects]

# An object of which less than this share of its box is left is no longer annotated.
VISIBLE = 0.3
# Where the corner that four images share may lie, in shares of the sides.
CORNER = (0.35, 0.65)
# How large the four of a mosaic are, beside the canvas.
PIECES = (0.5, 1.0)
# Epochs after which every image is changed; before, a share that grows evenly from none.
FAMILIAR = 20


@dataclass(frozen=True)
class MosaicAndJitter:
    """A source's scenes as a training sees them: a share of them mosaics, the others enlarged or reduced.

    What is new needs no change, and is learned from sooner as it is: in epoch e, all but a share e / `FAMILIAR` of the
    scenes are left alone. So many images, seen a few times, are hardly changed, and few nearly always. There is no
    mosaic of more objects than `most`, the queries of a model.
    """

    source: DetectionSource
    scale_jitter: tuple[float, float]
    mosaic: float
    fill: tuple[float, ...]
    most: int | None = None

    def __call__(self, epoch: int, index: int) -> Scene:
        """Scene `index`, changed by numbers drawn from torch's global generator. Raises BadImage."""
        if float(torch.rand(())) >= epoch / FAMILIAR:
            return self._scene(index)
        if float(torch.rand(())) < self.mosaic:
            four = [index, *torch.randint(len(self.source), (3,)).tolist()]
            if self.most is None or sum(len(self.source.objects[one]) for one in four) <= self.most:
                return mosaic([self._scene(one) for one in four], PIECES, self.fill)
        return jittered(self._scene(index), self.scale_jitter, self.fill)

    def _scene(self, index: int) -> Scene:
        return self.source.read(index), self.source.objects[index]


def jittered(scene: Scene, scales: tuple[float, float], fill: Sequence[float]) -> Scene:
    """The scene enlarged or reduced by a factor between `scales`, on a canvas of its own size (Ghiasi et al. 2021).

    What is larger than the canvas is cut at a place drawn, what is smaller is put at one; around it is `fill`, a value
    in [0, 1] for each channel. Drawn from torch's global generator.
    """
    if scales == (1.0, 1.0):
        return scene
    height, width = scene[0].shape[1:]
    return _window(scene, _drawn(scales), (height, width), fill)


def mosaic(scenes: Sequence[Scene], scales: tuple[float, float], fill: Sequence[float]) -> Scene:
    """Four scenes around a corner, on a canvas of the first one's size (Bochkovskiy et al. 2020, section 3.3).

    Each is scaled by a factor between `scales` of what makes it as large as the canvas, and at least so that it fills
    its quarter. More objects an image are more matched queries a step (dense one-to-one: DEIM, Huang et al. 2024).
    """
    height, width = scenes[0][0].shape[1:]
    row, column = (round(side * _uniform(CORNER)) for side in (height, width))
    quarters = [(0, 0, row, column), (0, column, row, width), (row, 0, height, column), (row, column, height, width)]
    canvas = torch.empty_like(scenes[0][0])
    boxes, kept = [], []
    for scene, (top, left, bottom, right) in zip(scenes, quarters, strict=True):
        rows, columns = scene[0].shape[1:]
        factor = max(height / rows, width / columns) * _drawn(scales)
        factor = max(factor, (bottom - top) / rows, (right - left) / columns)
        piece, objects = _window(scene, factor, (bottom - top, right - left), fill)
        canvas[:, top:bottom, left:right] = piece
        boxes.append(objects.boxes_xyxy + torch.tensor([left, top, left, top]))
        kept.append(objects)
    parts = [torch.cat([getattr(one, name) for one in kept]) for name in ("labels", "areas", "crowd")]
    return canvas, Objects(torch.cat(boxes), *parts)


def _window(scene: Scene, factor: float, size: tuple[int, int], fill: Sequence[float]) -> Scene:
    """A window of (height, width) somewhere on the scaled scene, or with all of it somewhere inside."""
    image, objects = scene
    large = [max(round(side * factor), 1) for side in image.shape[1:]]
    # The place of the window's corner on the scaled image: below zero where the image is the smaller of the two.
    top, left = (_place(whole - seen) for whole, seen in zip(large, size, strict=True))
    rows, columns = (
        slice(max(start, 0), min(start + seen, whole))
        for start, seen, whole in zip((top, left), size, large, strict=True)
    )
    pixels = scaled(image, large)[:, rows, columns]
    canvas = (torch.tensor(fill)[:, None, None] * 255).round().byte().expand(-1, *size).contiguous()
    up, over = max(-top, 0), max(-left, 0)
    canvas[:, up : up + pixels.shape[1], over : over + pixels.shape[2]] = pixels

    whole = scaled_objects(objects, image.shape[1:], large).boxes_xyxy - torch.tensor([left, top, left, top])
    seen = whole.clamp(min=0).minimum(torch.tensor([size[1], size[0]]).repeat(2))
    kept = _area(seen) >= VISIBLE * _area(whole)
    found = Objects(seen[kept], objects.labels[kept], objects.areas[kept] * factor**2, objects.crowd[kept])
    return canvas, found


def _area(boxes_xyxy: Tensor) -> Tensor:
    return (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).prod(1)


def _uniform(bounds: tuple[float, float]) -> float:
    return bounds[0] + (bounds[1] - bounds[0]) * float(torch.rand(()))


def _drawn(scales: tuple[float, float]) -> float:
    """Evenly over the logarithm: twice as large is as likely as half as large."""
    return math.exp(_uniform((math.log(scales[0]), math.log(scales[1]))))


def _place(room: int) -> int:
    """A number from 0 to `room`, which may be negative."""
    return int(torch.randint(min(room, 0), max(room, 0) + 1, ()))
