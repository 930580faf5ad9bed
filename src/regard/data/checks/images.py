"""Checks of images with labels: unreadable and repeated images, unequal classes, unusual sizes."""

from collections import Counter
from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Literal

from regard.data.checks.issue import Issue, group, issues_of_kind, shared_images, unreadable
from regard.data.checks.repairs import check_repairs
from regard.data.checks.seen import See, see_nothing
from regard.data.images.digests import digest_of_pixels
from regard.data.images.doubles import shared
from regard.data.images.files import BadImage, OnBadImage, has_deep_pixels
from regard.data.images.folder import FolderImages
from regard.data.images.labels import Label, classes_of
from regard.data.images.sources import ImageClasses, ImageSource
from regard.data.repairs import OnBadAnnotation

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
        classes = f"{len(self.class_counts)} classes" if self.class_counts else "no labels"
        return f"{self.num_train} images to train on, {self.num_val} held out, {classes}"


@dataclass
class _Split:
    """A decoded split: name, label, size and hash of the pixels of each readable image; messages for the others."""

    names: list[str] = field(default_factory=list)
    labels: list[Label] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    hashes: list[str] = field(default_factory=list)
    deep: list[bool] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)


def _decode(source: ImageSource, part: str, see: See) -> _Split:
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
        split.hashes.append(digest_of_pixels(image))
        split.deep.append(isinstance(source, FolderImages) and has_deep_pixels(source.paths[index]))
        see(part, index, image)
    return split


def _doubles(images: ImageClasses, train: _Split, val: _Split, strict: bool) -> list[Issue]:
    """Images with the same pixels: one issue for those of a part, for other classes, for both parts."""
    trained_on = dict(zip(reversed(train.hashes), reversed(train.names), strict=True))
    both = [(name, trained_on[digest]) for digest, name in _hashed(val) if digest in trained_on]
    where = both[0][0] if len(both) == 1 else images.address
    return [
        *_doubles_within(images.address, train, "train", trained_on={}),
        *_doubles_within(images.address, val, "val", trained_on=trained_on),
        *shared_images(both, len(val.names), where, has_val=images.has_val, strict=strict, same_files=False),
    ]


def _hashed(split: _Split) -> list[tuple[str, str]]:
    return list(zip(split.hashes, split.names, strict=True))


def _doubles_within(address: str, split: _Split, part: str, trained_on: Container[str]) -> list[Issue]:
    """Issues for images of a part; those that are trained on as well have an issue of their own."""
    first: dict[str, int] = {}
    pairs: tuple[list[tuple[str, str]], list[tuple[str, str]]] = [], []
    for index, (digest, name) in enumerate(_hashed(split)):
        original = first.setdefault(digest, index)
        if original != index and digest not in trained_on:
            pairs[split.labels[original] != split.labels[index]].append((name, split.names[original]))
    issues = []
    for found, another, other in zip(
        pairs, ("another", "one of another class"), ("", " and another class"), strict=True
    ):
        names = [name for name, _ in found]
        if len(found) == 1:
            issues.append(Issue("warning", f"same pixels{other} as {found[0][1]}, also in {part}", found[0][0]))
        elif found:
            what = f"{len(found)} images in {part} have the same pixels as {another}, for instance "
            issues.append(group("warning", what + " and ".join(reversed(found[0])), address, names))
    return issues


def _counted(labels: Sequence[Label]) -> Counter[int]:
    """The number of images of each class."""
    return Counter(index for label in labels for index in classes_of(label))


def _no_labels(address: str) -> list[Issue]:
    what = (
        "no image has a label: `regard pretrain` learns from such images; to classify them, sort some of them into one "
        "folder a class"
    )
    return [Issue("warning", what, address)]


