"""The digits, and the seeded split that they share with folders."""

from collections import Counter

import pytest
import torch
from sklearn.datasets import load_digits

from regard.data import InMemoryImages, Selected, open_images
from regard.data.images.sources import split_indices
from regard.errors import RegardError


def test_digits_are_the_real_ones_scaled_to_255():
    images = open_images("digits", channels=1)
    assert images.class_names == tuple("0123456789")
    assert not images.has_val
    assert (len(images.train), len(images.val)) == (1347, 450)
    digits = load_digits()
    for source in (images.train, images.val):
        for index in (0, 7, 100):
            original = int(source.name(index).removeprefix("digits[").removesuffix("]"))
            expected = torch.from_numpy(digits.images[original] * 255 / 16).round().to(torch.uint8)
            assert torch.equal(source.read(index)[0], expected)
            assert source.labels[index] == digits.target[original]


def test_three_channels_repeat_the_one():
    grey, colour = (open_images("digits", channels=channels).train.read(5) for channels in (1, 3))
    assert colour.shape == (3, 8, 8)
    assert torch.equal(colour, grey.repeat(3, 1, 1))


def test_the_split_is_seeded_disjoint_and_stratified():
    def names(**arguments):
        images = open_images("digits", channels=1, **arguments)
        return [[source.name(i) for i in range(len(source))] for source in (images.train, images.val)]

    train, val = names(split_seed=3)
    assert [train, val] == names(split_seed=3)
    assert val != names(split_seed=4)[1]
    assert len({*train, *val}) == 1797
    assert len(names(val_fraction=0.5)[1]) == 899
    counts = Counter(open_images("digits", channels=1).val.labels)
    assert max(counts.values()) - min(counts.values()) <= 3


@pytest.mark.parametrize("channels", [0, 2, 4])
def test_digits_have_one_or_three_channels(channels):
    with pytest.raises(RegardError, match="channels"):
        open_images("digits", channels=channels)


def split(labels, val_fraction=0.25):
    return split_indices(labels, ["ant", "bee", "cat"], val_fraction=val_fraction, split_seed=0, where="folder:x")


def test_the_smallest_set_that_can_be_split():
    train, val = split([0, 0, 1, 1, 2, 2])
    assert sorted(train + val) == [0, 1, 2, 3, 4, 5]
    assert sorted(index // 2 for index in train) == [0, 1, 2]


def test_a_class_with_one_image_cannot_be_split():
    with pytest.raises(RegardError, match="only one: bee"):
        split([0, 0, 1, 2, 2])


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.5])
def test_the_fraction_lies_between_0_and_1(fraction):
    with pytest.raises(RegardError, match="val_fraction"):
        split([0, 0, 1, 1], fraction)


def test_a_class_with_nothing_left_to_train_on_is_an_error():
    with pytest.raises(RegardError, match=r"val_fraction 0.9 leaves nothing to train on of: bee"):
        split([0] * 40 + [1] * 2 + [2] * 40, 0.9)


def test_selected_images_keep_their_names():
    source = InMemoryImages(torch.arange(4, dtype=torch.uint8).view(4, 1, 1, 1), (5, 6, 7, 8), "set")
    selected = Selected(source, [2, 0])
    assert len(selected) == 2
    assert selected.labels == (7, 5)
    assert [selected.name(i) for i in range(2)] == ["set[2]", "set[0]"]
    assert selected.read(0).item() == 2
    with pytest.raises(RegardError, match="4 images and 1 labels"):
        InMemoryImages(source.images, (5,), "set")
