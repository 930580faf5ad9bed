"""A split of a multi-label set in which each class has nearly the same fraction on both sides."""

import math
import random
from collections.abc import Sequence

from regard.errors import RegardError

NO_CLASS = -1  # what images without a class count as


def split_label_sets(
    labels: Sequence[Sequence[int]],
    *,
    fraction: float,
    seed: int,
    where: str,
    groups: Sequence[Sequence[int]] = (),
) -> tuple[list[int], list[int]]:
    """Indices that are kept and indices that are held out, both sorted, by iterative stratification.

    The images of the rarest class are dealt out first, each to the side that lacks most of this class (Sechidis et al.
    2011, algorithm 1). About `fraction` of all images is held out. A class with two images or more is on both sides
    wherever that can be; a class with one is kept. `groups` of indices stay on one side: files of the same bytes.
    RegardError where nothing is left for one side.
    """
    if not 0 < fraction < 1:
        raise RegardError(f"{where}: the fraction to hold out is {fraction}; it must lie between 0 and 1")
    draw = random.Random(seed)
    grouped = {index for group in groups for index in group}
    units = [*map(list, groups), *([index] for index in range(len(labels)) if index not in grouped)]
    units = [unit for _, unit in sorted((draw.random(), unit) for unit in units)]
    classes = [{label for index in unit for label in labels[index] or (NO_CLASS,)} for unit in units]
    having: dict[int, list[int]] = {label: [] for label in sorted(set().union(*classes))}
    for number, own in enumerate(classes):
        for label in own:
            having[label].append(number)
    held = _dealt_out(units, classes, having, fraction)
    _put_on_both_sides(classes, having, held)
    held_out = sorted(index for unit, side in zip(units, held, strict=True) if side for index in unit)
    if not 0 < len(held_out) < len(labels):
        raise RegardError(f"{where}: of {len(labels)} images none can be held out without losing a class to train on")
    return sorted(set(range(len(labels))) - set(held_out)), held_out


def _dealt_out(
    units: Sequence[Sequence[int]], classes: Sequence[set[int]], having: dict[int, list[int]], fraction: float
) -> list[bool]:
    """Whether each unit is held out."""
    images = sum(map(len, units))
    places = [images - math.ceil(images * fraction), math.ceil(images * fraction)]  # that are left: kept, held out
    wanted = {}
    for label, own in having.items():
        most = max(fraction * len(own), 1.0) if len(own) > 1 else 0.0
        wanted[label] = [len(own) - most, most]
    held: list[bool | None] = [None] * len(units)
    waiting = {label: len(own) for label, own in having.items()}
    while any(waiting.values()):
        rarest = min((label for label in waiting if waiting[label]), key=lambda label: (waiting[label], label))
        for number in having[rarest]:
            if held[number] is not None:
                continue
            lacking = [(wanted[rarest][side], places[side]) for side in (0, 1)]
            side = int(lacking[1] > lacking[0])
            held[number] = bool(side)
            places[side] -= len(units[number])
            for label in classes[number]:
                wanted[label][side] -= 1
                waiting[label] -= 1
    return [bool(side) for side in held]


def _put_on_both_sides(classes: Sequence[set[int]], having: dict[int, list[int]], held: list[bool]) -> None:
    """Moves a unit of each class that one side lacks, where no other class is lost by that: first to the kept side."""
    for lacking in (False, True):
        for own in having.values():
            if len(own) < 2 or any(held[number] is lacking for number in own):
                continue
            for number in own:
                if all(sum(held[other] is not lacking for other in having[one]) > 1 for one in classes[number]):
                    held[number] = lacking
                    break
