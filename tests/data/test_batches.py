"""Order, augmentation and batches are functions of (seed, epoch, sample), whatever the processes and workers."""

import itertools
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from regard.data import (
    Augmentation,
    BadImage,
    Batch,
    EvaluationImages,
    ImageSource,
    Preprocessing,
    TrainingImages,
    TrainingOrder,
    collate,
    evaluation_loader,
    evaluation_transform,
    open_images,
    seed_for,
    training_loader,
    training_transform,
)
from regard.data.images.folder import FolderImages
from regard.errors import RegardError

PRE = Preprocessing((8, 8), 1, (0.3,), (0.4,), "bilinear", 1.0)
SHIFTED = Augmentation(
    shift=1, flip=False, crop_scale=1.0, rand_augment=0, rand_augment_magnitude=0, erase=0.5, rotation=0.0, colour=0.0
)


@pytest.fixture(scope="module")
def digits() -> ImageSource:
    return open_images("digits", channels=1).val


@pytest.fixture
def spoiled(tmp_path: Path) -> FolderImages:
    """Five images, of which numbers 1 and 3 have lost their end."""
    paths = []
    noise = np.random.default_rng(0).integers(0, 256, (5, 30, 30), np.uint8)
    for i in range(5):
        path = tmp_path / f"{i}.png"
        Image.fromarray(noise[i]).save(path)
        if i in (1, 3):
            path.write_bytes(path.read_bytes()[:500])
        paths.append(path)
    return FolderImages(tuple(paths), (0, 1, 2, 3, 4), 1, 0)


def take(order, number: int) -> list[list[tuple[int, int]]]:
    return list(itertools.islice(order, number))


def test_seeds_differ_by_number_order_and_count():
    seeds = [seed_for(1, 2), seed_for(2, 1), seed_for(1, 2, 0), seed_for(12), seed_for(0, 1, 2), seed_for(2**40, 5)]
    assert len(set(seeds)) == 6
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert seed_for(1, 2) == 6288156900839449082  # on every machine, in every version: a run that resumes needs it


def test_an_epoch_is_a_permutation_that_differs_from_the_next():
    order = TrainingOrder(17, 5, seed=3)
    assert order.steps_per_epoch == 3
    batches = take(order, 6)
    assert [[epoch for epoch, _ in batch] for batch in batches] == [[0] * 5] * 3 + [[1] * 5] * 3
    first, second = ([index for batch in part for _, index in batch] for part in (batches[:3], batches[3:]))
    assert len(set(first)) == 15
    assert set(first) <= set(range(17))
    assert first != second
    assert take(TrainingOrder(17, 5, seed=4), 3) != batches[:3]


@pytest.mark.parametrize("start_step", [1, 3, 4, 100])
def test_starting_later_is_skipping(start_step):
    fresh = take(TrainingOrder(17, 5, seed=3), start_step + 4)[start_step:]
    assert take(TrainingOrder(17, 5, seed=3, start_step=start_step), 4) == fresh
    parts = take(TrainingOrder(23, 12, seed=3, accumulate=3), 3 * (start_step + 2))[3 * start_step :]
    assert take(TrainingOrder(23, 12, seed=3, accumulate=3, start_step=start_step), 6) == parts


@pytest.mark.parametrize(("world_size", "accumulate"), [(1, 2), (2, 1), (3, 2), (2, 3)])
def test_processes_and_accumulation_share_the_batch_of_one_process(world_size, accumulate):
    whole = take(TrainingOrder(31, 12, seed=0), 5)
    orders = [
        TrainingOrder(31, 12, seed=0, rank=rank, world_size=world_size, accumulate=accumulate)
        for rank in range(world_size)
    ]
    ranks = [take(order, 5 * accumulate) for order in orders]
    assert {order.steps_per_epoch for order in orders} == {2}
    assert {len(part) for rank in ranks for part in rank} == {12 // world_size // accumulate}
    for step in range(5):
        steps = range(step * accumulate, (step + 1) * accumulate)
        assert [key for part in steps for rank in ranks for key in rank[part]] == whole[step]


@pytest.mark.parametrize(
    ("num_samples", "parts", "size"), [(7, 1, 7), (7, 2, 8), (6, 2, 6), (3, 4, 4), (1, 4, 4), (8, 4, 8)]
)
def test_a_set_smaller_than_a_batch_is_one_batch_repeated_evenly(num_samples, parts, size):
    orders = [TrainingOrder(num_samples, 8, seed=1, rank=rank, world_size=parts) for rank in range(parts)]
    ranks = [take(order, 3) for order in orders]
    for step in range(3):
        keys = [key for rank in ranks for key in rank[step]]
        assert {epoch for epoch, _ in keys} == {step}
        assert len(keys) == size
        assert len({len(rank[step]) for rank in ranks}) == 1
        counts = [[index for _, index in keys].count(index) for index in range(num_samples)]
        assert min(counts) >= 1
        assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            {"batch_size": 10, "world_size": 3, "accumulate": 2},
            "10 cannot be cut into 6 equal micro-batches .3 processes × 2",
        ),
        ({"num_samples": 0}, "num_samples is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"start_step": -1}, "start_step is -1"),
        ({"accumulate": 0}, "accumulate is 0"),
        ({"rank": 2, "world_size": 2}, "rank is 2; it must be between 0 and 1"),
    ],
)
def test_impossible_orders_are_named(arguments, said):
    with pytest.raises(RegardError, match=said):
        TrainingOrder(**{"num_samples": 20, "batch_size": 6, "seed": 0, **arguments})


