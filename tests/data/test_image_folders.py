"""`folder:PATH`: the layouts that are read, and what is said about the others."""

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngImageFile
from sklearn.datasets import load_sample_image

import regard.data.images.folder as folders
import regard.data.images.walk as walk
from regard.data import BadImage, Decoding, Preprocessing, open_images, read_image
from regard.errors import RegardError


def fill(folder: Path, number: int, start: int = 0) -> None:
    """`number` different crops of a photograph, of different sizes."""
    folder.mkdir(parents=True, exist_ok=True)
    photo = Image.fromarray(load_sample_image("china.jpg"))
    for i in range(start, start + number):
        photo.crop((10 * i, 20, 10 * i + 30 + i, 41)).save(folder / f"{i}.png")


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    """Two classes, six images each, no held-out part."""
    fill(tmp_path / "set" / "roof", 6)
    fill(tmp_path / "set" / "hill", 6, start=10)
    return tmp_path / "set"


@pytest.fixture
def parted(flat: Path) -> Path:
    """The same with a training and a held-out part."""
    for name in ("roof", "hill"):
        (flat / name).rename(flat.parent / name)
    for part in ("train", "val"):
        for name in ("roof", "hill"):
            shutil.copytree(flat.parent / name, flat / part / name)
    return flat


def opened(path: Path, **arguments):
    return open_images(f"folder:{path}", channels=3, **arguments)


def names(source) -> list[str]:
    return [source.name(index) for index in range(len(source))]


def test_a_flat_folder_is_split_by_seed(flat):
    images = opened(flat, split_seed=2)
    assert images.class_names == ("hill", "roof")
    assert not images.has_val
    assert (len(images.train), len(images.val)) == (9, 3)
    assert set(images.val.labels) == {0, 1}
    assert not set(names(images.train)) & set(names(images.val))
    assert names(images.train) == sorted(names(images.train))
    assert names(opened(flat, split_seed=2).val) == names(images.val)
    assert names(opened(flat, split_seed=3).val) != names(images.val)
    for index, name in enumerate(names(images.train)):
        assert Path(name).parent.name == images.class_names[images.train.labels[index]]
        with Image.open(name) as file:
            assert images.train.read(index).shape == (3, file.height, file.width)


@pytest.mark.parametrize("name", ["val", "valid", "validation", "test"])
def test_a_held_out_part_is_used(parted, name):
    (parted / "val").rename(parted / name)
    images = opened(parted)
    assert images.has_val
    assert (len(images.train), len(images.val)) == (12, 12)
    assert all(Path(path).parts[-3] == name for path in names(images.val))


def test_a_test_part_is_left_alone_beside_another(parted):
    shutil.copytree(parted / "val", parted / "test")
    assert all("/val/" in name for name in names(opened(parted).val))


def test_two_held_out_parts_are_an_error(parted):
    shutil.copytree(parted / "val", parted / "valid")
    with pytest.raises(RegardError, match="has val and valid; keep one"):
        opened(parted)


def test_train_alone_is_split(parted):
    shutil.rmtree(parted / "val")
    images = opened(parted)
    assert images.class_names == ("hill", "roof")
    assert (len(images.train), len(images.val)) == (9, 3)


def test_train_may_be_a_class(flat):
    (flat / "hill").rename(flat / "train")
    assert opened(flat).class_names == ("roof", "train")


def test_parts_without_classes_are_an_error(tmp_path):
    fill(tmp_path / "train", 3)
    fill(tmp_path / "val", 3)
    with pytest.raises(RegardError, match="images lie in train/ itself"):
        opened(tmp_path)


def test_the_held_out_part_may_lack_a_class_but_not_add_one(parted):
    shutil.rmtree(parted / "val" / "hill")
    assert set(opened(parted).val.labels) == {1}
    fill(parted / "val" / "Hill", 2)
    with pytest.raises(RegardError, match="only in val/: Hill; only in train/: hill"):
        opened(parted)


def test_files_are_found_at_any_depth_and_others_are_ignored(flat):
    fill(flat / "roof" / "more" / "deeper", 2, start=20)
    fill(flat / "roof" / ".thumbnails", 2, start=30)
    fill(flat / ".cache", 2, start=40)
    (flat / "roof" / "notes.txt").write_text("no image")
    (flat / "roof" / "._0.png").write_text("no image")
    (flat / "roof" / "0.png").rename(flat / "roof" / "0.PNG")
    images = opened(flat)
    assert len(images.train) + len(images.val) == 14
    assert images.class_names == ("hill", "roof")


def test_unreadable_files_stop_or_are_skipped(flat):
    (flat / "hill" / "x.jpg").write_text("no image")
    (flat / "roof" / "y.jpg").touch()
    with pytest.raises(BadImage, match=r"not an image.* \(and 1 more that cannot be read\)") as caught:
        opened(flat)
    assert caught.value.path == str(flat / "hill" / "x.jpg")
    images = opened(flat, on_bad_image="skip")
    assert len(images.train) + len(images.val) == 12
    assert [message.split(": ")[0] for message in images.train.skipped] == [
        str(flat / "hill" / "x.jpg"),
        str(flat / "roof" / "y.jpg"),
    ]


