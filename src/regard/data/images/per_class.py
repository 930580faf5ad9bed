"""So many training images of each class, drawn by a seed: what a model learns from few labels (`data.per_class`)."""

from collections import Counter, defaultdict
from collections.abc import Sequence

import torch

from regard.data.images.labels import single_labels
from regard.data.images.sources import ImageSource
from regard.data.order import seed_for
from regard.errors import RegardError, first_few

_OF_DRAWING = 11  # another draw than that of a split, from the same seed
SAID = 12  # classes that are named


def draw_per_class(source: ImageSource, number: int, seed: int, where: str) -> ImageSource:
    """The images that `indices_per_class` draws, with its errors."""
    return source.only(indices_per_class(source, number, seed, where))


def indices_per_class(source: ImageSource, number: int, seed: int, where: str) -> list[int]:
    """The indices of `number` images of each class, in their order; of all of a class that has fewer.

    A class's images are put in an order that `seed` and the number of the class alone decide, and its first are taken:
    with one seed a smaller draw is part of a larger one. RegardError, which begins with `where`, where images do not
    have one class each.
    """
    if source.num_classes is not None:
        raise RegardError(f"{where}: is for images with one class each; these have several labels, or none")
    of_class: defaultdict[int, list[int]] = defaultdict(list)
    for index, label in enumerate(single_labels(source.labels)):
        of_class[label].append(index)
    drawn: list[int] = []
    for label, own in of_class.items():
        draw = torch.Generator().manual_seed(seed_for(seed, _OF_DRAWING, label))
        drawn += [own[place] for place in torch.randperm(len(own), generator=draw)[:number].tolist()]
    return sorted(drawn)


def fewer_than(number: int, source: ImageSource, class_names: Sequence[str]) -> str:
    """What is said of classes with fewer images, all of which are taken: their names and numbers; "" without such."""
    counts = Counter(source.labels)
    few = [f"{name} ({counts[label]})" for label, name in enumerate(class_names) if counts[label] < number]
    return f"fewer than {number} training images of {first_few(few, SAID)}; all of them are taken" if few else ""