def test_augmentation_depends_on_seed_epoch_and_sample_alone(digits):
    def image(seed, epoch, index):
        return TrainingImages(digits, training_transform(PRE, SHIFTED), seed, "stop")[epoch, index].image

    torch.manual_seed(1)
    first = torch.stack([image(0, epoch, 4) for epoch in range(20)])
    torch.manual_seed(2)
    assert torch.equal(first, torch.stack([image(0, epoch, 4) for epoch in range(20)]))
    assert not torch.equal(first, torch.stack([image(1, epoch, 4) for epoch in range(20)]))
    assert len(first.unique(dim=0)) > 5


@pytest.mark.parametrize("num_workers", [0, 1])
def test_loading_leaves_the_global_generator_alone(digits, num_workers):
    order = TrainingOrder(len(digits), 50, seed=0)
    before = torch.random.get_rng_state()
    loader = training_loader(digits, training_transform(PRE, SHIFTED), order, num_workers, "stop")
    next(iter(loader))
    next(iter(evaluation_loader(digits, evaluation_transform(PRE), 10, 0, "stop")))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_workers_and_resuming_change_nothing(digits):
    def batches(num_workers, start_step=0):
        order = TrainingOrder(len(digits), 200, seed=7, start_step=start_step)
        loader = training_loader(digits, training_transform(PRE, SHIFTED), order, num_workers, "stop")
        return list(itertools.islice(loader, 5 - start_step))

    alone = batches(0)
    assert alone[0].images.shape == (200, 1, 8, 8)
    assert not torch.equal(alone[0].images, alone[2].images)
    for others in (batches(1), batches(0, start_step=3)):
        for one, other in zip(alone[-len(others) :], others, strict=True):
            assert torch.equal(one.images, other.images)
            assert torch.equal(one.labels, other.labels)
            assert one.names == other.names


def test_evaluation_sees_each_image_once_in_order(digits):
    transform = evaluation_transform(PRE)
    batches = list(evaluation_loader(digits, transform, 100, 0, "stop"))
    assert [len(batch) for batch in batches] == [100, 100, 100, 100, 50]
    assert [name for batch in batches for name in batch.names] == [digits.name(i) for i in range(450)]
    assert torch.cat([batch.labels for batch in batches]).tolist() == list(digits.labels)
    torch.testing.assert_close(batches[0].images[3], transform(digits.read(3)))
    ranks = [
        [name for batch in evaluation_loader(digits, transform, 64, 0, "stop", rank, 4) for name in batch.names]
        for rank in range(4)
    ]
    assert sorted(itertools.chain(*ranks)) == sorted(digits.name(i) for i in range(450))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_bad_image_stops_with_its_message_intact(spoiled, num_workers):
    with pytest.raises(BadImage) as caught:
        list(evaluation_loader(spoiled, evaluation_transform(PRE), 5, num_workers, "stop"))
    assert caught.value.path == spoiled.name(1)
    assert "truncated" in caught.value.reason
    assert str(caught.value) == f"{spoiled.name(1)}: {caught.value.reason}"


def test_bad_images_are_skipped_and_named(spoiled):
    batch, rest, last = evaluation_loader(spoiled, evaluation_transform(PRE), 2, 0, "skip")
    assert batch.names == [spoiled.name(0)]
    assert batch.labels.tolist() == [0]
    assert batch.images.shape == (1, 1, 8, 8)
    assert [message.split(": ")[0] for message in batch.skipped + rest.skipped] == [spoiled.name(1), spoiled.name(3)]
    assert last.skipped == []
    order = TrainingOrder(5, 5, seed=0)
    trained = next(iter(training_loader(spoiled, training_transform(PRE, SHIFTED), order, 0, "skip")))
    assert sorted(trained.labels.tolist()) == [0, 2, 4]
    assert len(trained.skipped) == 2


def test_a_batch_may_come_out_empty(spoiled):
    images = EvaluationImages(spoiled, evaluation_transform(PRE), "skip")
    batch = collate([images[1], images[3]])
    assert len(batch) == len(batch.images) == len(batch.labels) == 0
    assert batch.labels.dtype == torch.int64
    assert len(batch.skipped) == 2
    assert len(batch.to("cpu")) == 0


def test_a_batch_moves_with_its_names():
    batch = Batch(torch.zeros(2, 1, 3, 3), torch.tensor([1, 0]), ["a", "b"], ["c: truncated"]).to("meta")
    assert batch.images.device.type == batch.labels.device.type == "meta"
    assert (batch.names, batch.skipped) == (["a", "b"], ["c: truncated"])


def test_everything_a_spawned_worker_needs_can_be_pickled(digits, spoiled):
    for source in (digits, spoiled):
        images = TrainingImages(source, training_transform(PRE, SHIFTED), 0, "stop")
        copy, _ = pickle.loads(pickle.dumps((images, collate)))
        assert torch.equal(copy[2, 0].image, images[2, 0].image)


def test_a_training_batch_in_which_nothing_can_be_read_takes_the_next_image(spoiled):
    order = TrainingOrder(5, 1, seed=0)
    batches = list(itertools.islice(training_loader(spoiled, training_transform(PRE, SHIFTED), order, 0, "skip"), 5))
    for (_, index), batch in zip([keys[0] for keys in take(order, 5)], batches, strict=True):
        assert batch.labels.tolist() == [index + 1 if index in (1, 3) else index]
        assert len(batch.skipped) == (index in (1, 3))
    nothing, order = FolderImages(spoiled.paths[1:2] * 3, (0, 1, 2), 1, 0), TrainingOrder(3, 1, seed=0)
    (batch,) = itertools.islice(training_loader(nothing, training_transform(PRE, SHIFTED), order, 0, "skip"), 1)
    assert (len(batch), len(batch.skipped)) == (0, 1)
