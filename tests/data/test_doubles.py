"""Files with the same bytes: found by reading little, and kept on one side of a split that is drawn by seed."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import regard.data.images.doubles as module
from regard.data import open_detection, open_images
from regard.data.boxes.sources import split_detection
from regard.data.images.doubles import doubles, kept_together, shared
from regard.data.images.sources import split_indices


def write(folder: Path, *contents: bytes) -> list[Path]:
    files = [folder / f"{number}.bin" for number in range(len(contents))]
    for file, content in zip(files, contents, strict=True):
        file.write_bytes(content)
    return files


def test_doubles_are_files_of_the_same_bytes(tmp_path):
    long = bytes(range(256)) * 100
    files = write(tmp_path, b"one", b"two", b"one", long, long[:-1] + b"x", long, b"", b"", b"one")
    assert doubles(files) == [[0, 2, 8], [3, 5]]  # 4 differs at its end alone; empty files are no images
    assert doubles([*files, tmp_path / "gone"]) == [[0, 2, 8], [3, 5]]
    assert shared(files[:4], files[4:]) == [(1, 3), (4, 0)]
    assert shared(files[:2], files[3:8]) == []


def test_files_are_read_only_where_their_sizes_collide(tmp_path, monkeypatch):
    files = write(tmp_path, *(b"x" * size for size in range(1, 20)), b"y" * 20, b"z" * 20)
    read = []
    for name in ("_probe", "_digest"):
        real = getattr(module, name)
        monkeypatch.setattr(module, name, lambda file, real=real, name=name: (read.append((name, file)), real(file))[1])
    assert doubles(files) == []
    assert read == [("_probe", files[-2]), ("_probe", files[-1])]


def test_a_split_without_doubles_is_that_of_before():
    labels = [0, 1, 2] * 10
    assert split_indices(labels, ["a", "b", "c"], val_fraction=0.25, split_seed=7, where="x")[1] == CLASSES_OF_SEED_7
    assert split_detection(20, val_fraction=0.25, split_seed=7, where="x")[1] == BOXES_OF_SEED_7


CLASSES_OF_SEED_7 = [9, 11, 17, 18, 19, 22, 24, 25]
BOXES_OF_SEED_7 = [7, 9, 12, 15, 17]


@given(st.data())
def test_a_split_keeps_groups_together_and_loses_no_class(data):
    number = data.draw(st.integers(2, 12))
    group_of = data.draw(st.lists(st.integers(0, 5), min_size=number, max_size=number))
    labels = data.draw(st.lists(st.integers(0, 2), min_size=number, max_size=number))
    val = sorted(data.draw(st.sets(st.integers(0, number - 1), min_size=1, max_size=number - 1)))
    train = [index for index in range(number) if index not in val]
    groups = [own for g in range(6) if len(own := [i for i in range(number) if group_of[i] == g]) > 1]
    for given_labels in (None, labels):
        kept, held = kept_together(train, val, groups, given_labels)
        assert sorted([*kept, *held]) == list(range(number))
        assert kept
        assert held
        if given_labels is not None:
            assert {labels[i] for i in train} <= {labels[i] for i in kept}
        divided = [group for group in groups if set(group) & set(kept) and set(group) & set(held)]
        if divided:  # only where nothing else can be done
            assert (kept, held) == (train, val)
        if not any(set(group) & set(train) and set(group) & set(val) for group in groups):
            assert (kept, held) == (train, val)


def draw(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 256, (6, 6, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(path)


def test_a_folder_with_doubles_has_them_on_one_side(tmp_path):
    for number in range(20):
        draw(tmp_path / "ab"[number % 2] / f"{number:02}.png", number)
    before = {seed: open_images(f"folder:{tmp_path}", channels=3, split_seed=seed) for seed in range(20)}
    for number in range(4):
        draw(tmp_path / "ab"[number % 2] / f"copy-{number}.png", number)
    for seed in before:
        images = open_images(f"folder:{tmp_path}", channels=3, split_seed=seed)
        assert shared(images.train.paths, images.val.paths) == []
        assert len(images.train) + len(images.val) == 24
        assert set(images.train.labels) == set(images.val.labels) == {0, 1}


def test_boxes_with_doubles_have_them_on_one_side(tmp_path):
    for number in range(12):
        draw(tmp_path / "images" / f"{number:02}.png", number % 6)
        (tmp_path / "labels").mkdir(exist_ok=True)
        (tmp_path / "labels" / f"{number:02}.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (tmp_path / "data.yaml").write_text("names: [thing]\ntrain: images\n")
    for seed in range(10):
        data = open_detection(f"yolo:{tmp_path}", split_seed=seed)
        held_out = {data.val.name(index)[-6:-4] for index in range(len(data.val))}
        assert {int(name) % 6 for name in held_out} & {
            int(data.train.name(index)[-6:-4]) % 6 for index in range(len(data.train))
        } == set()


@pytest.mark.parametrize("seed", range(3))
def test_copies_of_one_file_are_split_all_the_same(tmp_path, seed):
    for number in range(6):
        draw(tmp_path / "ab"[number % 2] / f"{number}.png", 0)
    images = open_images(f"folder:{tmp_path}", channels=3, split_seed=seed)
    assert (len(images.train), len(images.val)) == (4, 2)
