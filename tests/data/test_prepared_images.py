"""Photographs are decoded and resized once: nothing else changes, but large ones are reduced before random crops."""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import regard.data.images.cache as cache
from regard.data import (
    BadImage,
    DetectionPreprocessing,
    DetectionSource,
    ImageSource,
    Objects,
    Preprocessing,
    evaluation_transform,
    prepared_once,
)
from regard.data.boxes.batches import detection_evaluation_loader
from regard.data.boxes.cache import PreparedDetectionSource
from regard.data.images.cache import PixelCache, Reduce

SIZES = [(61, 97), (17, 13), (20, 24), (211, 101), (40, 40)]
PRE = Preprocessing((20, 24), 3, (0.5,) * 3, (0.25,) * 3, "bilinear", 0.9)


def image_of(index: int, size: tuple[int, int]) -> Tensor:
    return torch.randint(256, (3, *size), generator=torch.Generator().manual_seed(index)).byte()


class Photographs(ImageSource):
    """Image 4 cannot be read."""

    def __init__(self, *, known: bool = True) -> None:
        self.labels = (0,) * len(SIZES)
        self.sizes = SIZES if known else None
        self.reads: Counter[int] = Counter()

    def read(self, index: int) -> Tensor:
        self.reads[index] += 1
        if index == 4:
            raise BadImage("image 4", "is broken")
        return image_of(index, SIZES[index])

    def name(self, index: int) -> str:
        return f"image {index}"


def prepare(train: ImageSource, val: ImageSource, pre: Preprocessing = PRE, **options: Any) -> Any:
    return prepared_once(train, val, pre, **{"random_crops": False, "cache": True, "num_workers": 0, **options})


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("resize", ["crop", "squash", "letterbox"])
def test_images_are_read_once_and_seen_as_before(resize, workers):
    train, val = Photographs(), Photographs(known=False)
    pre = PRE if resize == "crop" else replace(PRE, resize=resize, crop_fraction=1.0)
    *kept, why = prepare(train, val, pre, num_workers=workers)
    see = evaluation_transform(pre)
    assert why == ""
    for source in kept:
        assert source.cache.pixels.is_shared() == (workers > 0)
        for _ in range(2):
            for index in range(4):
                assert torch.equal(see(source.read(index)), see(image_of(index, SIZES[index])))
                assert source.name(index) == f"image {index}"
            with pytest.raises(BadImage, match="image 4"):
                source.read(4)
    assert val.reads == {0: 1, 1: 1, 2: 1, 3: 1, 4: 2}
    assert kept[1].digest(1) == train.digest(1)


def test_only_images_much_larger_than_needed_are_reduced():
    reduce = Reduce(replace(PRE, img_size=(20, 30)))
    # It covers 40 × 60, and holds at most half of the pixels.
    assert reduce.size(400, 600) == (40, 60)
    assert reduce.size(600, 600) == (60, 60)
    assert reduce.size(300, 900) == (40, 120)
    assert reduce.size(57, 89) == (40, 62)
    for size in ((56, 84), (40, 60), (8, 8), (500, 61), (32, 1000)):
        assert reduce.size(*size) == size
    flat = torch.full((3, 400, 600), 77, dtype=torch.uint8)
    assert torch.equal(reduce(flat), flat[:, :40, :60])
    small = image_of(0, (56, 84))
    assert reduce(small) is small


def test_before_random_crops_large_images_are_reduced_with_and_without_a_cache():
    pre = replace(PRE, img_size=(20, 20), crop_fraction=1.0)
    wanted = [(40, 64), (17, 13), (20, 24), (84, 40)]
    kept, _, _ = prepare(Photographs(), Photographs(), pre, random_crops=True)
    uncached, val, why = prepare(source := Photographs(), Photographs(), pre, random_crops=True, cache=False)
    assert isinstance(val, Photographs)
    assert why == ""
    for _ in range(2):
        for index, size in enumerate(wanted):
            assert tuple(kept.read(index).shape[1:]) == size
            assert torch.equal(kept.read(index), uncached.read(index))
    assert source.reads[3] == 2
    train, val, _ = prepare(unknown := Photographs(known=False), Photographs(), pre, random_crops=True)
    assert train is unknown
    assert not isinstance(val, Photographs)


def test_what_does_not_fit_is_not_cached_and_the_same_is_seen(monkeypatch):
    monkeypatch.setattr(cache, "available_memory", lambda: 1000)
    train, val, why = prepare(given := Photographs(), Photographs())
    assert train is given
    assert isinstance(val, Photographs)
    assert why.startswith("the decoded images are not cached: they take 0 MB")
    reduced, _, why = prepare(Photographs(), Photographs(), replace(PRE, img_size=(20, 20)), random_crops=True)
    assert tuple(reduced.read(3).shape[1:]) == (84, 40)
    assert why


def test_an_image_larger_than_its_place_is_not_kept():
    kept = PixelCache([6, 6], 1, shared=False)
    first, large = torch.arange(6, dtype=torch.uint8).view(1, 2, 3), torch.zeros(1, 7, 1, dtype=torch.uint8)
    kept.put(0, first)
    kept.put(1, large)
    assert torch.equal(kept.get(0), first)
    assert kept.get(1) is None
    kept.put(1, large[:, :5])
    assert kept.get(1).shape == (1, 5, 1)
    assert torch.equal(kept.get(0), first)


class Boxes(DetectionSource):
    """Image 2 has another size than is stated."""

    def __init__(self) -> None:
        self.sizes, self.image_ids, self.reads = SIZES[:4], range(1, 5), Counter()
        box = torch.tensor([[1.0, 2.0, 11.0, 9.0]])
        self.objects = [Objects(box, torch.tensor([0]), torch.tensor([70.0]), torch.tensor([False]))] * 4

    def read(self, index: int) -> Tensor:
        self.reads[index] += 1
        return image_of(index, (23, 24) if index == 2 else SIZES[index])

    def name(self, index: int) -> str:
        return f"image {index}"


def test_a_detectors_held_out_images_are_read_once_and_seen_as_before():
    pre = DetectionPreprocessing(29, 53, 3, (0.5,) * 3, (0.25,) * 3, divisor=7)
    source = Boxes()
    kept = PreparedDetectionSource(source, pre, shared=False)
    plain = [one for several in detection_evaluation_loader(Boxes(), pre, 2, 0, "stop") for one in several]
    for _ in range(3):
        batches = [one for several in detection_evaluation_loader(kept, pre, 2, 0, "stop") for one in several]
        for batch, wanted in zip(batches, plain, strict=True):
            assert torch.equal(batch.images, wanted.images)
            assert (batch.indices, batch.stored_sizes, batch.names) == (
                *(wanted.indices, wanted.stored_sizes, wanted.names),
            )
            assert_close(batch.boxes_cxcywh, wanted.boxes_cxcywh)
    assert source.reads == {0: 1, 1: 1, 2: 3, 3: 1}
    other = replace(pre, shortest=31)  # of another detector
    loaders = (detection_evaluation_loader(each, other, 2, 0, "stop") for each in (kept, Boxes()))
    shapes = [[tuple(one.images.shape) for several in loader for one in several] for loader in loaders]
    assert shapes[0] == shapes[1]
