"""What an image is labelled with: one class, or in a multi-label set any number of classes."""

from collections import Counter
from collections.abc import Sequence

import torch
from jaxtyping import Int64
from torch import Tensor

# A class by its number; or the numbers of all classes of an image, in their order.
Label = int | tuple[int, ...]

BETWEEN = ";"  # names of classes, where several stand in one text


def classes_of(label: Label) -> tuple[int, ...]:
    """The classes of an image, whether its set is multi-label or not."""
    return (label,) if isinstance(label, int) else label


def single_labels(labels: Sequence[Label]) -> tuple[int, ...]:
    """The class of each image of a set that is not multi-label."""
    return tuple(label for label in labels if isinstance(label, int))


def label_text(label: Label, class_names: Sequence[str]) -> str:
    """ "cat", or "cat;dog" in the order of the classes."""
    return BETWEEN.join(class_names[index] for index in classes_of(label))


def label_tensor(labels: Sequence[Label], num_classes: int | None) -> Int64[Tensor, " images *classes"]:
    """The class of each image; of a multi-label set, which has `num_classes`, a row of zeros and ones for each."""
    if num_classes is None:
        return torch.tensor(labels, dtype=torch.int64)
    rows = torch.zeros(len(labels), num_classes, dtype=torch.int64)
    for row, label in zip(rows, labels, strict=True):
        row[list(classes_of(label))] = 1
    return rows


def balancing_weights(labels: Sequence[Label]) -> list[float]:
    """How often each image is drawn, relative to others, so that all classes come equally often.

    It is 1 / images of its class. Of several classes the rarest counts, as in repeat-factor sampling (Gupta et al.
    2019, section 4.2), though without its root. Images of no class count as a class of their own.
    """
    sets = [classes_of(label) or (-1,) for label in labels]
    count = Counter(index for own in sets for index in own)
    return [1 / min(count[index] for index in own) for own in sets]
