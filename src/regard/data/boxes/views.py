"""Views of an image with boxes: the whole, and others that are drawn once, so that their features can be kept.

A view depends on the image's file and the view's number alone: not on the run, its seed or the epoch.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

from regard.data.boxes.mosaic import area, drawn_factor, seen_in, uniform
from regard.data.boxes.sources import Objects
from regard.data.boxes.transforms import DetectionPreprocessing, resized, scaled
from regard.data.images.transforms import Normalise
from regard.data.order import drawing_from, seed_for

# The sides of a part have an aspect between 1 / ASPECT and ASPECT times the image's.
ASPECT = 1.3
# How often a part that shows too little of every object is drawn anew.
TRIES = 20


class Window(NamedTuple):
    """A part of an image, in pixels, and the (height, width) that it is brought to."""

    top: int
    left: int
    height: int
    width: int
    size: tuple[int, int]


@dataclass(frozen=True)
class Views:
    """The views of an image: number 0 is the whole one, prepared as for evaluation; the others are drawn.

    scale_jitter: the least and the greatest factor. With one above 1 a part of the image takes the place of the whole,
    which enlarges it; with one below 1 all of the image is made smaller than `preprocessing` says. colour: as in
    `DetectionAugmentation`.
    """

    preprocessing: DetectionPreprocessing
    scale_jitter: tuple[float, float] = (1.0, 1.0)
    colour: float = 0.0

    def name(self, number: int) -> str:
        """What tells the view from others of the same image and preprocessing."""
        low, high = self.scale_jitter
        return f"view {number}, scales {low:g} to {high:g}, colour {self.colour:g}" if number else "whole"

    def window(self, stored: tuple[int, int], objects: Objects, number: int, digest: str) -> Window:
        """The part that a view shows of an image of (height, width), whose file has this digest."""
        pre = self.preprocessing
        if number == 0:
            return Window(0, 0, *stored, pre.prepared_size(*stored))
        with drawing_from(_seed(digest, number)):
            factor = drawn_factor(self.scale_jitter)
            if factor <= 1:
                size = resized(*stored, pre.shortest * factor, pre.longest * factor, pre.divisor)
                return Window(0, 0, *stored, size)
            for _ in range(TRIES):
                part = _part(stored, factor, objects)
                if not len(objects) or len(_seen(objects, part)):
                    break
        return Window(*part, pre.prepared_size(*part[2:]))

    def objects(self, objects: Objects, window: Window) -> Objects:
        """The objects of which a view shows enough, without crowds, in pixels of the part."""
        return _seen(objects, window[:4])

    def pixels(
        self, image: UInt8[Tensor, "channels _ _"], window: Window, number: int, digest: str
    ) -> Float32[Tensor, "channels height width"]:
        """A view of the image as it was read, as the model takes it."""
        top, left, height, width = window[:4]
        part = scaled(image[:, top : top + height, left : left + width], window.size)
        if number and self.colour:
            from torchvision.transforms import v2

            grey, strength = self.preprocessing.channels == 1, self.colour
            with drawing_from(_seed(digest, number, 1)):
                part = v2.ColorJitter(strength, strength, None if grey else strength, strength / 4)(part)
        return Normalise(self.preprocessing.mean, self.preprocessing.std)(part)


def _seed(digest: str, *numbers: int) -> int:
    return seed_for(int(digest[:15], 16), *numbers)


def _part(stored: tuple[int, int], factor: float, objects: Objects) -> tuple[int, int, int, int]:
    """(top, left, height, width) of a part at a random place, with the centre of one of the objects in it."""
    stretch = math.exp(uniform((-math.log(ASPECT), math.log(ASPECT))) / 2)
    sides = [
        min(max(round(side / factor * by), 1), side) for side, by in zip(stored, (stretch, 1 / stretch), strict=True)
    ]
    ranges = [(0, side - own) for side, own in zip(stored, sides, strict=True)]
    if len(objects):
        left, top, right, bottom = objects.boxes_xyxy[int(torch.randint(len(objects), ()))].tolist()
        centre = (int((top + bottom) / 2), int((left + right) / 2))
        ranges = [
            (min(max(at - own + 1, low), high), max(min(at, high), low))
            for (low, high), own, at in zip(ranges, sides, centre, strict=True)
        ]
    corner = [int(torch.randint(low, high + 1, ())) for low, high in ranges]
    return corner[0], corner[1], sides[0], sides[1]


def _seen(objects: Objects, part: Sequence[int]) -> Objects:
    top, left, height, width = part
    seen, enough = seen_in(objects.boxes_xyxy, top, left, height, width)
    kept = enough & ~objects.crowd & (area(seen) > 0)
    return Objects(seen[kept], objects.labels[kept], objects.areas[kept], objects.crowd[kept])
