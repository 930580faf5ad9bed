"""Digit scenes: the same on every machine, boxes on ink, digits apart between the parts, and COCO's format on disk."""

import hashlib

import pytest
import torch
from torch.testing import assert_close

from regard.data import make_folder, open_detection
from regard.data.boxes.digit_scenes import COUNTS, MOST, SIDE, open_digit_scenes
from regard.errors import RegardError


@pytest.fixture(scope="module")
def scenes():
    return open_digit_scenes()


def test_what_there_is(scenes):
    assert (len(scenes.train), len(scenes.val)) == (COUNTS["train"], COUNTS["val"])
    assert scenes.class_names == tuple("0123456789")
    assert not scenes.can_flip
    counts = [len(objects) for objects in scenes.train.objects]
    assert set(counts) == set(range(1, MOST + 1))
    assert {label for objects in scenes.val.objects for label in objects.labels.tolist()} == set(range(10))
    assert len({*scenes.train.image_ids, *scenes.val.image_ids}) == 1800


def test_scenes_are_the_same_each_time(scenes):
    again = open_digit_scenes()
    for index in (0, 17, 199):
        assert torch.equal(again.val.read(index), scenes.val.read(index))
        assert torch.equal(again.val.objects[index].boxes_xyxy, scenes.val.objects[index].boxes_xyxy)
    pixels = b"".join(scenes.train.read(index).numpy().tobytes() for index in range(3))
    assert len(hashlib.sha256(pixels).hexdigest()) == 64
    assert not torch.equal(scenes.train.read(0), scenes.val.read(0))


def test_boxes_lie_in_the_image_and_hold_what_stands_out(scenes):
    inside, outside = [], []
    for index in range(40):
        image, objects = scenes.train.read(index).float() / 255, scenes.train.objects[index]
        assert (objects.boxes_xyxy >= 0).all()
        assert (objects.boxes_xyxy <= SIDE).all()
        assert (objects.boxes_xyxy[:, 2:] > objects.boxes_xyxy[:, :2]).all()
        # How far a pixel's colour is from the scene's median.
        far = (image - image.flatten(1).median(1).values[:, None, None]).abs().sum(0)
        marked = torch.zeros(SIDE, SIDE, dtype=torch.bool)
        for left, top, right, bottom in objects.boxes_xyxy.int().tolist():
            marked[top:bottom, left:right] = True
        inside.append(far[marked].mean())
        outside.append(far[~marked].mean())
    assert torch.stack(inside).mean() > 2 * torch.stack(outside).mean()


def test_no_handwritten_digit_is_in_both_parts(scenes):
    marks = [{digit.numpy().tobytes() for digit in part.digits} for part in (scenes.train, scenes.val)]
    assert not marks[0] & marks[1]


def test_grey_scenes():
    assert open_detection("digit-scenes", channels=1).train.read(3).shape == (1, SIDE, SIDE)


@pytest.mark.slow
def test_written_scenes_read_back(scenes, tmp_path):
    count, address = make_folder("digit-scenes", tmp_path / "made")
    assert (count, address) == (1800, f"coco:{tmp_path / 'made'}")
    data = open_detection(address)
    assert data.has_val
    assert data.class_names == scenes.class_names
    for part in ("train", "val"):
        found, wanted = getattr(data, part), getattr(scenes, part)
        assert len(found) == len(wanted)
        assert list(found.image_ids) == list(wanted.image_ids)
        for index in range(0, len(wanted), 53):
            assert torch.equal(found.read(index), wanted.read(index))
            assert_close(found.objects[index].boxes_xyxy, wanted.objects[index].boxes_xyxy)
            assert torch.equal(found.objects[index].labels, wanted.objects[index].labels)


def test_what_cannot_be_made(tmp_path):
    with pytest.raises(RegardError, match="leave out --size"):
        make_folder("digit-scenes", tmp_path / "a", 32)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "file").touch()
    with pytest.raises(RegardError, match="exists already"):
        make_folder("digit-scenes", tmp_path / "b")
    assert not (tmp_path / "a").exists()
