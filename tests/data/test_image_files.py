"""Decoding: every mode, depth, orientation and kind of damage becomes the right pixels or one clear error."""

import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_image

from regard.data import BadImage, check_header, from_pil, read_image
from regard.data.images.files import has_deep_pixels
from regard.errors import RegardError


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    return load_sample_image("flower.jpg")[100:131, 200:247]  # 31 × 47


def test_rgb_is_read_channels_first_and_grey_by_luma(tmp_path, photo):
    Image.fromarray(photo).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png", 3)
    assert image.dtype == torch.uint8
    assert image.is_contiguous()
    assert np.array_equal(image.permute(1, 2, 0).numpy(), photo)
    luma = torch.from_numpy(photo.astype(np.float64) @ [0.299, 0.587, 0.114])
    torch.testing.assert_close(read_image(tmp_path / "a.png", 1)[0].double(), luma, atol=1.0, rtol=0)


def test_grey_is_repeated(tmp_path, photo):
    Image.fromarray(photo[..., 0]).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png", 3)
    assert all(np.array_equal(channel.numpy(), photo[..., 0]) for channel in image)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "mode", ["1", "L", "P", "LA", "La", "PA", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "LAB", "RGB"]
)
def test_every_mode_of_8_bits_gives_the_same_shape(mode, channels):
    image = from_pil(Image.new(mode, (7, 5)), channels)
    assert image.shape == (channels, 5, 7)
    assert image.dtype == torch.uint8


