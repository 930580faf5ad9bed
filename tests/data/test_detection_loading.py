"""From scenes to batches: boxes move with their pixels, padding is masked, order and draws depend on the seed alone."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from regard.data import (
    AspectOrder,
    BadImage,
    DetectionAugmentation,
    DetectionPreprocessing,
    DetectionSource,
    Objects,
    ResizedDetectionSource,
    TrainingOrder,
    cached,
    detection_evaluation_loader,
    detection_evaluation_transform,
    detection_training_loader,
    detection_training_transform,
    pad,
)
from regard.data.boxes.batches import EvaluationDetectionImages, collate_detection
from regard.errors import RegardError

OFF = DetectionAugmentation(flip=False, scales=(), crop=False, colour=0.0)
ALL = replace(OFF, flip=True, scales=(40, 52, 64), crop=True, colour=0.3)


def preprocessing(shortest: int = 64, longest: int = 100) -> DetectionPreprocessing:
    return DetectionPreprocessing(shortest, longest, 3, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


class Marked(DetectionSource):
    """Black images with white rectangles, which are the objects. Image i is (60 + i) × (90 - 5 i)."""

    def __init__(self, count: int = 7) -> None:
        self.sizes = [(60 + index, 90 - 5 * index) for index in range(count)]
        self.image_ids = range(10, 10 + count)
        boxes = torch.tensor([[10.0, 20.0, 30.0, 50.0], [35.0, 5.0, 55.0, 15.0], [0.0, 0.0, 60.0, 60.0]])
        crowd, labels = torch.tensor([False, False, True]), torch.tensor([1, 0, 2])
        area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
        self.objects = [Objects(boxes, labels, area, crowd) for _ in range(count)]
        self.reads: Counter[int] = Counter()

    def read(self, index: int) -> Tensor:
        self.reads[index] += 1
        if index == 5:
            raise BadImage("image 5", "is broken")
        image = torch.zeros(3, *self.sizes[index], dtype=torch.uint8)
        for left, top, right, bottom in self.objects[index].boxes_xyxy[:2].int().tolist():
            image[:, top:bottom, left:right] = 255
        return image

    def name(self, index: int) -> str:
        return f"image {index}"


def agree(image: Tensor, boxes_xyxy: Tensor) -> None:
    """The white of an image lies in its boxes, up to a pixel at their edges."""
    white = image.mean(0) > 0.5
    marked = torch.zeros_like(white)
    for left, top, right, bottom in boxes_xyxy.round().int().tolist():
        marked[max(top - 1, 0) : bottom + 1, max(left - 1, 0) : right + 1] = True
        inner = white[top + 1 : bottom - 1, left + 1 : right - 1]
        assert inner.float().mean() > 0.95 if inner.numel() else True
    assert not (white & ~marked).any()


def corners(image: Tensor, boxes_cxcywh: Tensor) -> Tensor:
    size = torch.tensor([image.shape[2], image.shape[1]]).repeat(2)
    centre, extent = boxes_cxcywh[:, :2], boxes_cxcywh[:, 2:]
    return torch.cat([centre - extent / 2, centre + extent / 2], 1) * size


@pytest.mark.parametrize(
    ("size", "shortest", "longest", "wanted"),
    [
        ((60, 90), 40, 100, (40, 60)),
        ((60, 90), 80, 100, (67, 100)),
        ((90, 60), 40, 100, (60, 40)),
        ((9, 9), 64, 64, (64, 64)),
    ],
)
def test_sizes_of_evaluation(size, shortest, longest, wanted):
    objects = Objects(
        torch.tensor([[0.0, 0.0, size[1], size[0]]]),
        *(torch.zeros(1).to(t) for t in (torch.int64, torch.float32, torch.bool)),
    )
    transform = detection_evaluation_transform(preprocessing(shortest, longest))
    image, moved = transform(torch.zeros(3, *size, dtype=torch.uint8), objects)
    assert image.shape[1:] == wanted
    assert_close(moved.boxes_xyxy[0], torch.tensor([0.0, 0.0, wanted[1], wanted[0]]))


def test_boxes_move_with_their_pixels():
    source = Marked()
    transform = detection_training_transform(preprocessing(), ALL)
    sizes, dropped, flipped = set(), 0, 0
    for seed in range(60):
        torch.manual_seed(seed)
        image, objects = transform(source.read(0), source.objects[0])
        sizes.add(tuple(image.shape[1:]))
        assert max(image.shape[1:]) <= 100
        own = ~objects.crowd
        dropped += int(own.sum()) < 2
        assert len(objects.labels) == len(objects.boxes_xyxy) == len(objects.areas)
        whole = objects.boxes_xyxy[own]
        scale = torch.tensor([image.shape[2], image.shape[1]]).repeat(2)
        assert (whole >= 0).all()
        assert (whole <= scale).all()
        bright = image / image.amax().clamp(min=1e-3)
        agree(bright, whole)
        both = dict(zip(objects.labels[own].tolist(), whole[:, 0].tolist(), strict=True))
        flipped += len(both) == 2 and both[1] > both[0]
    assert len(sizes) > 5
    assert 0 < dropped < 60
    assert 5 < flipped < 55


def test_what_is_off_changes_nothing():
    source = Marked()
    plain = detection_evaluation_transform(preprocessing())(source.read(1), source.objects[1])
    trained = detection_training_transform(preprocessing(), OFF)(source.read(1), source.objects[1])
    assert_close(trained[0], plain[0])
    assert_close(trained[1].boxes_xyxy, plain[1].boxes_xyxy, rtol=1e-4, atol=1e-2)


def test_batches_are_padded_and_masked():
    images, mask = pad([torch.ones(3, 5, 11), torch.ones(3, 7, 3)])
    assert images.shape == (2, 3, 7, 11)
    assert torch.equal(images[:, 0].bool(), mask)
    assert mask.sum((1, 2)).tolist() == [55, 21]


def loader(source: DetectionSource, seed: int = 3, workers: int = 0, order: TrainingOrder | None = None):
    transform = detection_training_transform(preprocessing(), ALL)
    order = order or TrainingOrder(len(source), 2, seed)
    return iter(detection_training_loader(source, transform, order, workers, "skip"))


def test_targets_are_in_the_unpadded_image_and_leave_crowds_out():
    images = EvaluationDetectionImages(Marked(), preprocessing(), "skip")
    batches = [collate_detection([images[index] for index in indices]) for indices in ((0, 1, 2), (3, 4, 5), (6,))]
    assert [len(batch) for batch in batches] == [3, 2, 1]
    assert [name for batch in batches for name in batch.names] == [f"image {index}" for index in (0, 1, 2, 3, 4, 6)]
    assert [reason for batch in batches for reason in batch.skipped] == ["image 5: is broken"]
    for batch in batches:
        for image, real, labels, boxes in zip(batch.images, batch.mask, batch.labels, batch.boxes_cxcywh, strict=True):
            height, width = int(real.any(1).sum()), int(real.any(0).sum())
            assert labels.tolist() == [1, 0]
            own = image[:, :height, :width]
            agree(own, corners(own, boxes))
    moved = batches[0].to("cpu")
    assert moved.stored_sizes == [(60, 90), (61, 85), (62, 80)]


@pytest.mark.parametrize("workers", [0, 2])
def test_an_evaluation_pads_nothing(workers):
    """Not even where an image has another size than its annotations state."""

    class Misstated(Marked):
        def read(self, index: int) -> Tensor:
            return super().read(index)[:, :50] if index == 2 else super().read(index)

    source = Misstated()
    source.sizes = [(60, 90)] * 5 + [(90, 60)] * 2
    loader = detection_evaluation_loader(source, preprocessing(), 4, workers, "skip")
    batches = [batch for several in loader for batch in several]
    assert all(batch.mask.all() and batch.images.shape[2:] == batch.mask.shape[1:] for batch in batches)
    assert [(batch.indices, batch.skipped) for batch in batches] == [
        ([0, 1, 3], []),
        ([2], []),
        ([4], []),
        ([], ["image 5: is broken"]),
        ([6], []),
    ]
    assert [batch.images.shape[2:] for batch in batches if len(batch)] == [(64, 96), (56, 100), (64, 96), (96, 64)]
    shards = [
        [
            batch.indices
            for several in detection_evaluation_loader(source, preprocessing(), 4, workers, "skip", rank, 2)
            for batch in several
        ]
        for rank in range(2)
    ]
    assert shards == [[[0, 4], [2], [6]], [[1, 3], []]]


def test_the_seed_alone_says_what_is_drawn_whatever_the_workers():
    plain, again, other = loader(Marked()), loader(Marked(), workers=2), loader(Marked(), seed=4)
    differs = False
    for _ in range(6):
        a, b, c = next(plain), next(again), next(other)
        assert a.names == b.names
        assert torch.equal(a.images, b.images)
        assert all(torch.equal(x, y) for x, y in zip(a.boxes_cxcywh, b.boxes_cxcywh, strict=True))
        differs |= a.names != c.names
    assert differs


def test_the_global_generator_is_left_alone():
    torch.manual_seed(11)
    wanted = torch.rand(3)
    torch.manual_seed(11)
    next(loader(Marked()))
    assert torch.equal(torch.rand(3), wanted)


def test_a_bad_image_stops():
    with pytest.raises(BadImage, match="image 5: is broken"):
        list(detection_evaluation_loader(Marked(), preprocessing(), 3, 0, "stop"))


def test_images_are_decoded_once():
    source = Marked(5)
    kept = cached(source, 3)
    assert kept is not source
    for _ in range(3):
        for index in range(5):
            assert torch.equal(kept.read(index), Marked(5).read(index))
    assert set(source.reads.values()) == {1}
    assert kept.name(2) == "image 2"


def test_images_that_do_not_fit_are_not_kept():
    source = Marked(5)
    source.sizes = [(200_000, 200_000)] * 5
    assert cached(source, 3) is source


def test_wide_and_tall_images_come_in_batches_of_their_own():
    draw = torch.Generator().manual_seed(0)
    sizes = [(60, 90) if wide else (90, 60) for wide in (torch.rand(101, generator=draw) < 0.4).tolist()]
    order = AspectOrder(sizes, 5, 7)
    steps = order.steps_per_epoch
    batches = [batch for batch, _ in zip(order, range(2 * steps), strict=False)]
    first, second = batches[:steps], batches[steps:]
    for epoch, part in enumerate((first, second)):
        seen = [index for batch in part for _, index in batch]
        assert len(seen) == len(set(seen)) == 5 * steps
        assert {number for batch in part for number, _ in batch} == {epoch}
        mixed = [len({sizes[index] for _, index in batch}) > 1 for batch in part]
        assert sum(mixed) <= 1
    assert first != second
    assert [batch for batch, _ in zip(AspectOrder(sizes, 5, 7), range(steps), strict=False)] == first
    shares = [AspectOrder(sizes, 6, 7, rank=rank, world_size=2) for rank in range(2)]
    whole = AspectOrder(sizes, 6, 7)
    for one, *parts in zip(whole, *shares, range(9), strict=False):
        assert one == parts[0] + parts[1]


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"shortest": 0}, "shortest is 0"),
        ({"shortest": 101}, "between 1 and longest, 100"),
        ({"mean": (0.5,)}, "one number for each of 3 channels"),
        ({"std": (1.0, 0.0, 1.0)}, "above 0"),
    ],
)
def test_preprocessing_out_of_range(values, told):
    good = {"shortest": 64, "longest": 100, "channels": 3, "mean": (0.0,) * 3, "std": (1.0,) * 3}
    with pytest.raises(RegardError, match=told):
        DetectionPreprocessing(**{**good, **values})


def test_preprocessing_reads_back():
    assert DetectionPreprocessing.from_dict(preprocessing().to_dict()) == preprocessing()
    with pytest.raises(RegardError, match="missing keys: std"):
        DetectionPreprocessing.from_dict({k: v for k, v in preprocessing().to_dict().items() if k != "std"})


def test_images_larger_than_what_is_looked_at_are_reduced():
    """A COCO file may state another size than an image has; the boxes then are in the image's own pixels."""

    class Misstated(Marked):
        def read(self, index: int) -> Tensor:
            image = super().read(index)
            return image[:, :61, :85] if index == 1 else image

    source = Misstated()
    source.sizes[1] = (122, 170)
    reduced = ResizedDetectionSource(source, 62, 75)
    assert reduced.sizes == [(50, 75), (54, 75), (58, 75), (62, 74), (62, 68), (62, 62), (66, 60)]
    for index in (0, 1, 2, 4, 6):
        image = reduced.read(index)
        assert image.shape[1:] == ((27, 38) if index == 1 else reduced.sizes[index])
        agree(image / 255, reduced.objects[index].boxes_xyxy[:2])
        assert reduced.name(index) == source.name(index)
    small = ResizedDetectionSource(source, 200, 300)
    assert small.sizes == source.sizes
    assert torch.equal(small.read(0), source.read(0))
    with pytest.raises(BadImage, match="image 5"):
        reduced.read(5)
