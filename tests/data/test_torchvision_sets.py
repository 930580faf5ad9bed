"""`torchvision:NAME`: a real set read from disk, and what is said where there is no network."""

import struct
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision.datasets
from PIL import Image
from sklearn.datasets import load_digits

from regard.data import BadImage, open_images
from regard.data.images.torchvision import SETS, _class_names, _labels
from regard.data.open import default_root
from regard.errors import RegardError


def write_idx(path: Path, values: np.ndarray) -> None:
    """The format of MNIST: two zeros, the type (8: uint8), the number of axes, their lengths, the values."""
    header = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
    path.write_bytes(header + values.astype(np.uint8).tobytes())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """MNIST's files, with 40 + 20 of scikit-learn's digits drawn at 28 × 28 pixels."""
    digits = load_digits()
    pixels = np.stack(
        [np.asarray(Image.fromarray((image * 15).astype(np.uint8)).resize((28, 28))) for image in digits.images[:60]]
    )
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for prefix, part in (("train", slice(40)), ("t10k", slice(40, 60))):
        write_idx(folder / f"{prefix}-images-idx3-ubyte", pixels[part])
        write_idx(folder / f"{prefix}-labels-idx1-ubyte", digits.target[:60][part])
    return tmp_path


def test_mnist_from_its_files(root):
    images = open_images("torchvision:MNIST", channels=1, root=root)
    assert images.has_val
    assert (len(images.train), len(images.val)) == (40, 20)
    assert images.train.labels == tuple(load_digits().target[:40].tolist())
    assert images.class_names[3] == "3 - three"
    expected = Image.fromarray((load_digits().images[47] * 15).astype(np.uint8)).resize((28, 28))
    assert torch.equal(images.val.read(7), torch.from_numpy(np.array(expected))[None])
    assert images.val.name(7) == "MNIST/val[7]"
    assert open_images("torchvision:MNIST", channels=3, root=root).train.read(0).shape == (3, 28, 28)


def test_a_set_without_a_held_out_part_is_split(tmp_path):
    for name in ("Forest", "River"):
        folder = tmp_path / "eurosat" / "2750" / name
        folder.mkdir(parents=True)
        for i in range(4):
            Image.new("RGB", (64, 64), (i, 2, 3)).save(folder / f"{name}_{i}.jpg")
    images = open_images("torchvision:EuroSAT", channels=3, root=tmp_path)
    assert images.class_names == ("Forest", "River")
    assert not images.has_val
    assert (len(images.train), len(images.val)) == (6, 2)


def test_files_of_a_set_are_opened_by_our_own_rules(tmp_path):
    for name in ("Forest", "River"):
        (tmp_path / "eurosat" / "2750" / name).mkdir(parents=True)
        for i in range(4):
            Image.new("RGB", (64, 64)).save(tmp_path / "eurosat" / "2750" / name / f"{name}_{i}.jpg")
    images = open_images("torchvision:EuroSAT", channels=3, root=tmp_path)
    for file in tmp_path.rglob("*.jpg"):
        file.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n")
    with pytest.raises(BadImage, match=r"EuroSAT\[.\]: .*not an image, or of a format that is not read"):
        images.train.read(0)
    for file in tmp_path.rglob("*.jpg"):
        Image.new("RGB", (64, 64)).save(file)
    small = open_images("torchvision:EuroSAT", channels=3, root=tmp_path, max_megapixels=0.004)
    with pytest.raises(BadImage, match=r"64 × 64 pixels; up to 0\.004 megapixels are read"):
        small.train.read(0)


@pytest.mark.parametrize(
    "raised",
    [
        URLError("Name or service not known"),
        RuntimeError("Error downloading a.gz:\nTried https://somewhere, got:\nName or service not known\n"),
        TimeoutError("Name or service not known"),
    ],
)
def test_no_network_is_one_line_that_says_what_to_do(tmp_path, monkeypatch, raised):
    def download(self):
        raise raised

    monkeypatch.setattr(torchvision.datasets.CIFAR10, "download", download)
    with pytest.raises(RegardError) as caught:
        open_images("torchvision:CIFAR10", channels=3, root=tmp_path / "new")
    message = str(caught.value)
    assert "\n" not in message
    for part in ("torchvision:CIFAR10", str(tmp_path / "new"), "Name or service not known", "folder:PATH"):
        assert part in message


def test_an_unknown_set_offers_the_nearest(tmp_path):
    with pytest.raises(RegardError, match=r"did you mean 'CIFAR10'\? Known: CIFAR10, CIFAR100"):
        open_images("torchvision:CIFAR-10", channels=3, root=tmp_path)


@pytest.mark.parametrize("name", SETS)
def test_every_set_is_one_of_torchvision_and_asked_for_as_it_wants(name, tmp_path):
    for part in SETS[name]:
        if part is not None:  # not found is what a set says that understood its arguments
            with pytest.raises((RuntimeError, OSError)):
                getattr(torchvision.datasets, name)(tmp_path, download=False, **part)


class Bare:
    """A set that tells its labels in one of several ways."""

    def __init__(self, **attributes):
        self.__dict__.update(attributes)

    def __len__(self):
        return 3

    def __getitem__(self, index):
        return None, [2, 0, 1][index]


@pytest.mark.parametrize(
    "attributes",
    [
        {"targets": torch.tensor([2, 0, 1])},
        {"labels": np.array([2, 0, 1])},
        {"_labels": [2, 0, 1]},
        {"_samples": [("a", 2), ("b", 0), ("c", 1)]},
        {},
    ],
)
def test_labels_are_found_wherever_a_set_keeps_them(attributes):
    assert _labels(Bare(**attributes)) == (2, 0, 1)


def test_class_names_are_taken_from_the_set_or_are_numbers():
    assert _class_names(Bare(classes=[("tench", "Tinca tinca"), "dog"]), (0, 1)) == ("tench", "dog")
    assert _class_names(Bare(), (2, 0, 1)) == ("0", "1", "2")


def test_the_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_root() == tmp_path / "regard" / "torchvision"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_root() == Path.home() / ".cache" / "regard" / "torchvision"
