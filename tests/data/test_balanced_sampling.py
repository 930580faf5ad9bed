"""Balanced sampling: rare classes come as often as others, and an epoch follows from its seed and its number."""

from collections import Counter
from itertools import islice

import pytest

from regard.data import TrainingOrder, balancing_weights
from regard.errors import RegardError

LABELS = [0] * 80 + [1] * 16 + [2] * 4


def epochs(order: TrainingOrder, number: int) -> list[list[int]]:
    steps = list(islice(order, number * order.steps_per_epoch))
    return [[index for step in steps for epoch, index in step if epoch == one] for one in range(number)]


def test_each_class_comes_equally_often_and_each_image_as_often_as_it_can():
    order = TrainingOrder(100, 10, 7, weights=balancing_weights(LABELS))
    for drawn in epochs(order, 5):
        assert len(drawn) == 100
        classes = Counter(LABELS[index] for index in drawn)
        assert all(abs(classes[label] - 100 / 3) < 1 for label in range(3))
        images = Counter(drawn)
        assert {images[index] for index in range(80)} == {0, 1}
        assert {images[index] for index in range(80, 96)} == {2, 3}
        assert {images[index] for index in range(96, 100)} == {8, 9}
    first, second = epochs(order, 2)
    assert first != second
    assert sorted(first) != first
    assert len({index for drawn in epochs(order, 20) for index in drawn}) == 100, "in time every image is seen"


def test_it_is_a_function_of_seed_and_step():
    weights = balancing_weights(LABELS)
    whole = list(islice(TrainingOrder(100, 8, 3, weights=weights), 40))
    later = list(islice(TrainingOrder(100, 8, 3, weights=weights, start_step=23), 17))
    assert later == whole[23:]
    assert list(islice(TrainingOrder(100, 8, 4, weights=weights), 40)) != whole
    shards = [list(islice(TrainingOrder(100, 8, 3, weights=weights, rank=r, world_size=2), 40)) for r in range(2)]
    assert [a + b for a, b in zip(*shards, strict=True)] == whole


def test_without_weights_the_order_is_what_it_was():
    assert list(islice(TrainingOrder(100, 8, 3), 30)) == list(islice(TrainingOrder(100, 8, 3, weights=None), 30))


def test_of_several_labels_the_rarest_counts():
    labels = [(0,), (0,), (0, 1), (0,), (), ()]
    assert balancing_weights(labels) == [1 / 4, 1 / 4, 1, 1 / 4, 1 / 2, 1 / 2]
    assert balancing_weights([0, 0, 1]) == [1 / 2, 1 / 2, 1]


def test_a_set_smaller_than_a_batch_is_repeated():
    order = TrainingOrder(3, 8, 0, weights=[1.0, 1.0, 2.0])
    assert all(len(step) == 3 for step in islice(order, 4))


@pytest.mark.parametrize("weights", [[1.0, 2.0], [1.0, 0.0, 1.0], [1.0, float("nan"), 1.0]])
def test_weights_must_be_as_many_and_above_zero(weights):
    with pytest.raises(RegardError, match="weights must be 3 numbers above 0"):
        TrainingOrder(3, 2, 0, weights=weights)