def _class_sizes(images: ImageClasses, train: _Split, val: _Split) -> list[Issue]:
    counts = _counted(train.labels if images.has_val else train.labels + val.labels)
    numbers = {name: counts[label] for label, name in enumerate(images.class_names)}
    least_of_a_class = 0 if images.multi_label else 2  # a rare label is trained on, and not measured
    few = {name: number for name, number in numbers.items() if number < FEW_IMAGES}
    kinds: tuple[tuple[Literal["error", "warning"], list[str]], ...] = (
        ("error", [name for name, number in few.items() if number < least_of_a_class]),
        ("warning", [name for name, number in few.items() if number >= least_of_a_class]),
    )
    issues = []
    for severity, names in kinds:
        if len(names) == 1:
            issues.append(Issue(severity, f"only {few[names[0]]} readable images", f"class {names[0]}"))
        else:
            shown = [f"{name} ({few[name]})" for name in names]
            most = 1 if severity == "error" else FEW_IMAGES - 1
            issues += issues_of_kind(severity, f"{{count}} classes with at most {most} readable images each", shown)
    least, most_of = min(numbers, key=numbers.__getitem__), max(numbers, key=numbers.__getitem__)
    if numbers[most_of] > IMBALANCE * numbers[least]:
        what = f"{numbers[least]} images, where class {most_of} has {numbers[most_of]}"
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
        (mixed, "more than 8 bits, among images of 8 bits"),
    ]
    return [
        group(
            "warning",
            f"{len(indices)} images, this one first: {what}",
            names[indices[0]],
            [names[index] for index in indices],
        )
        for indices, what in kinds
        if indices
    ]


def check_image_files(images: ImageClasses, *, strict: bool = False) -> list[Issue]:
    """What can be said without decoding: what was assumed or passed over, and held-out files that are trained on too.

    strict: whether the latter, in a split that the data bring, are an error.
    """
    issues = [Issue("warning", remark, images.address) for remark in images.remarks]
    issues += check_repairs(images.repairs, images.address, "warning", mended=False)
    train, val = images.train, images.val
    if not (isinstance(train, FolderImages) and isinstance(val, FolderImages)):
        return issues
    pairs = [(val.name(index), train.name(twin)) for index, twin in shared(train.paths, val.paths)]
    return issues + shared_images(pairs, len(val), images.address, has_val=images.has_val, strict=strict)


def check_opened_images(
    images: ImageClasses,
    *,
    strict: bool = False,
    on_bad_image: OnBadImage = "stop",
    on_bad_annotation: OnBadAnnotation = "stop",
    see: See = see_nothing,
) -> tuple[list[Issue], Summary]:
    """Decode all images of an opened set: unreadable and repeated images, unequal classes, unusual images.

    strict: whether held-out images that are trained on too, in a split that the data bring, are an error. on_bad_image:
    under "skip" unreadable images are warnings, since a training leaves them out. on_bad_annotation: likewise for rows
    of a CSV file. see: is given the part, the index and the pixels of each image.
    """
    train, val = _decode(images.train, "train", see), _decode(images.val, "val", see)
    sizes = Counter(train.sizes + val.sizes)
    labels = _counted(train.labels + val.labels)
    summary = Summary(
        num_train=len(train.names),
        num_val=len(val.names),
        class_counts={name: labels[label] for label, name in enumerate(images.class_names)},
        sizes=dict(sizes.most_common()),
    )
    issues = [
        *(
            unreadable(train.bad + val.bad, "images", "--set data.on_bad_image=skip leaves such images out")
            if on_bad_image == "stop"
            else unreadable(train.bad + val.bad, "images", "left out", "warning")
        ),
        *(Issue("warning", remark, images.address) for remark in images.remarks),
        *check_repairs(
            images.repairs, images.address, "error" if on_bad_annotation == "stop" else "warning", mended=False
        ),
        *_doubles(images, train, val, strict),
        *(_no_labels(images.address) if images.unlabelled else _class_sizes(images, train, val)),
        *_unusual_images(train, val),
    ]
    return issues, summary