def test_a_missing_folder_a_file_and_a_wrong_layout_are_told_apart(tmp_path):
    with pytest.raises(RegardError, match="no such folder"):
        opened(tmp_path / "none")
    (tmp_path / "file.png").touch()
    with pytest.raises(RegardError, match="is a file"):
        opened(tmp_path / "file.png")
    with pytest.raises(RegardError, match="holds no folder and 1 images; expected PATH/CLASS"):
        opened(tmp_path)
    (tmp_path / "roof").mkdir()
    with pytest.raises(RegardError, match="holds one folder, 'roof', and 1 images"):
        opened(tmp_path)
    (tmp_path / "hill").mkdir()
    with pytest.raises(RegardError, match=r"no images in 2 folders; known endings: .*\.jpg"):
        opened(tmp_path)
    fill(tmp_path / "roof", 3)
    with pytest.raises(RegardError, match="a class without images that can be read: hill"):
        opened(tmp_path)


def test_a_held_out_part_without_images_is_an_error(parted):
    shutil.rmtree(parted / "val" / "hill")
    shutil.rmtree(parted / "val" / "roof")
    with pytest.raises(RegardError, match=r"no images in .*val"):
        opened(parted)


def test_images_are_decoded_once_if_they_fit(flat, monkeypatch):
    images = opened(flat)
    first = images.train.read(0)
    assert images.train.folder_bytes == sum(
        source.read(i).numel() for source in (images.train, images.val) for i in range(len(source))
    )
    Path(images.train.name(0)).unlink()
    assert images.train.read(0) is first
    copy = pickle.loads(pickle.dumps(images.train))  # what a spawned worker gets: paths, no pixels
    with pytest.raises(BadImage, match="No such file"):
        copy.read(0)
    monkeypatch.setattr(folders, "CACHE_BYTES", images.train.folder_bytes - 1)
    assert copy.read(2) is not copy.read(2)
    assert torch.equal(copy.read(2), copy.read(2))


def test_what_was_passed_over_is_said(flat, monkeypatch):
    monkeypatch.setattr(walk, "find_spec", lambda name: None)
    (flat / "hill" / "a.heic").touch()
    (flat / "roof" / "b.HEIC").touch()
    (flat / "roof" / "notes.txt").touch()
    fill(flat, 1, start=30)
    assert opened(flat).remarks == (
        "4 files were passed over: 2 .heic (pip install pillow-heif), 1 .png (beside the folders of the classes), "
        "1 .txt",
    )
    for folder in (flat / "hill", flat / "roof"):
        for file in folder.glob("*.png"):
            file.unlink()
    with pytest.raises(RegardError, match=r"no images in 2 folders; known endings: .*; 4 files were passed over: 2 \."):
        opened(flat)


def test_names_in_two_forms_of_unicode_are_one_class(parted):
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    (parted / "train" / "hill").rename(parted / "train" / composed)
    (parted / "val" / "hill").rename(parted / "val" / decomposed)
    images = opened(parted)
    assert images.class_names == (composed, "roof")
    assert (images.train.labels, images.val.labels) == ((0,) * 6 + (1,) * 6,) * 2
    fill(parted / "train" / decomposed, 2, start=20)
    images = opened(parted)
    assert images.train.labels == (0,) * 8 + (1,) * 6
    assert images.remarks == ("2 folders are one class, 'café': their names differ in Unicode's form alone",)


def test_classes_keep_the_order_of_their_folders(tmp_path):
    for name in ("cafe\u0301", "cafz"):  # in the form NFC it would be the other way round
        fill(tmp_path / name, 4, start=ord(name[-1]) % 50)
    assert opened(tmp_path).class_names == ("caf\u00e9", "cafz")


def test_names_that_differ_by_case_or_spaces_are_hinted_at(parted):
    (parted / "val" / "hill").rename(parted / "val" / "Hill ")
    with pytest.raises(RegardError, match=r"only in train/: hill; 'Hill ' and 'hill' differ only by case or spaces"):
        opened(parted)
    shutil.rmtree(parted / "val")
    shutil.copytree(parted / "train" / "hill", parted / "train" / "Hill")
    assert opened(parted).remarks == ("'Hill' and 'hill' differ only by case or spaces",)


def test_the_rubbish_of_archives_is_no_class(flat):
    for name in ("__MACOSX", ".ipynb_checkpoints"):
        fill(flat / name, 2, start=20)
        fill(flat / "hill" / name, 2, start=20)
    assert opened(flat).class_names == ("hill", "roof")
    assert len(opened(flat).train) + len(opened(flat).val) == 12


def measured(path: Path, **arguments):
    images = opened(path, for_evaluation=True, **arguments)
    assert len(images.train) == 0
    assert images.has_val
    return images


