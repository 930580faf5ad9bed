"""Copies that were saved again, resized, brightened or turned are found; what is merely alike is not named."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from regard.data import look_of, near_doubles
from regard.data.images.near_doubles import ALIKE, CANDIDATE, LEAST_SIDE, _turned

PHOTOS = Path(__file__).parents[3] / "shared" / "photos"
HANDS = PHOTOS / "signdigits"


def tensor(image: Image.Image) -> torch.Tensor:
    pixels = np.array(image)
    return torch.from_numpy(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1).copy())


def structure(seed: int, height: int = 60, width: int = 80) -> Image.Image:
    """Smooth shapes with some detail, other ones for each seed."""
    draw = np.random.default_rng(seed)
    coarse = Image.fromarray(draw.integers(0, 256, (9, 11, 3)).astype(np.uint8))
    return coarse.resize((width, height), Image.Resampling.BICUBIC)


def saved(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


COPIES = {
    "the same": lambda image: image,
    "saved again": lambda image: saved(image, 40),
    "half the size": lambda image: image.resize((image.width // 2, image.height // 2)),
    "larger, another aspect": lambda image: image.resize((image.width * 2, image.height * 3)),
    "brighter, with parts all white": lambda image: ImageEnhance.Brightness(image).enhance(1.5),
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.6),
    "less contrast": lambda image: ImageEnhance.Contrast(image).enhance(0.5),
    "mirrored": ImageOps.mirror,
    "upside down": ImageOps.flip,
    "turned round, smaller, brighter, saved again": lambda image: saved(
        ImageEnhance.Brightness(image.rotate(180).resize((50, 40))).enhance(1.3), 50
    ),
    "grey": lambda image: image.convert("L"),
}


@pytest.mark.parametrize("copy", COPIES.values(), ids=COPIES.keys())
def test_a_copy_is_found_among_others(copy):
    images = [structure(seed) for seed in range(8)]
    looks = [look_of(tensor(image)) for image in [*images, copy(images[5])]]
    assert near_doubles(looks) == [(5, 8)]


def test_each_pair_of_several_copies_is_named_once_and_in_order():
    image, other = structure(0), structure(1)
    looks = [look_of(tensor(one)) for one in (image, other, ImageOps.mirror(image), saved(image, 60))]
    assert near_doubles(looks) == [(0, 2), (0, 3), (2, 3)]


def test_what_has_no_detail_is_like_nothing():
    flat = [Image.new("RGB", (60, 50), (grey, grey, grey)) for grey in (0, 90, 90, 255)]
    assert near_doubles([look_of(tensor(image)) for image in flat]) == []
    small = structure(3, LEAST_SIDE - 1, 60)
    assert near_doubles([look_of(tensor(image)) for image in (small, small)]) == []
    enough = structure(3, LEAST_SIDE, 60)
    assert near_doubles([look_of(tensor(image)) for image in (enough, enough)]) == [(0, 1)]
    assert near_doubles([]) == near_doubles([look_of(tensor(enough))]) == []


def test_shifted_views_and_other_detail_are_not_the_same():
    whole = structure(4, 90, 120)
    shifted = [whole.crop((left, 0, left + 80, 60)) for left in (0, 12, 24)]
    assert near_doubles([look_of(tensor(image)) for image in shifted]) == []
    noise = np.random.default_rng(0).normal(0, 60, (60, 80, 3))
    image = np.asarray(structure(5)).astype(float)
    noisy = Image.fromarray((image + noise).clip(0, 255).astype(np.uint8))
    assert near_doubles([look_of(tensor(Image.fromarray(image.astype(np.uint8)))), look_of(tensor(noisy))]) in (
        [],
        [(0, 1)],  # noise of so many grey values may be either
    )


def test_hashes_are_those_of_turned_images():
    image = structure(6)
    look = look_of(tensor(image))
    for turn, of_image in enumerate((image, ImageOps.mirror(image), ImageOps.flip(image), image.rotate(180))):
        np.testing.assert_allclose(
            _turned(look.thumbnail.astype(float), turn), look_of(tensor(of_image)).thumbnail.astype(float), atol=1
        )
        assert (look.bits[turn] != look_of(tensor(of_image)).bits[0]).sum() <= 2 < CANDIDATE
    assert 0.5 < ALIKE < 1


def test_more_images_than_are_compared_are_taken_evenly(monkeypatch):
    monkeypatch.setattr("regard.data.images.near_doubles.MOST", 4)
    looks = [look_of(tensor(structure(seed // 2))) for seed in range(8)]  # 0 is 1, 2 is 3, ...
    assert near_doubles(looks) == []  # 0, 2, 4 and 6
    looks = [looks[0]] * 8
    assert near_doubles(looks) == [(0, 2), (0, 4), (0, 6), (2, 4), (2, 6), (4, 6)]


@pytest.mark.skipif(not HANDS.is_dir(), reason=f"{HANDS}: the photographs are not there")
def test_hands_that_make_the_same_sign_are_not_named_and_their_copies_are():
    files = sorted(HANDS.glob("*/*.JPG"))[::7]
    images = [Image.open(file).convert("RGB") for file in files]
    looks = [look_of(tensor(image)) for image in images]
    assert len(looks) > 290
    assert near_doubles(looks) == []
    copies = [change(image) for image, change in zip(images[::5], list(COPIES.values()) * 20, strict=False)]
    found = near_doubles([*looks, *(look_of(tensor(image)) for image in copies)])
    wanted = {(5 * number, len(looks) + number) for number in range(len(copies))}
    assert len(wanted & set(found)) >= 0.95 * len(wanted)
    assert not set(found) - wanted
