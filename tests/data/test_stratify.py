"""The split of a multi-label set."""

from collections import Counter

import numpy as np
import pytest

from regard.data import split_label_sets
from regard.errors import RegardError


def drawn(images: int, fractions, seed: int = 0) -> list[tuple[int, ...]]:
    """Labels, each class drawn for itself."""
    found = np.random.default_rng(seed).random((images, len(fractions))) < fractions
    return [tuple(np.flatnonzero(row).tolist()) for row in found]


def counts(labels, indices) -> Counter[int]:
    return Counter(label for index in indices for label in labels[index])


@pytest.mark.parametrize("seed", range(4))
def test_each_class_has_its_fraction_on_both_sides(seed):
    labels = drawn(400, [0.5, 0.2, 0.05, 0.02, 0.3])
    kept, held = split_label_sets(labels, fraction=0.25, seed=seed, where="here")
    assert sorted(kept + held) == list(range(400))
    assert abs(len(held) - 100) <= 5
    whole, part = counts(labels, range(400)), counts(labels, held)
    for label, number in whole.items():
        assert abs(part[label] - number / 4) <= max(2, 0.05 * number), label
    none = [index for index, own in enumerate(labels) if not own]
    assert abs(len(set(none) & set(held)) - len(none) / 4) <= 3
    assert split_label_sets(labels, fraction=0.25, seed=seed, where="here") == (kept, held)
    assert split_label_sets(labels, fraction=0.25, seed=seed + 9, where="here") != (kept, held)


def test_a_class_of_two_images_is_on_both_sides_and_a_class_of_one_is_kept():
    for seed in range(20):
        labels = [(0,), *[(1,)] * 30, (1, 2), (1, 2), (1, 3), (0, 1), (4,)]
        kept, held = split_label_sets(labels, fraction=0.1, seed=seed, where="here")
        whole, own = counts(labels, range(len(labels))), (counts(labels, kept), counts(labels, held))
        for label in (0, 1, 2):
            assert min(own[0][label], own[1][label]) > 0, (seed, label)
        assert own[0][3] == own[0][4] == whole[3] == 1


def test_groups_stay_together():
    labels = drawn(60, [0.5, 0.3])
    groups = [[0, 7, 31], [5, 6]]
    for seed in range(20):
        _, held = split_label_sets(labels, fraction=0.3, seed=seed, where="here", groups=groups)
        assert all(len(set(group) & set(held)) in (0, len(group)) for group in groups)


def test_where_nothing_can_be_held_out():
    with pytest.raises(RegardError, match="here: of 2 images none can be held out without losing a class to train on"):
        split_label_sets([(0,), (1,)], fraction=0.5, seed=0, where="here")
    with pytest.raises(RegardError, match="must lie between 0 and 1"):
        split_label_sets([(0,), (0,)], fraction=1.0, seed=0, where="here")