def test_what_can_be_measured_need_not_be_fit_for_training(flat):
    shutil.rmtree(flat / "hill")
    for file in sorted((flat / "roof").iterdir())[1:]:
        file.unlink()
    (flat / "empty").mkdir()
    with pytest.raises(RegardError):
        opened(flat)
    images = measured(flat)
    assert (images.class_names, images.val.labels) == (("roof",), (0,))


def test_of_a_set_the_held_out_part_is_measured(parted):
    assert names(measured(parted).val) == names(opened(parted).val)
    fill(parted / "val" / "tower", 1)  # that the model knows it is the model's affair
    assert measured(parted).class_names == ("hill", "roof", "tower")
    shutil.copytree(parted / "train", parted / "test")
    assert all("/val/" in name for name in names(measured(parted).val))
    shutil.rmtree(parted / "train")
    assert all("/val/" in name for name in names(measured(parted).val))
    shutil.rmtree(parted / "val")
    assert measured(parted).val.labels == (0,) * 6 + (1,) * 6
    assert all("/test/" in name for name in names(measured(parted).val))


def test_a_class_may_be_called_test(flat):
    (flat / "hill").rename(flat / "test")
    assert measured(flat).class_names == ("roof", "test")
    assert len(measured(flat).val) == 12


def test_without_any_image_nothing_can_be_measured(flat):
    for file in flat.glob("*/*.png"):
        file.write_text("no image")
    with pytest.raises(RegardError, match=r"not an image.*11 more.*; --set data.on_bad_image=skip leaves them out"):
        measured(flat)
    with pytest.raises(RegardError, match=r"no images that can be read \(12 cannot: .*not an image"):
        measured(flat, on_bad_image="skip")
    (flat / "loose").mkdir()
    with pytest.raises(RegardError, match="loose holds no folder"):
        measured(flat / "loose")


def test_with_every_image_left_out_there_is_one_line(parted):
    for part, said in (("val", "no images that can be read .* in .*val"), ("train", "no images that can be read")):
        for file in (parted / part).glob("*/*.png"):
            file.touch()
            file.write_text("no image")
        with pytest.raises(RegardError, match=said):
            opened(parted, on_bad_image="skip")


def test_the_depth_of_a_set_is_measured_once_and_told(tmp_path):
    for part, largest in (("train", 4095), ("val", 3000)):
        for number, name in enumerate(("hill", "roof")):
            folder = tmp_path / part / name
            folder.mkdir(parents=True)
            values = np.linspace(0, largest - number, 256).astype(np.uint16).reshape(16, 16)
            Image.fromarray(values).save(folder / "a.png")
    images = opened(tmp_path)
    assert images.decoding == Decoding(integer_white=4095)
    assert images.remarks == ("the images have more than 8 bits: the value 4095 becomes white",)
    assert len(images.train.read(0).unique()) == 256
    assert images.val.read(0).max() == round(3000 * 255 / 4095)
    # A run that was made on other data decodes as it did there; one of before, in 16 bits.
    assert len(opened(tmp_path, decoding=Decoding()).train.read(0).unique()) == 17
    preprocessing = Preprocessing((8, 8), 1, (0.5,), (0.5,), "bilinear", 1.0, images.decoding)
    assert Preprocessing.from_dict(preprocessing.to_dict()) == preprocessing
    assert "decoding" not in Preprocessing((8, 8), 1, (0.5,), (0.5,), "bilinear", 1.0).to_dict()


def test_sets_of_8_bits_are_not_decoded_to_be_opened(flat, monkeypatch):
    monkeypatch.setattr(PngImageFile, "load", lambda self: pytest.fail("decoded"))
    assert opened(flat).decoding == Decoding()


def test_the_limit_of_pixels_is_that_of_the_set(flat):
    with pytest.raises(BadImage, match=r"too large: 43 × 21 pixels; up to 0.0009 megapixels .*2 more"):
        opened(flat, max_megapixels=0.0009)
    images = opened(flat, max_megapixels=0.0009, on_bad_image="skip")
    assert len(images.train) + len(images.val) == 9
    assert images.decoding == Decoding(0.0009)


def test_a_folder_that_cannot_be_read_is_one_line(flat, monkeypatch):
    real = Path.iterdir

    def refuse(self: Path):
        if self.name == flat.name:
            raise PermissionError(13, "Permission denied")
        return real(self)

    monkeypatch.setattr(Path, "iterdir", refuse)
    for for_evaluation in (False, True):
        with pytest.raises(RegardError, match=rf"^{flat}: the folder cannot be read: Permission denied$"):
            opened(flat, for_evaluation=for_evaluation)


def test_decoded_images_lie_side_by_side_in_memory(flat):
    # One by one among larger tensors they would keep the heap from closing: 600 kB for each of them were lost.
    train = opened(flat).train
    kept = [train.read(number) for number in range(len(train))]
    assert len({image.untyped_storage().data_ptr() for image in kept}) == 1
    for number, image in enumerate(kept):
        assert torch.equal(image, read_image(train.paths[number], train.channels, train.decoding))
