"""Mutated image files of every format: pixels, or one line that names the file; nothing on stderr, bounded memory."""

import io
import logging
import tracemalloc
import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, features

from regard.data import BadImage, Decoding, check_header, read_image

SMALL = Decoding(max_megapixels=1.0, integer_white=4095, float_white=255)
MOST = 64 * 2**20  # bytes that NumPy and Python may hold at a time, of an image of at most a megapixel


def samples() -> dict[str, bytes]:
    """Small images of every format and kind, by name."""
    generator = np.random.default_rng(0)
    colour = Image.fromarray(generator.integers(0, 256, (13, 17, 3), np.uint8))
    rgba = Image.fromarray(generator.integers(0, 256, (13, 17, 4), np.uint8), "RGBA")
    deep = Image.fromarray(generator.integers(0, 4096, (13, 17)).astype(np.uint16))
    floats = Image.fromarray(generator.random((13, 17), np.float32))
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a name"
    frames = [colour, colour.rotate(90, expand=False)]
    wanted: dict[str, tuple[Image.Image, str, dict[str, object]]] = {
        "png": (colour, "PNG", {}),
        "png-alpha": (rgba, "PNG", {"exif": exif}),
        "png-palette": (colour.quantize(16), "PNG", {"transparency": 3}),
        "png-deep": (deep, "PNG", {}),
        "png-animated": (colour, "PNG", {"save_all": True, "append_images": frames[1:]}),
        "jpeg": (colour, "JPEG", {"exif": exif}),
        "jpeg-progressive": (colour.convert("CMYK"), "JPEG", {"progressive": True}),
        "mpo": (colour, "MPO", {"save_all": True, "append_images": frames[1:]}),
        "gif": (colour.quantize(16), "GIF", {"save_all": True, "append_images": [frames[1].quantize(16)]}),
        "bmp": (colour, "BMP", {}),
        "bmp-1": (colour.convert("1"), "BMP", {}),
        "dib": (colour, "DIB", {}),
        "tiff": (colour, "TIFF", {"exif": exif}),
        "tiff-lzw": (rgba, "TIFF", {"compression": "tiff_lzw"}),
        "tiff-deep": (deep, "TIFF", {}),
        "tiff-floats": (floats, "TIFF", {"compression": "tiff_deflate"}),
        "webp": (colour, "WEBP", {"exif": exif}),
        "webp-animated": (rgba, "WEBP", {"save_all": True, "append_images": frames[1:]}),
        "ppm": (colour, "PPM", {}),
        "pgm-deep": (deep, "PPM", {}),
        "pbm": (colour.convert("1"), "PPM", {}),
        "jp2": (colour, "JPEG2000", {}),
        "jp2-deep": (deep, "JPEG2000", {}),
        "avif": (rgba, "AVIF", {}),
    }
    missing = [("avif", "AVIF"), ("webp", "WEBP"), ("jpg_2000", "JPEG2000")]
    lacking = {format_ for feature, format_ in missing if not features.check(feature)}
    found = {}
    for name, (image, format_, options) in wanted.items():
        if format_ not in lacking:
            buffer = io.BytesIO()
            image.save(buffer, format_, **options)
            found[name] = buffer.getvalue()
    return found


SAMPLES = samples()


def mutated(whole: bytes, generator: np.random.Generator) -> bytes:
    """One to four changes: flipped bytes, a cut, inserted or repeated bytes, a number that becomes another."""
    data = bytearray(whole)
    for _ in range(generator.integers(1, 5)):
        kind, place = generator.integers(6), int(generator.integers(max(len(data), 1)))
        if kind == 0:
            data[place : place + 1] = bytes([generator.integers(256)])
        elif kind == 1:
            del data[place:]
        elif kind == 2:
            data[place:place] = generator.bytes(int(generator.integers(1, 40)))
        elif kind == 3:  # the size of a chunk, a count, a width
            extreme = (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\0\0\xff\xff", b"\1\0\0\0")
            data[place : place + 4] = extreme[generator.integers(len(extreme))]
        elif kind == 4:
            del data[place : place + int(generator.integers(1, 12))]
        else:  # most of what matters stands at the beginning
            place = int(generator.integers(min(len(data), 60) or 1))
            data[place : place + 1] = bytes([generator.integers(256)])
    return bytes(data)


def test_mutated_images_are_pixels_or_one_line(fuzz_cases: Iterable[int], tmp_path: Path, capfd):
    file = tmp_path / "image.png"  # the name says nothing: files are known by their content
    outcomes = set()
    tracemalloc.start()
    try:
        for seed in fuzz_cases:
            generator = np.random.default_rng(seed)
            for name in generator.choice(list(SAMPLES), 8, replace=False).tolist():
                file.write_bytes(mutated(SAMPLES[name], generator))
                channels = int(generator.choice([1, 3]))
                tracemalloc.reset_peak()
                with warnings.catch_warnings(record=True) as warned:
                    warnings.simplefilter("always")
                    outcomes.add(outcome(file, channels, f"seed {seed}, {name}"))
                assert not warned, f"seed {seed}, {name}"
                assert tracemalloc.get_traced_memory()[1] < MOST, f"seed {seed}, {name}"
                assert capfd.readouterr() == ("", ""), f"seed {seed}, {name}"
    finally:
        tracemalloc.stop()
    assert outcomes == {"read", "bad"}


def outcome(file: Path, channels: int, case: str) -> str:
    try:
        height, width = check_header(file, SMALL)
        assert height * width <= 1e6, case
    except BadImage as error:
        assert_one_line(error, file, case)
    try:
        image = read_image(file, channels, SMALL)
    except BadImage as error:
        assert_one_line(error, file, case)
        return "bad"
    assert (image.dtype, image.ndim, image.shape[0]) == (torch.uint8, 3, channels), case
    assert 1 <= image.shape[1] * image.shape[2] <= 1e6, case
    return "read"


def assert_one_line(error: BadImage, file: Path, case: str) -> None:
    assert str(error) == f"{file}: {error.reason}", case
    assert error.reason.strip(), case
    assert "\n" not in str(error), case


@pytest.mark.parametrize("name", SAMPLES)
def test_the_images_themselves_are_read(name, tmp_path):
    (tmp_path / "a").write_bytes(SAMPLES[name])
    image = read_image(tmp_path / "a", 3, Decoding(integer_white=65535 if name == "pgm-deep" else 4095, float_white=1))
    assert sorted(image.shape) == [3, 13, 17]
    assert check_header(tmp_path / "a") == tuple(image.shape[1:])
    assert len(image.unique()) > 1


def test_what_pillow_logs_is_no_word_on_stderr(capfd):
    logging.getLogger("PIL.TiffImagePlugin").error("More samples per pixel than can be decoded")
    assert capfd.readouterr().err == ""
