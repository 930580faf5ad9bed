"""What an image is known by: its file's bytes, whatever it is called, or its pixels."""

import hashlib
import shutil

import pytest
import torch
from PIL import Image

from regard.data import BadImage, InMemoryImages, Joined, Selected
from regard.data.boxes.cache import CachedDetectionSource, ResizedDetectionSource
from regard.data.boxes.sources import (
    FileDetectionSource,
    JoinedDetectionSource,
    Objects,
    SelectedDetectionSource,
)
from regard.data.images.folder import FolderImages

NOTHING = Objects(torch.zeros(0, 4), torch.zeros(0).long(), torch.zeros(0), torch.zeros(0).bool())


@pytest.fixture
def files(tmp_path):
    paths = []
    for number in range(3):
        paths.append(tmp_path / f"{number}.png")
        Image.new("RGB", (6, 4), (number, 0, 0)).save(paths[-1])
    return paths


def of_file(path):
    return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()


def test_images_of_a_folder(files, tmp_path):
    copy = tmp_path / "other name.png"
    shutil.copy(files[0], copy)
    source = FolderImages((*files, copy), (0, 1, 0, 1), 3, 0)
    assert [source.digest(index) for index in range(4)] == [of_file(path) for path in (*files, copy)]
    assert source.digest(0) == source.digest(3) != source.digest(1)
    assert Selected(source, [2, 0]).digest(0) == of_file(files[2])
    assert Joined([source, Selected(source, [2])]).digest(4) == of_file(files[2])
    Image.new("RGB", (6, 4), (9, 9, 9)).save(files[0])
    assert source.digest(0) == of_file(files[0]) != source.digest(3)
    files[1].unlink()
    with pytest.raises(BadImage, match=r"1\.png: No such file"):
        source.digest(1)


def test_images_with_boxes(files):
    source = FileDetectionSource(files, [(4, 6)] * 3, [NOTHING] * 3, 3)
    for wrapped in (
        source,
        SelectedDetectionSource(source, [0, 1, 2]),
        JoinedDetectionSource([source]),
        CachedDetectionSource(source, 3, shared=False),
        ResizedDetectionSource(source, 2, 3),
    ):
        assert [wrapped.digest(index) for index in range(3)] == [of_file(path) for path in files]


def test_images_without_files_by_their_pixels():
    images = torch.zeros(3, 1, 2, 3, dtype=torch.uint8)
    images[1, 0, 0, 1] = 1
    source = InMemoryImages(images, (0, 0, 0), "made")
    assert source.digest(0) == source.digest(2) != source.digest(1)
    assert len(source.digest(0)) == 32
    turned = InMemoryImages(images.transpose(2, 3), (0, 0, 0), "turned")
    assert turned.digest(0) != source.digest(0), "another shape"
