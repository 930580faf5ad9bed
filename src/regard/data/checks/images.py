"""Checks of images with labels: unreadable and repeated images, unequal classes, unusual sizes."""

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from statistics import median
from typing import Literal

from torch import Tensor

from regard.data.checks.issue import Issue
from regard.data.images.files import BadImage, has_deep_pixels
from regard.data.images.folder import FolderImages
from regard.data.images.sources import ImageClasses, ImageSource

FEW_IMAGES = 10  # a class with fewer is worth a warning
IMBALANCE = 10  # the largest class has this many times the images of the smallest
MUCH_SMALLER = 4  # the shorter side is this many times shorter than that of the median image
EXTREME_ASPECT = 8  # the longer side is this many times the shorter


@dataclass(frozen=True)
class Summary:
    """How much data there is: the images that can be decoded, and their sizes as (height, width), most common first."""

    num_train: int
    num_val: int
    class_counts: dict[str, int]
    sizes: dict[tuple[int, int], int]

    def __str__(self) -> str:
        return f"{self.num_train} images to train on, {self.num_val} held out, {len(self.class_counts)} classes"


@dataclass
class _Split:
    """A decoded split: name, label, size and hash of the pixels of each readable image; messages for the others."""

    names: list[str] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    hashes: list[str] = field(default_factory=list)
    deep: list[bool] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)


def _decode(source: ImageSource) -> _Split:
    split = _Split(bad=list(source.skipped))
    for index in range(len(source)):
        try:
            image = source.read(index)
        except BadImage as error:
            split.bad.append(str(error))
            continue
        split.names.append(source.name(index))
        split.labels.append(source.labels[index])
        split.sizes.append((image.shape[1], image.shape[2]))
        split.hashes.append(_hash(image))
        split.deep.append(isinstance(source, FolderImages) and has_deep_pixels(source.paths[index]))
    return split


def _hash(image: Tensor) -> str:
    return hashlib.blake2b(str(tuple(image.shape)).encode() + image.numpy().tobytes(), digest_size=16).hexdigest()


def _duplicates(train: _Split, val: _Split) -> list[Issue]:
    """Images with the same pixels: a warning within the training split, an error in both splits."""
    issues = []
    first: dict[str, int] = {}
    for index, (digest, name, label) in enumerate(zip(train.hashes, train.names, train.labels, strict=True)):
        original = first.setdefault(digest, index)
        if original != index:
            other = "" if train.labels[original] == label else " and another class"
            issues.append(Issue("warning", f"same pixels{other} as {train.names[original]}, also in train", name))
    for digest, name in zip(val.hashes, val.names, strict=True):
        if digest in first:
            issues.append(
                Issue("error", f"in val, with the same pixels as {train.names[first[digest]]} in train", name)
            )
    return issues


def _class_sizes(images: ImageClasses, train: _Split, val: _Split) -> list[Issue]:
    issues = []
    counts = Counter(train.labels if images.has_val else train.labels + val.labels)
    numbers = {name: counts[label] for label, name in enumerate(images.class_names)}
    for name, number in numbers.items():
        if number < FEW_IMAGES:
            severity: Literal["error", "warning"] = "error" if number < 2 else "warning"
            issues.append(Issue(severity, f"only {number} readable images", f"class {name}"))
    least, most = min(numbers, key=numbers.__getitem__), max(numbers, key=numbers.__getitem__)
    if numbers[most] > IMBALANCE * numbers[least]:
        what = f"{numbers[least]} images, where class {most} has {numbers[most]}"
        issues.append(Issue("warning", what, f"class {least}"))
    return issues


def _unusual_images(train: _Split, val: _Split) -> list[Issue]:
    """One warning for each kind of unusual image, with the first such image."""
    names, sizes, deep = train.names + val.names, train.sizes + val.sizes, train.deep + val.deep
    if not names:
        return []
    usual = median(min(size) for size in sizes)
    small = [i for i, size in enumerate(sizes) if min(size) * MUCH_SMALLER < usual]
    long = [i for i, size in enumerate(sizes) if max(size) > EXTREME_ASPECT * min(size)]
    mixed = [i for i, is_deep in enumerate(deep) if is_deep] if not all(deep) else []
    kinds = [
        (small, f"shorter side below a quarter of the usual {usual:g} pixels"),
        (long, f"longer than {EXTREME_ASPECT} times their width or height; a crop shows little of them"),
        (mixed, "grey with more than 8 bits, among images of 8 bits"),
    ]
    return [
        Issue("warning", f"{len(indices)} images, this one first: {what}", names[indices[0]])
        for indices, what in kinds
        if indices
    ]


def check_opened_images(images: ImageClasses) -> tuple[list[Issue], Summary]:
    """Decode all images of an opened set: unreadable and repeated images, unequal classes, unusual images."""
    train, val = _decode(images.train), _decode(images.val)
    sizes = Counter(train.sizes + val.sizes)
    labels = Counter(train.labels + val.labels)
    summary = Summary(
        num_train=len(train.names),
        num_val=len(val.names),
        class_counts={name: labels[label] for label, name in enumerate(images.class_names)},
        sizes=dict(sizes.most_common()),
    )
    unreadable = [Issue("error", *reversed(message.split(": ", 1))) for message in train.bad + val.bad]
    return unreadable + _duplicates(train, val) + _class_sizes(images, train, val) + _unusual_images(
        train, val
    ), summary
