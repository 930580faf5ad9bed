"""Digit scenes: real handwritten digits of many sizes on crops of photographs. They come with the package."""

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float32, UInt8
from PIL import Image
from torch import Tensor

from regard.data.boxes.sources import DetectionData, DetectionSource, Objects
from regard.errors import RegardError

NAME = "digit-scenes"
SIDE = 128
COUNTS = {"train": 1500, "val": 300}
MOST = 6
SIZES = (20, 56)  # of a digit's square, in pixels
INK = 0.25  # the least ink of a pixel, of 0 to 1, that counts for the box
OVERLAP = 0.05  # the greatest overlap, as a fraction of the smaller of two boxes


class DigitScenes(DetectionSource):
    """Scene i is drawn from (split, i) alone, by the same numbers on every machine."""

    def __init__(self, split: str, digits: Sequence[Tensor], labels: Sequence[int], channels: int) -> None:
        self.split, self.digits, self.labels, self.channels = split, digits, labels, channels
        count = COUNTS[split]
        self.layouts = [self._lay_out(index) for index in range(count)]
        self.objects = [self._objects(layout) for layout in self.layouts]
        # Each image has its own id over both splits, as COCO's have.
        first = 1 if split == "train" else 1 + COUNTS["train"]
        self.image_ids = range(first, first + count)
        self.sizes = [(SIDE, SIDE)] * count

    def name(self, index: int) -> str:
        return f"{NAME}/{self.split}[{index}]"

    def read(self, index: int) -> UInt8[Tensor, "channels height width"]:
        draw = self._draw(index, 1)
        image = _ground(draw)
        dark = image.mean() > 0.5
        for digit, size, top, left in self.layouts[index]:
            ink = _enlarged(self.digits[digit], size)
            shade = draw.uniform(0.0, 0.15, 3) if dark else draw.uniform(0.85, 1.0, 3)
            shade[draw.integers(3)] = draw.uniform(0.0, 1.0)  # so that a digit is coloured, and still stands out
            place = image[:, top : top + size, left : left + size]
            place += (torch.tensor(shade, dtype=torch.float32)[:, None, None] - place) * ink
        if self.channels == 1:
            image = (image * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(0, keepdim=True)
        return (image * 255).round().clamp(0, 255).byte()

    def _draw(self, index: int, purpose: int) -> np.random.Generator:
        return np.random.default_rng([0 if self.split == "train" else 1, index, purpose])

    def _lay_out(self, index: int) -> list[tuple[int, int, int, int]]:
        """(digit, size, top, left) of each digit; one that finds no free place in ten tries is left out."""
        draw = self._draw(index, 0)
        placed: list[tuple[int, int, int, int]] = []
        boxes: list[np.ndarray] = []
        for _ in range(draw.integers(1, MOST + 1)):
            digit = int(draw.integers(len(self.digits)))
            size = round(np.exp(draw.uniform(*np.log(SIZES))))
            for _ in range(10):
                top, left = (int(draw.integers(SIDE - size + 1)) for _ in range(2))
                box = _box(self.digits[digit], size) + np.array([left, top, left, top])
                if all(_overlap(box, other) <= OVERLAP for other in boxes):
                    placed.append((digit, size, top, left))
                    boxes.append(box)
                    break
        return placed

    def _objects(self, layout: Sequence[tuple[int, int, int, int]]) -> Objects:
        boxes = [_box(self.digits[d], size) + np.array([left, top, left, top]) for d, size, top, left in layout]
        boxes_xyxy = torch.tensor(np.array(boxes), dtype=torch.float32).view(-1, 4)
        labels = torch.tensor([self.labels[digit] for digit, *_ in layout], dtype=torch.int64)
        areas = (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).prod(1)
        return Objects(boxes_xyxy, labels, areas, torch.zeros(len(labels), dtype=torch.bool))


def open_digit_scenes(channels: int = 3) -> DetectionData:
    """1,500 scenes to train on and 300 held out, of 128 × 128 pixels with one to six digits each.

    No handwritten digit is in scenes of both splits. There are no flips: a mirrored digit is no digit.
    """
    from sklearn.datasets import load_digits  # it takes over a second to import

    loaded = load_digits()
    digits = [torch.from_numpy(image / 16).float() for image in loaded.images]
    labels = loaded.target.tolist()
    held_out = set(np.random.default_rng(0).permutation(len(digits))[: len(digits) // 4].tolist())
    sources = []
    for split in ("train", "val"):
        chosen = [number for number in range(len(digits)) if (number in held_out) == (split == "val")]
        sources.append(DigitScenes(split, [digits[n] for n in chosen], [labels[n] for n in chosen], channels))
    names = tuple(str(digit) for digit in range(10))
    train, val = sources
    return DetectionData(NAME, names, tuple(range(10)), train, val, has_val=True, can_flip=False)


def write_digit_scenes(folder: Path) -> int:
    """Writes the scenes in COCO's format: train/, val/ and annotations/. Returns how many images there are."""
    data = open_digit_scenes()
    (folder / "annotations").mkdir(parents=True)
    for split, source in (("train", data.train), ("val", data.val)):
        (folder / split).mkdir()
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for index, (identity, objects) in enumerate(zip(source.image_ids, source.objects, strict=True)):
            name = f"{index:06d}.png"
            Image.fromarray(source.read(index).permute(1, 2, 0).numpy()).save(folder / split / name)
            images.append({"id": identity, "file_name": name, "width": SIDE, "height": SIDE})
            for box, label in zip(objects.boxes_xyxy.tolist(), objects.labels.tolist(), strict=True):
                left, top, right, bottom = box
                size = [right - left, bottom - top]
                annotations.append(
                    {"id": len(annotations) + 1, "image_id": identity, "category_id": data.category_ids[label]}
                    | {"bbox": [left, top, *size], "area": size[0] * size[1], "iscrowd": 0}
                )
        categories = [{"id": i, "name": n} for i, n in zip(data.category_ids, data.class_names, strict=True)]
        whole = {"images": images, "annotations": annotations, "categories": categories}
        file = folder / "annotations" / f"instances_{split}.json"
        file.write_text(json.dumps(whole), encoding="utf-8")
    return len(data.train) + len(data.val)


def _enlarged(digit: Float32[Tensor, "8 8"], size: int) -> Float32[Tensor, "size size"]:
    """How much ink is on each pixel, from 0 to 1."""
    smooth = F.interpolate(digit[None, None], (size, size), mode="bicubic", align_corners=False)
    return (1.3 * smooth[0, 0]).clamp(0, 1)


def _box(digit: Float32[Tensor, "8 8"], size: int) -> np.ndarray:
    """(left, top, right, bottom) of the ink."""
    ink = _enlarged(digit, size).numpy() > INK
    rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    """The area of the intersection, as a fraction of the smaller box."""
    common = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None).prod()
    return float(common / min((a[2:] - a[:2]).prod(), (b[2:] - b[:2]).prod()))


def _ground(draw: np.random.Generator) -> Float32[Tensor, "3 side side"]:
    """A crop of a photograph, rotated, its contrast reduced to shades that are all dark or all bright."""
    photographs = _photographs()
    photograph = photographs[draw.integers(len(photographs))]
    top, left = (int(draw.integers(length - SIDE + 1)) for length in photograph.shape[1:])
    crop = photograph[:, top : top + SIDE, left : left + SIDE].rot90(int(draw.integers(4)), (1, 2))
    middle = draw.choice([draw.uniform(0.1, 0.35), draw.uniform(0.65, 0.9)])
    return (crop - crop.mean()) * draw.uniform(0.2, 0.5) + float(middle)


@lru_cache(maxsize=1)
def _photographs() -> tuple[Tensor, ...]:
    """scikit-learn's two, at half their size."""
    from sklearn.datasets import load_sample_image

    halved = []
    for name in ("china.jpg", "flower.jpg"):
        image = torch.from_numpy(load_sample_image(name).copy()).permute(2, 0, 1)[None].float() / 255
        halved.append(F.interpolate(image, scale_factor=0.5, mode="area")[0])
    if any(min(image.shape[1:]) < SIDE for image in halved):
        raise RegardError(f"{NAME}: the photographs of scikit-learn are smaller than {SIDE} pixels")
    return tuple(halved)
