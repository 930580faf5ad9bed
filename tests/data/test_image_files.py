"""Decoding: every mode, depth, orientation and kind of damage becomes the right pixels or one clear error."""

import io
import os
import pickle
import struct
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngImageFile
from sklearn.datasets import load_sample_image

import regard.data.images.pixels as pixels_module
from regard.data import BadImage, Decoding, check_header, from_pil, has_deep_pixels, measure_decoding, read_image
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


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of_16_bits(path: Path, pixels: np.ndarray) -> None:
    """A PNG of 16 bits: (height, width, 2 to 4 channels). Pillow writes none."""
    height, width, channels = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, {2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)


def test_12_bits_in_a_file_of_16_keep_their_256_levels(tmp_path):
    values = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    Image.fromarray(values).save(tmp_path / "grey.png")
    Image.fromarray(values).save(tmp_path / "grey.tif")
    png_of_16_bits(tmp_path / "rgb.png", np.repeat(values[..., None], 3, axis=2))
    png_of_16_bits(tmp_path / "rgba.png", np.stack([values, values, values, np.full_like(values, 4095)], axis=2))
    png_of_16_bits(tmp_path / "la.png", np.stack([values, np.full_like(values, 4095)], axis=2))
    wanted = np.rint(values * (255 / 4095)).astype(np.uint8)
    for name in ("grey.png", "grey.tif", "rgb.png", "rgba.png", "la.png"):
        file = tmp_path / name
        assert has_deep_pixels(file)
        decoding = measure_decoding([file])
        assert decoding == Decoding(integer_white=4095)
        image = read_image(file, 3, decoding)
        assert all(np.array_equal(channel.numpy(), wanted) for channel in image), name
    assert len(read_image(tmp_path / "grey.png", 1).unique()) == 17  # alone, 65535 is white: nothing says otherwise


@pytest.mark.parametrize(
    ("largest", "white"), [(200, 255), (256, 1023), (1024, 4095), (4095, 4095), (4096, 16383), (16384, 65535)]
)
def test_white_is_the_largest_value_of_the_bits_that_a_set_needs(tmp_path, largest, white):
    Image.fromarray(np.full((2, 2), 7, np.uint16)).save(tmp_path / "a.png")
    Image.fromarray(np.full((2, 2), largest, np.uint16)).save(tmp_path / "b.png")
    assert measure_decoding([tmp_path / "a.png", tmp_path / "b.png"]).integer_white == white


def test_floats_of_a_set_have_one_scale(tmp_path):
    for name, value in (("dark", 0.5), ("light", 100.0)):
        Image.fromarray(np.full((1, 2), value, np.float32)).save(tmp_path / f"{name}.tif")
    files = [tmp_path / "dark.tif", tmp_path / "light.tif"]
    decoding = measure_decoding(files)
    assert decoding == Decoding(float_white=255)
    assert [read_image(file, 1, decoding).unique().tolist() for file in files] == [[0], [100]]  # 0.5 is rounded to even
    assert [read_image(file, 1).unique().tolist() for file in files] == [[128], [100]]
    assert measure_decoding(files[:1]) == Decoding(float_white=1)
    Image.fromarray(np.full((1, 2), 1.5, np.float32)).save(tmp_path / "over.tif")
    assert read_image(tmp_path / "over.tif", 1, Decoding(float_white=1)).unique().tolist() == [255]
    with pytest.raises(BadImage, match=r"pixels up to 100; expected 0 to 4 \(1 is white in the data of this run\)"):
        read_image(tmp_path / "light.tif", 1, Decoding(float_white=1))


def test_a_decoding_is_stored_and_read_back():
    decoding = Decoding(100.0, 4095, 1)
    assert Decoding.from_dict(decoding.to_dict()) == decoding
    assert Decoding.from_dict({}) == Decoding() == Decoding(64.0, 65535, None)
    nan = float("nan")
    for wrong in ({"whites": 1}, [1], {"integer_white": "4095"}, {"integer_white": 0}, {"max_megapixels": nan}):
        with pytest.raises(RegardError, match=r"decoding is|it must be a number above 0"):
            Decoding.from_dict(wrong)


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "La", "RGBA", "CMYK", "HSV", "RGB", "I;16", "I;16B", "I", "F"])
def test_converting_in_blocks_gives_the_same_pixels(mode, monkeypatch):
    generator = np.random.default_rng(0)
    image = Image.fromarray(generator.integers(0, 256, (13, 17, 4), np.uint8), "RGBA").convert("RGB").convert("L")
    colour = Image.fromarray(generator.integers(0, 256, (13, 17, 4), np.uint8), "RGBA")
    if mode in ("I;16", "I;16B", "I", "F"):
        image = image.convert("I").convert(mode) if mode.startswith("I;") else image.convert(mode)
    elif mode == "La":
        image = colour.convert("LA").convert("La")
    elif mode == "HSV":
        image = colour.convert("RGB").convert("HSV")
    else:
        image = colour.convert(mode)
    if mode == "P":
        image.info["transparency"] = 3
    whole = [from_pil(image, channels) for channels in (1, 3)]
    for block in (5, 17, 40):
        monkeypatch.setattr(pixels_module, "BLOCK", block)
        assert all(torch.equal(from_pil(image, one.shape[0]), one) for one in whole)


