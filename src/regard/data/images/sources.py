"""What every kind of data becomes: numbered images with labels, in a training and a validation split."""

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from regard.data.images.digests import digest_of_pixels
from regard.data.images.doubles import doubles, kept_together
from regard.data.images.labels import Label, single_labels
from regard.data.images.pixels import AS_STORED, Decoding
from regard.data.repairs import Repairs
from regard.errors import RegardError


class ImageSource(ABC):
    """Images that are read one at a time, with labels. `labels[i]` is known without reading image i.

    Of images without labels each has the empty label, (), and `num_classes` is 0. `skipped` names the images
    that were left out because they cannot be read, each with the reason.
    """

    labels: tuple[Label, ...]
    num_classes: int | None = None
    """Of a multi-label set, whose labels are tuples of classes; None where each image has one class."""
    skipped: tuple[str, ...] = ()
    sizes: Sequence[tuple[int, int]] | None = None
    """(height, width) of each image, where they are known before it is read."""

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def read(self, index: int) -> UInt8[Tensor, "channels height width"]:
        """Image `index`, of its own size. It may be shared: don't write to it. Raises BadImage."""

    @abstractmethod
    def name(self, index: int) -> str:
        """What to call image `index` in a message: a path as given, or `digits[17]`."""

    def digest(self, index: int) -> str:
        """A hash of the bytes of image `index`'s file, or of its pixels where there is no file. Raises BadImage."""
        return digest_of_pixels(self.read(index))

    def only(self, indices: Sequence[int]) -> "ImageSource":
        """These images of it; itself where that is all of them."""
        if len(indices) == len(self):
            return self
        chosen = Selected(self, indices)
        chosen.skipped = self.skipped
        return chosen


class InMemoryImages(ImageSource):
    """Images of one size in one tensor; image i is called `name[i]`."""

    def __init__(self, images: UInt8[Tensor, "num channels height width"], labels: tuple[int, ...], name: str) -> None:
        if len(images) != len(labels):
            raise RegardError(f"{name}: {len(images)} images and {len(labels)} labels")
        self.images = images
        self.labels = labels
        self._name = name

    def read(self, index: int) -> UInt8[Tensor, "channels height width"]:
        return self.images[index]

    def name(self, index: int) -> str:
        return f"{self._name}[{index}]"


class Selected(ImageSource):
    """Some images of another source, in the order of `indices`; they keep their names."""

    def __init__(self, source: ImageSource, indices: Sequence[int]) -> None:
        self.source = source
        self.indices = tuple(indices)
        self.labels = tuple(source.labels[index] for index in self.indices)
        self.num_classes = source.num_classes
        self.sizes = None if source.sizes is None else [source.sizes[index] for index in self.indices]

    def read(self, index: int) -> UInt8[Tensor, "channels height width"]:
        return self.source.read(self.indices[index])

    def name(self, index: int) -> str:
        return self.source.name(self.indices[index])

    def digest(self, index: int) -> str:
        return self.source.digest(self.indices[index])


class Joined(ImageSource):
    """Several sources, one after another."""

    def __init__(self, sources: Sequence[ImageSource]) -> None:
        self.places = [(source, index) for source in sources for index in range(len(source))]
        self.labels = tuple(label for source in sources for label in source.labels)
        self.num_classes = sources[0].num_classes if sources else None
        self.skipped = tuple(name for source in sources for name in source.skipped)

    def read(self, index: int) -> UInt8[Tensor, "channels height width"]:
        source, inner = self.places[index]
        return source.read(inner)

    def name(self, index: int) -> str:
        source, inner = self.places[index]
        return source.name(inner)

    def digest(self, index: int) -> str:
        source, inner = self.places[index]
        return source.digest(inner)


