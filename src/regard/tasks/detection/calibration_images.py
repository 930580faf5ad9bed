"""Which training images are held out of training, to measure on them what is done with a detector's boxes."""

import hashlib
import math
from collections import Counter
from pathlib import Path

from regard.data import DetectionSource, SelectedDetectionSource, relative_name
from regard.data.images.doubles import doubles
from regard.tasks.detection.calibration import LEAST_OBJECTS


def held_for_calibration(
    source: DetectionSource, fraction: float, seed: int, root: str
) -> tuple[DetectionSource, DetectionSource]:
    """(what is trained on, what is held out of it): together they are `source`, each in its order.

    Images are drawn by `seed` and their names below `root`, so that their order does not matter, and files of the same
    bytes go together. No class is lost to the training. What is held out may have too few objects to measure anything
    on: then all is for the caller to train on.
    """
    wanted, labels = math.ceil(len(source) * fraction), [set(one.labels.tolist()) for one in source.objects]
    left = Counter(label for own in labels for label in own)
    groups = doubles([Path(source.name(index)) for index in range(len(source))])
    doubled = {index for group in groups for index in group}
    units = [*groups, *([index] for index in range(len(source)) if index not in doubled)]
    held: set[int] = set()
    for unit in sorted(units, key=lambda unit: min(_drawn(source.name(index), seed, root) for index in unit)):
        taken = Counter(label for index in unit for label in labels[index])
        if len(held) + len(unit) <= wanted and all(left[label] > count for label, count in taken.items()):
            held.update(unit)
            left -= taken
    return (
        SelectedDetectionSource(source, [index for index in range(len(source)) if index not in held]),
        SelectedDetectionSource(source, sorted(held)),
    )


def objects_in(source: DetectionSource) -> int:
    """Crowds do not count."""
    return sum(int((~one.crowd).sum()) for one in source.objects)


def enough(source: DetectionSource) -> bool:
    """Whether there are objects enough to measure on."""
    return objects_in(source) >= LEAST_OBJECTS


def _drawn(name: str, seed: int, root: str) -> bytes:
    return hashlib.blake2b(f"{seed},{relative_name(name, root)}".encode(errors="surrogatepass")).digest()