@pytest.mark.parametrize("mode", ["I;16", "I;16L", "I;16B", "I;16N", "I"])
def test_16_bits_are_scaled_not_clipped(mode):
    image = Image.new(mode, (4, 1))
    for column, value in enumerate([0, 257, 257 * 128, 65535]):
        image.putpixel((column, 0), value)
    assert from_pil(image, 1).flatten().tolist() == [0, 1, 128, 255]


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_16_bit_files(tmp_path, ending):
    values = np.array([[0, 300, 257 * 17], [257 * 99, 60000, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / f"a.{ending}")
    assert has_deep_pixels(tmp_path / f"a.{ending}")
    assert read_image(tmp_path / f"a.{ending}", 1)[0].tolist() == [[0, 1, 17], [99, 233, 255]]


def test_floats_are_taken_in_0_to_1_or_0_to_255():
    assert from_pil(Image.fromarray(np.array([[0, 0.2, 1]], np.float32)), 1).flatten().tolist() == [0, 51, 255]
    assert from_pil(Image.fromarray(np.array([[0, 51.4, 255]], np.float32)), 1).flatten().tolist() == [0, 51, 255]


@pytest.mark.parametrize("values", [[0.0, float("nan")], [0.0, 256.0], [-1.0, 1.0]])
def test_floats_of_an_unknown_range_are_an_error(tmp_path, values):
    Image.fromarray(np.array([values], np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(BadImage, match="expected 0 to"):
        read_image(tmp_path / "a.tif", 1)


def test_transparency_is_laid_over_white(tmp_path):
    image = Image.new("RGBA", (3, 1))
    for column, alpha in enumerate([0, 128, 255]):
        image.putpixel((column, 0), (10, 0, 0, alpha))
    image.save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png", 3)[:, 0].T.tolist() == [[255, 255, 255], [132, 127, 127], [10, 0, 0]]


@pytest.mark.parametrize("transparency", [0, bytes([0, 255])])
def test_a_palette_with_transparency_is_laid_over_white(tmp_path, transparency):
    image = Image.new("P", (2, 1))
    image.putpalette([200, 0, 0, 0, 0, 200])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "a.png", transparency=transparency)
    assert read_image(tmp_path / "a.png", 3)[:, 0].T.tolist() == [[255, 255, 255], [0, 0, 200]]


@pytest.mark.parametrize("mode", ["1", "L"])
def test_a_transparent_grey_becomes_white(tmp_path, mode):
    Image.new(mode, (2, 2), 0).save(tmp_path / "a.png", transparency=0)
    assert read_image(tmp_path / "a.png", 1).unique().tolist() == [255]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["jpg", "png", "tif"])
def test_images_are_upright_and_headers_agree(tmp_path, ending, orientation):
    upright = np.zeros((16, 24), np.uint8)
    upright[:8, :8] = 250  # a light corner, top left
    undo = {2: "fliplr", 3: "rot180", 4: "flipud", 5: "transpose", 6: "rot90", 7: "antitranspose", 8: "rot270"}
    stored = {
        "": upright,
        "fliplr": upright[:, ::-1],
        "rot180": upright[::-1, ::-1],
        "flipud": upright[::-1],
        "transpose": upright.T,
        "rot90": np.rot90(upright),
        "antitranspose": upright[::-1, ::-1].T,
        "rot270": np.rot90(upright, -1),
    }[undo.get(orientation, "")]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{ending}"
    Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif)
    assert check_header(path) == (16, 24)
    image = read_image(path, 1)
    assert image.shape == (1, 16, 24)
    assert abs(image[0].numpy().astype(int) - upright).mean() < 3  # a JPEG is not exact


def test_a_damaged_exif_block_leaves_the_image_as_stored(tmp_path, photo):
    Image.fromarray(photo).save(tmp_path / "a.jpg", exif=b"Exif\x00\x00II*\x00\x08\x00\x00\x00\xff\xff garbage")
    assert read_image(tmp_path / "a.jpg", 3).shape == (3, 31, 47)
    assert check_header(tmp_path / "a.jpg") == (31, 47)


def test_damaged_files_say_which_and_why(tmp_path, photo):
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("no pixels here")
    for name in ("whole.png", "whole.jpg"):
        Image.fromarray(photo).save(tmp_path / name)
        (tmp_path / f"cut.{name[-3:]}").write_bytes((tmp_path / name).read_bytes()[:-300])
    for name, reason in {
        "empty.png": "the file is empty",
        "text.png": "not an image",
        "cut.png": "truncated",
        "cut.jpg": "truncated",
        "none.png": "No such file",
    }.items():
        with pytest.raises(BadImage, match=reason) as caught:
            read_image(tmp_path / name, 3)
        assert caught.value.path == str(tmp_path / name)
        assert str(caught.value) == f"{caught.value.path}: {caught.value.reason}"
        assert "\n" not in str(caught.value)


def test_no_damage_gets_past_as_another_exception(tmp_path, photo):
    generator = np.random.default_rng(0)
    outcomes = set()
    for ending in ("png", "jpg", "gif", "tif", "bmp", "webp"):
        Image.fromarray(photo).save(tmp_path / f"whole.{ending}")
        whole = np.frombuffer((tmp_path / f"whole.{ending}").read_bytes(), np.uint8)
        for _ in range(30):
            damaged = whole.copy()
            damaged[generator.integers(0, len(whole), 3)] = generator.integers(0, 256, 3)
            path = tmp_path / f"damaged.{ending}"
            path.write_bytes(damaged.tobytes()[: generator.integers(20, 2 * len(whole))])
            try:
                read_image(path, 3)
                outcomes.add("read")
            except BadImage:
                outcomes.add("bad")
    assert outcomes == {"read", "bad"}


def test_a_decompression_bomb_is_a_bad_image(tmp_path, photo, monkeypatch):
    Image.fromarray(photo).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # 1,457 pixels: a warning, which is kept in
    assert read_image(tmp_path / "a.png", 1).shape == (1, 31, 47)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    with pytest.raises(BadImage, match="too large"):
        check_header(tmp_path / "a.png")


@pytest.mark.parametrize("channels", [0, 2, 4])
def test_other_numbers_of_channels_are_an_error(tmp_path, channels):
    with pytest.raises(RegardError, match="1 \\(grey\\) or 3") as caught:
        read_image(tmp_path / "any.png", channels)
    assert not isinstance(caught.value, BadImage)


def test_bad_image_survives_pickling_and_being_rebuilt_from_a_traceback():
    error = BadImage("a/b: c.png", "truncated: 3 bytes")
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.path, copy.reason, str(copy)) == (error.path, error.reason, str(error))
    rebuilt = BadImage(
        "Caught BadImage in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"
        "  File ...\nregard.data.images.BadImage: cat.png: truncated\n"
    )
    assert (rebuilt.path, rebuilt.reason, str(rebuilt)) == ("cat.png", "truncated", "cat.png: truncated")