@dataclass(frozen=True)
class ImageClasses:
    """Images for classification. Label i means `class_names[i]`; images without labels have no class names.

    `has_val` is True where the data have a validation split of their own, and False where `val` was drawn by seed.
    """

    address: str
    class_names: tuple[str, ...]
    train: ImageSource
    val: ImageSource
    has_val: bool
    decoding: Decoding = AS_STORED
    """How files become 8 bits: as given, or as the training images need it."""
    remarks: tuple[str, ...] = ()
    """What was assumed or passed over when the data were opened: a sentence each."""
    repairs: Repairs = field(default_factory=Repairs)
    """Of data that a file lists: what was mended in its rows, and left out."""

    @property
    def unlabelled(self) -> bool:
        """Whether no image has a label, nor can have one."""
        return not self.class_names

    @property
    def multi_label(self) -> bool:
        return self.train.num_classes is not None or self.val.num_classes is not None


def split_indices(
    labels: Sequence[int],
    class_names: Sequence[str],
    *,
    val_fraction: float,
    split_seed: int,
    where: str,
    files: Sequence[Path] = (),
) -> tuple[list[int], list[int]]:
    """Indices of a training and a validation split, both sorted, in which each class has the same fraction.

    The validation split gets `val_fraction` of all images, rounded up, and at least as many as there are classes.
    `files`, one for each label, are kept on one side where they have the same bytes; without such files they change
    nothing. Raises RegardError if a class has fewer than two images, or none that would be trained on.
    """
    from sklearn.model_selection import train_test_split  # it takes over a second to import

    if not 0 < val_fraction < 1:
        raise RegardError(f"{where}: val_fraction is {val_fraction}; it must lie between 0 and 1")
    counts = Counter(labels)
    small = [class_names[label] for label in sorted(counts) if counts[label] < 2]
    if small:
        raise RegardError(
            f"{where}: a class needs two images, one to train on and one to validate on; only one: {', '.join(small)}"
        )
    num_val = max(math.ceil(len(labels) * val_fraction), len(counts))
    num_val = min(num_val, len(labels) - len(counts))
    train, val = train_test_split(range(len(labels)), test_size=num_val, random_state=split_seed, stratify=labels)
    untrained = counts.keys() - {labels[index] for index in train}
    if untrained:
        names = ", ".join(class_names[label] for label in sorted(untrained))
        raise RegardError(f"{where}: val_fraction {val_fraction} leaves nothing to train on of: {names}")
    return kept_together(train, val, doubles(files), labels)


def split_by_seed(
    count: int, *, val_fraction: float, split_seed: int, where: str, files: Sequence[Path] = ()
) -> tuple[list[int], list[int]]:
    """Indices of a training and a validation split, both sorted, drawn by seed, whatever the labels.

    The validation split gets `val_fraction` of all images, rounded up. `files`, one for each image, are kept on one
    side where they have the same bytes. RegardError with too few images for two parts.
    """
    if not 0 < val_fraction < 1:
        raise RegardError(f"{where}: val_fraction is {val_fraction}; it must lie between 0 and 1")
    if count < 2:
        raise RegardError(f"{where}: {count} images; two are needed, one to train on and one to evaluate on")
    num_val = min(max(math.ceil(count * val_fraction), 1), count - 1)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(split_seed)).tolist()
    return kept_together(order[num_val:], order[:num_val], doubles(files))


def split_where_it_can(
    labels: Sequence[int],
    class_names: Sequence[str],
    *,
    val_fraction: float,
    split_seed: int,
    where: str,
    files: Sequence[Path] = (),
) -> tuple[list[int], list[int]]:
    """As `split_indices`; by seed alone where a class has a single image, for what can do without labels."""
    if min(Counter(labels).values()) < 2:
        return split_by_seed(len(labels), val_fraction=val_fraction, split_seed=split_seed, where=where, files=files)
    return split_indices(
        labels, class_names, val_fraction=val_fraction, split_seed=split_seed, where=where, files=files
    )


def split_source(
    source: ImageSource, class_names: tuple[str, ...], *, address: str, val_fraction: float, split_seed: int
) -> ImageClasses:
    """A source without a validation split of its own, split by seed; see `split_indices`."""
    train, val = split_indices(
        single_labels(source.labels), class_names, val_fraction=val_fraction, split_seed=split_seed, where=address
    )
    return ImageClasses(address, class_names, Selected(source, train), Selected(source, val), has_val=False)
