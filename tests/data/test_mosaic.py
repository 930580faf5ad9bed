"""Scenes enlarged, reduced and four in one: boxes go where their pixels go, and what is cut away is not annotated."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from regard.data import MosaicAndJitter, Objects, TrainingOrder, detection_training_loader
from regard.data.boxes.mosaic import FAMILIAR, MOSAIC_SCALES, VISIBLE, jittered, mosaic
from regard.data.boxes.sources import DetectionSource
from regard.data.images.files import BadImage

FILL = (0.2, 0.4, 0.6)
GROUND = 10
# A bright rectangle on a dark ground: (left, top, right, bottom), so that its box can be read off the pixels.
BOX = (30, 20, 70, 44)


def scene(height: int = 73, width: int = 101, box: tuple[int, int, int, int] = BOX, label: int = 3):
    image = torch.full((3, height, width), GROUND, dtype=torch.uint8)
    left, top, right, bottom = box
    image[:, top:bottom, left:right] = 250
    boxes = torch.tensor([box], dtype=torch.float32)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    return image, Objects(boxes, torch.tensor([label]), area, torch.zeros(1, dtype=torch.bool))


def bright_box(image: Tensor) -> Tensor:
    """(left, top, right, bottom) of what is bright."""
    bright = image.float().mean(0) > 180
    rows, columns = bright.any(1).nonzero(), bright.any(0).nonzero()
    return torch.tensor([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], dtype=torch.float32)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("scales", [(0.4, 0.9), (1.0, 1.0), (1.1, 2.3)])
def test_a_box_is_where_its_pixels_are(seed, scales):
    torch.manual_seed(seed)
    image, objects = jittered(scene(), scales, FILL)
    assert image.shape == (3, 73, 101)
    assert image.dtype == torch.uint8
    if len(objects):
        assert_close(objects.boxes_xyxy[0], bright_box(image), rtol=0, atol=1.1)
        assert objects.labels.tolist() == [3]


def test_what_is_reduced_has_the_fill_around_it_and_its_area():
    torch.manual_seed(0)
    image, objects = jittered(scene(), (0.5, 0.5), FILL)
    shares = [(image == torch.tensor(FILL).mul(255).round().byte()[:, None, None]).all(0).float().mean().item()]
    assert shares[0] == pytest.approx(0.75, abs=0.01)
    assert objects.areas.item() == pytest.approx(40 * 24 / 4)


def test_what_is_mostly_cut_away_is_not_annotated():
    kept, dropped = 0, 0
    for seed in range(60):
        torch.manual_seed(seed)
        image, objects = jittered(scene(), (2.5, 2.5), FILL)
        bright = (image.float().mean(0) > 180).sum().item()
        share = bright / (40 * 24 * 2.5**2)
        assert (len(objects) == 1) == (share >= VISIBLE) or abs(share - VISIBLE) < 0.03
        kept, dropped = kept + len(objects), dropped + (len(objects) == 0)
    assert kept > 5
    assert dropped > 5


@pytest.mark.parametrize("seed", range(10))
def test_a_mosaic_has_four_scenes_around_a_corner(seed, monkeypatch):
    monkeypatch.setattr("regard.data.boxes.mosaic.VISIBLE", 0.0)
    torch.manual_seed(seed)
    # Objects as large as their images: each quarter is bright all over, and one box of its own label.
    sizes = [(64, 96), (31, 67), (101, 43), (64, 96)]
    four = [scene(h, w, (0, 0, w, h), label) for label, (h, w) in enumerate(sizes)]
    image, objects = mosaic(four, (1.0, 1.0), FILL)
    assert image.shape == (3, 64, 96)
    assert (image == 250).all()
    row, column = round(objects.boxes_xyxy[0, 3].item()), round(objects.boxes_xyxy[0, 2].item())
    assert 0.35 * 64 - 1 <= row <= 0.65 * 64 + 1
    assert 0.35 * 96 - 1 <= column <= 0.65 * 96 + 1
    quarters = {0: (0, 0, column, row), 1: (column, 0, 96, row), 2: (0, row, column, 64), 3: (column, row, 96, 64)}
    for box, label in zip(objects.boxes_xyxy.tolist(), objects.labels.tolist(), strict=True):
        assert box == pytest.approx(quarters[label])


def test_crowds_stay_crowds_and_images_without_objects_serve(monkeypatch):
    monkeypatch.setattr("regard.data.boxes.mosaic.VISIBLE", 0.0)
    empty = (
        torch.zeros(3, 40, 40, dtype=torch.uint8),
        Objects(torch.zeros(0, 4), torch.zeros(0).long(), torch.zeros(0), torch.zeros(0).bool()),
    )
    image, objects = scene(40, 40, (0, 0, 40, 40))
    crowd = image, Objects(objects.boxes_xyxy, objects.labels, objects.areas, torch.tensor([True]))
    _, found = mosaic([crowd, empty, empty, crowd], (1.0, 1.0), FILL)
    assert found.crowd.tolist() == [True, True]
    assert len(mosaic([empty] * 4, MOSAIC_SCALES, FILL)[1]) == 0
    assert len(jittered(empty, (0.5, 2.0), FILL)[1]) == 0


class Scenes(DetectionSource):
    def __init__(self, bad: int | None = None) -> None:
        self.scenes = [scene(64, 64, (8 * i, 8, 8 * i + 16, 40), i) for i in range(5)]
        self.objects = [objects for _, objects in self.scenes]
        self.image_ids, self.sizes, self.bad = range(1, 6), [(64, 64)] * 5, bad

    def read(self, index: int) -> Tensor:
        if index == self.bad:
            raise BadImage(f"scene {index}", "is broken")
        return self.scenes[index][0]

    def name(self, index: int) -> str:
        return f"scene {index}"


def batches(vary: MosaicAndJitter | None, source: Scenes, count: int, on_bad_image: str = "stop"):
    """Of `count` epochs, the first of them when all are familiar."""

    def as_it_is(image: Tensor, objects: Objects) -> tuple[Tensor, Objects]:
        return image.float() / 255, objects

    order = TrainingOrder(5, 5, seed=7)
    order.start_step = FAMILIAR
    loader = iter(detection_training_loader(source, as_it_is, order, 0, on_bad_image, vary))
    return [next(loader) for _ in range(count)]


def test_they_are_a_function_of_seed_epoch_and_index():
    source = Scenes()
    vary = MosaicAndJitter(source, (0.7, 1.4), 0.5, FILL)
    first, again = batches(vary, source, 3), batches(vary, source, 3)
    for one, other in zip(first, again, strict=True):
        assert torch.equal(one.images, other.images)
    assert not torch.equal(first[0].images, first[1].images)


def test_a_share_of_the_images_is_mosaics():
    source = Scenes()
    counts = [
        len(one)
        for batch in batches(MosaicAndJitter(source, (1.0, 1.0), 0.5, FILL), source, 20)
        for one in batch.labels
    ]
    several = sum(count > 1 for count in counts) / len(counts)
    assert 0.3 < several < 0.65
    plain = batches(MosaicAndJitter(source, (1.0, 1.0), 0.0, FILL), source, 4)
    assert all(len(one) == 1 for batch in plain for one in batch.labels)


def test_no_mosaic_has_more_objects_than_a_model_has_queries():
    source = Scenes()
    for most, mosaics in ((3, False), (4, True)):
        torch.manual_seed(0)
        vary = MosaicAndJitter(source, (1.0, 1.0), 1.0, FILL, most=most)
        assert all((len(vary(FAMILIAR, 3)[1]) > 1) == mosaics for _ in range(10))


def test_what_is_new_is_left_alone():
    source = Scenes()
    vary = MosaicAndJitter(source, (0.5, 0.6), 0.0, FILL)
    changed = []
    for epoch in (0, FAMILIAR // 2, FAMILIAR, 5 * FAMILIAR):
        torch.manual_seed(0)
        changed.append(sum(not torch.equal(vary(epoch, 3)[0], source.read(3)) for _ in range(100)))
    assert changed[0] == 0
    assert 35 < changed[1] < 65
    assert changed[2:] == [100, 100]


def test_a_mosaic_with_an_image_that_cannot_be_read():
    source = Scenes(bad=2)
    vary = MosaicAndJitter(source, (1.0, 1.0), 1.0, FILL)
    with pytest.raises(BadImage, match="scene 2: is broken"):
        batches(vary, source, 4)
    skipped = batches(vary, source, 4, on_bad_image="skip")
    assert all(reason == "scene 2: is broken" for batch in skipped for reason in batch.skipped)
    assert sum(len(batch) + len(batch.skipped) for batch in skipped) == 20
    assert any(len(batch.skipped) for batch in skipped)