def test_only_formats_of_the_list_are_opened_whatever_the_name(tmp_path, monkeypatch):
    def start(*_, **__):
        raise AssertionError("a program was started")

    monkeypatch.setattr(subprocess, "Popen", start)
    monkeypatch.setattr(subprocess, "check_call", start)
    (tmp_path / "script.png").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n0 0 moveto showpage\n%%EOF\n"
    )
    Image.new("RGB", (2, 2)).save(tmp_path / "a.tga")
    (tmp_path / "a.tga").rename(tmp_path / "a.jpg")
    for name in ("script.png", "a.jpg"):
        with pytest.raises(BadImage, match="not an image, or of a format that is not read"):
            read_image(tmp_path / name, 3)
        with pytest.raises(BadImage, match="not an image"):
            read_image(io.BytesIO((tmp_path / name).read_bytes()), 3)


def test_open_files_are_read_too(tmp_path, photo):
    Image.fromarray(photo).save(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    assert torch.equal(read_image(io.BytesIO(whole), 3), read_image(tmp_path / "a.png", 3))
    with pytest.raises(BadImage, match=r"^image: .*truncated"):
        read_image(io.BytesIO(whole[:-300]), 3)


def test_the_limit_of_pixels_is_ours_and_looked_at_before_decoding(tmp_path, monkeypatch):
    Image.new("L", (1000, 1001)).save(tmp_path / "a.png")
    monkeypatch.setattr(PngImageFile, "load", lambda self: pytest.fail("decoded"))
    said = r"too large: 1000 × 1001 pixels; up to 1 megapixels are read \(data.max_megapixels"
    with pytest.raises(BadImage, match=said):
        read_image(tmp_path / "a.png", 1, Decoding(1.0))
    with pytest.raises(BadImage, match=said):
        check_header(tmp_path / "a.png", Decoding(1.0))
    monkeypatch.undo()
    assert read_image(tmp_path / "a.png", 1, Decoding(1.001)).shape == (1, 1001, 1000)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # Pillow's own, as it stands for an image of 100 megapixels
    assert read_image(tmp_path / "a.png", 1, Decoding(100.0)).shape == (1, 1001, 1000)
    assert Image.MAX_IMAGE_PIXELS == 1000


def test_a_file_that_is_out_of_proportion_is_not_read(tmp_path):
    with (tmp_path / "sparse.png").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(BadImage, match="too large: 1,099,512 MB"):
        read_image(tmp_path / "sparse.png", 3)


def test_pipes_devices_and_folders_are_no_images(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    for path, reason in ((tmp_path / "pipe.png", "is no regular file"), (tmp_path, "is a folder, not a file")):
        for read in (lambda p: read_image(p, 3), check_header):
            with pytest.raises(BadImage, match=reason):
                read(path)
    if Path("/dev/zero").exists():
        with pytest.raises(BadImage, match="is no regular file"):
            read_image("/dev/zero", 3)


@pytest.mark.parametrize("ending", ["gif", "tif", "webp", "png", "avif"])
def test_of_several_frames_the_first_is_read(tmp_path, ending):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    frames[0].save(tmp_path / f"a.{ending}", save_all=True, append_images=frames[1:])
    red = read_image(tmp_path / f"a.{ending}", 3).float().mean((1, 2))
    assert (red - torch.tensor([255.0, 0, 0])).abs().max() < 4


def test_an_image_that_is_open_and_damaged_is_one_line(tmp_path, photo):
    Image.fromarray(photo).save(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:-300])
    with Image.open(tmp_path / "a.png") as image, pytest.raises(RegardError, match=r"cannot be decoded: .*truncated"):
        from_pil(image, 3)


@pytest.mark.parametrize("kind", [b"zTXt", b"iCCP"])
def test_text_and_profiles_that_unpack_without_end_are_a_bad_image(tmp_path, photo, kind):
    Image.fromarray(photo).save(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    bomb = chunk(kind, b"name\0\0" + zlib.compress(bytes(2**28)))
    (tmp_path / "a.png").write_bytes(whole[:33] + bomb + whole[33:])  # behind the header
    tracemalloc.start()
    try:
        with pytest.raises(BadImage, match="too large"):
            read_image(tmp_path / "a.png", 3)
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


def test_a_length_beyond_the_file_allocates_nothing(tmp_path, photo):
    Image.fromarray(photo).save(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(whole[:33] + struct.pack(">I", 2**31 - 1) + whole[37:])
    tracemalloc.start()
    try:
        assert read_image(tmp_path / "a.png", 3).shape == (3, 31, 47)  # all the rest is taken for its pixels
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["I;16", "RGBA", "F"])
def test_converting_64_megapixels_takes_less_than_four_times_their_8_bits(tmp_path, mode):
    values = {"I;16": np.zeros((8000, 8000), np.uint16), "F": np.zeros((8000, 8000), np.float32)}
    image = Image.fromarray(values[mode]) if mode in values else Image.new(mode, (8000, 8000))
    image.save(tmp_path / "a.tif", compression="tiff_lzw")
    code = (
        "import resource, sys\nfrom regard.data import read_image\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024\n"
        "read_image(sys.argv[1], 3)\nbefore = peak()\nread_image(sys.argv[2], 3)\nprint(peak() - before)"
    )
    Image.new("RGB", (8, 8)).save(tmp_path / "small.tif", compression="tiff_lzw")
    command = [sys.executable, "-c", code, str(tmp_path / "small.tif"), str(tmp_path / "a.tif")]
    taken = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert taken < 4 * 3 * 8000 * 8000
