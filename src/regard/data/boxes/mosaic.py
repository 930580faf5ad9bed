"""Images enlarged, reduced, and four in one: few images with boxes, seen as many different ones."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float32, UInt8
from torch import Tensor

from regard.data.boxes.sources import DetectionSource, Objects
from regard.data.boxes.transforms import scaled, scaled_objects

AnnotatedImage = tuple[UInt8[Tensor, "channels _ _"], Objects]

# An object is dropped where less than this fraction of its box is left.
VISIBLE = 0.3
# Where the common corner of a mosaic's four images may lie, as a fraction of the canvas's sides.
CORNER = (0.35, 0.65)
# The sizes of a mosaic's images, relative to the canvas.
MOSAIC_SCALES = (0.5, 1.0)
# From this epoch on every image is changed; until then a fraction that grows evenly from 0.
FAMILIAR = 20


@dataclass(frozen=True)
class MosaicAndJitter:
    """The images of a source as a training sees them: unchanged, in a mosaic of four, or enlarged or reduced.

    In epoch e an image is changed with a probability of e / `FAMILIAR`: a model learns sooner from images as they are,
    and needs changed ones only when it has seen them often. So a large data set, trained on for few epochs, is hardly
    changed, and a small one is nearly always. A changed image is a mosaic with the probability `mosaic`.

    scale_jitter: the least and the greatest factor of `jittered`. fill: the colour around an image, a value in [0, 1]
    for each channel. most: there is no mosaic of more objects than this, the number of the model's queries.
    """

    source: DetectionSource
    scale_jitter: tuple[float, float]
    mosaic: float
    fill: tuple[float, ...]
    most: int | None = None

    def __call__(self, epoch: int, index: int) -> AnnotatedImage:
        """Image `index` and its objects, changed by numbers drawn from torch's global generator. Raises BadImage."""
        if float(torch.rand(())) >= epoch / FAMILIAR:
            return self._read(index)
        if float(torch.rand(())) < self.mosaic:
            four = [index, *torch.randint(len(self.source), (3,)).tolist()]
            if self.most is None or sum(len(self.source.objects[one]) for one in four) <= self.most:
                return mosaic([self._read(one) for one in four], MOSAIC_SCALES, self.fill)
        return jittered(self._read(index), self.scale_jitter, self.fill)

    def _read(self, index: int) -> AnnotatedImage:
        return self.source.read(index), self.source.objects[index]


def jittered(annotated: AnnotatedImage, scales: tuple[float, float], fill: Sequence[float]) -> AnnotatedImage:
    """The image enlarged or reduced by a factor between `scales`, on a canvas of its own size (Ghiasi et al. 2021).

    A larger image is cropped at a random place; a smaller one is put at a random place, with `fill`, a value in [0, 1]
    for each channel, around it. Random numbers come from torch's global generator.
    """
    if scales == (1.0, 1.0):
        return annotated
    height, width = annotated[0].shape[1:]
    return _window(annotated, drawn_factor(scales), (height, width), fill)


def mosaic(images: Sequence[AnnotatedImage], scales: tuple[float, float], fill: Sequence[float]) -> AnnotatedImage:
    """Four images around a corner, on a canvas of the first one's size (Bochkovskiy et al. 2020, section 3.3).

    Each image is scaled to cover the canvas, times a factor between `scales`, and at least so that it fills its
    quarter. More objects in an image are more matched queries in a step (dense one-to-one: DEIM, Huang et al. 2024).
    """
    height, width = images[0][0].shape[1:]
    row, column = (round(side * uniform(CORNER)) for side in (height, width))
    quarters = [(0, 0, row, column), (0, column, row, width), (row, 0, height, column), (row, column, height, width)]
    canvas = torch.empty_like(images[0][0])
    boxes, kept = [], []
    for annotated, (top, left, bottom, right) in zip(images, quarters, strict=True):
        rows, columns = annotated[0].shape[1:]
        factor = max(height / rows, width / columns) * drawn_factor(scales)
        factor = max(factor, (bottom - top) / rows, (right - left) / columns)
        quarter, objects = _window(annotated, factor, (bottom - top, right - left), fill)
        canvas[:, top:bottom, left:right] = quarter
        boxes.append(objects.boxes_xyxy + torch.tensor([left, top, left, top]))
        kept.append(objects)
    joined = [torch.cat([getattr(one, name) for one in kept]) for name in ("labels", "areas", "crowd")]
    return canvas, Objects(torch.cat(boxes), *joined)


def _window(annotated: AnnotatedImage, factor: float, size: tuple[int, int], fill: Sequence[float]) -> AnnotatedImage:
    """A window of (height, width) at a random place: on the scaled image, or around it where the image is smaller."""
    image, objects = annotated
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

    seen, kept = seen_in(scaled_objects(objects, image.shape[1:], large).boxes_xyxy, top, left, *size)
    return canvas, Objects(seen[kept], objects.labels[kept], objects.areas[kept] * factor**2, objects.crowd[kept])


def seen_in(
    boxes_xyxy: Float32[Tensor, "objects 4"], top: int, left: int, height: int, width: int
) -> tuple[Float32[Tensor, "objects 4"], Bool[Tensor, " objects"]]:
    """What a window shows of boxes, in its own pixels; and of which it shows enough."""
    whole = boxes_xyxy - torch.tensor([left, top, left, top])
    seen = whole.clamp(min=0).minimum(torch.tensor([width, height]).repeat(2))
    return seen, area(seen) >= VISIBLE * area(whole)


def area(boxes_xyxy: Float32[Tensor, "objects 4"]) -> Float32[Tensor, " objects"]:
    return (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).prod(1)


def uniform(bounds: tuple[float, float]) -> float:
    return bounds[0] + (bounds[1] - bounds[0]) * float(torch.rand(()))


def drawn_factor(scales: tuple[float, float]) -> float:
    """Evenly over the logarithm: twice as large is as likely as half as large."""
    return math.exp(uniform((math.log(scales[0]), math.log(scales[1]))))


def _place(room: int) -> int:
    """A number from 0 to `room`, which may be negative."""
    return int(torch.randint(min(room, 0), max(room, 0) + 1, ()))
