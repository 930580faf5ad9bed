"""From uint8 of any size to what a model sees."""

import json

import pytest
import torch
from sklearn.datasets import load_sample_image
from torchvision.transforms import v2

from regard.data import (
    Augmentation,
    InMemoryImages,
    Preprocessing,
    evaluation_transform,
    measure_mean_std,
    open_images,
    training_transform,
)
from regard.data.images.transforms import Shift
from regard.errors import RegardError

PRE = {
    "img_size": (31, 47),
    "channels": 3,
    "mean": (0.5, 0.4, 0.3),
    "std": (0.2, 0.3, 0.4),
    "interpolation": "bilinear",
    "crop_fraction": 0.875,
}
OFF = {
    "shift": 0,
    "flip": False,
    "crop_scale": 1.0,
    "rand_augment": 0,
    "rand_augment_magnitude": 9,
    "erase": 0.0,
    "rotation": 0.0,
    "colour": 0.0,
}


@pytest.fixture(scope="module")
def photo() -> torch.Tensor:
    return torch.from_numpy(load_sample_image("flower.jpg").copy()).permute(2, 0, 1)  # 3 × 427 × 640


def normalised(image: torch.Tensor) -> torch.Tensor:
    return v2.Normalize(PRE["mean"], PRE["std"])(image.float() / 255)


def test_preprocessing_survives_json():
    pre = Preprocessing(**PRE)
    assert Preprocessing.from_dict(json.loads(json.dumps(pre.to_dict()))) == pre


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"extra": 1}, "missing keys: none; unknown keys: extra"),
        ({"img_size": [31]}, "img_size"),
        ({"img_size": [31.5, 47]}, "img_size is 31.5.*whole number"),
        ({"img_size": [0, 47]}, "img_size"),
        ({"channels": "3"}, "channels is '3'"),
        ({"channels": 2}, "channels is 2"),
        ({"mean": [0.5]}, "one number for each of 3 channels"),
        ({"mean": 0.5}, "list of numbers"),
        ({"std": [0.1, 0.0, 0.1]}, "above 0"),
        ({"interpolation": "linear"}, "did you mean 'bilinear'"),
        ({"crop_fraction": 1.5}, "crop_fraction"),
        ({"crop_fraction": None}, "crop_fraction"),
    ],
)
def test_bad_preprocessing_is_named(change, said):
    with pytest.raises(RegardError, match=said):
        Preprocessing.from_dict({**Preprocessing(**PRE).to_dict(), **change})


def test_missing_preprocessing_is_named():
    with pytest.raises(RegardError, match="missing keys: mean, std; unknown keys: none"):
        Preprocessing.from_dict({key: value for key, value in PRE.items() if key not in ("mean", "std")})


@pytest.mark.parametrize(
    "change",
    [
        {"shift": -1},
        {"crop_scale": 0.0},
        {"crop_scale": 1.1},
        {"rand_augment": -1},
        {"rand_augment_magnitude": 31},
        {"erase": 1.1},
        {"rotation": 181.0},
        {"colour": -0.1},
    ],
)
def test_bad_augmentation_is_named(change):
    with pytest.raises(RegardError, match=next(iter(change))):
        Augmentation(**{**OFF, **change})


def test_an_image_of_the_right_size_is_only_normalised(photo):
    image = photo[:, :31, :47]
    output = evaluation_transform(Preprocessing(**PRE))(image)
    assert output.dtype == torch.float32
    torch.testing.assert_close(output, normalised(image), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest"])
def test_evaluation_resizes_to_cover_and_crops_the_middle(photo, interpolation):
    pre = Preprocessing(**{**PRE, "img_size": (41, 41), "interpolation": interpolation})
    mode = v2.InterpolationMode("nearest-exact" if interpolation == "nearest" else interpolation)
    reference = v2.Compose([v2.Resize(47, mode, antialias=True), v2.CenterCrop(41)])  # 41 / 0.875 = 46.9
    expected = normalised(reference(photo))
    output = evaluation_transform(pre)(photo)
    assert output.shape == (3, 41, 41)
    torch.testing.assert_close(output, expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("shape", [(1, 5000), (5000, 1), (3, 3), (31, 500), (427, 640)])
def test_any_size_gives_the_size(photo, shape):
    image = photo.new_full((3, *shape), 100)
    output = evaluation_transform(Preprocessing(**PRE))(image)
    torch.testing.assert_close(output, normalised(photo.new_full((3, 31, 47), 100)), atol=1e-5, rtol=1e-5)


def test_a_strip_keeps_its_middle():
    strip = torch.zeros(3, 31, 31 * 40, dtype=torch.uint8)
    strip[:, :, 31 * 19 : 31 * 21] = 255  # white, two crops wide
    pre = Preprocessing(**{**PRE, "img_size": (31, 31), "crop_fraction": 1.0})
    torch.testing.assert_close(evaluation_transform(pre)(strip), normalised(strip.new_full((3, 31, 31), 255)))


def test_training_without_augmentation_is_evaluation(photo):
    pre = Preprocessing(**PRE)
    assert torch.equal(training_transform(pre, Augmentation(**OFF))(photo), evaluation_transform(pre)(photo))


def test_a_shift_reaches_every_distance_and_fills_with_zeros():
    image = torch.arange(1, 36, dtype=torch.uint8).view(1, 5, 7)
    padded = torch.nn.functional.pad(image, [1, 1, 1, 1])
    possible = {
        tuple(padded[:, top : top + 5, left : left + 7].flatten().tolist()) for top in range(3) for left in range(3)
    }
    shift = Shift(1)
    assert {tuple(shift(image).flatten().tolist()) for _ in range(300)} == possible
    assert image.flatten().tolist() == list(range(1, 36))


def test_a_flip_happens_half_of_the_time(photo):
    image = photo[:, :31, :47]
    transform = training_transform(Preprocessing(**PRE), Augmentation(**{**OFF, "flip": True}))
    outputs = [transform(image) for _ in range(100)]
    flipped = sum(torch.equal(output, outputs[0].flip(2)) for output in outputs)
    assert flipped + sum(torch.equal(output, outputs[0]) for output in outputs) == 100
    assert 30 < flipped < 70


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "change",
    [
        {"crop_scale": 0.3},
        {"rand_augment": 2},
        {"erase": 1.0},
        {"shift": 3},
        {"rotation": 20.0},
        {"colour": 0.3},
        {"crop_scale": 0.5, "flip": True},
    ],
)
def test_each_augmentation_changes_the_image_and_only_by_the_global_generator(photo, change, channels):
    pre = Preprocessing(**{**PRE, "channels": channels, "mean": PRE["mean"][:channels], "std": PRE["std"][:channels]})
    transform = training_transform(pre, Augmentation(**{**OFF, **change}))
    image = photo[:channels]

    def outputs():
        torch.manual_seed(5)
        return torch.stack([transform(image) for _ in range(20)])

    first = outputs()
    assert first.shape == (20, channels, 31, 47)
    assert first.isfinite().all()
    assert not torch.equal(first[0], first[1]) or not torch.equal(first[1], first[2])
    assert torch.equal(first, outputs())


def test_mean_and_std_of_digits():
    source = open_images("digits", channels=1).train
    pixels = torch.stack([source.read(i) for i in range(len(source))]).double() / 255
    mean, std = measure_mean_std(source, limit=10_000)
    torch.testing.assert_close(torch.tensor(mean), pixels.mean().float().view(1), atol=1e-6, rtol=0)
    torch.testing.assert_close(torch.tensor(std), pixels.std(correction=0).float().view(1), atol=1e-6, rtol=0)
    every = measure_mean_std(source)
    assert every == measure_mean_std(source, limit=1000)
    assert every != (mean, std)


def test_mean_and_std_keep_channels_apart_and_never_divide_by_zero():
    images = torch.tensor([10, 20, 255], dtype=torch.uint8).view(1, 3, 1, 1).repeat(2, 1, 4, 5)
    mean, std = measure_mean_std(InMemoryImages(images, (0, 1), "flat"))
    assert mean == pytest.approx((10 / 255, 20 / 255, 1.0), abs=1e-6)
    assert std == pytest.approx((1 / 255,) * 3, abs=1e-6)


def test_nothing_to_measure_is_an_error():
    with pytest.raises(RegardError, match="no image"):
        measure_mean_std(InMemoryImages(torch.zeros(0, 1, 8, 8, dtype=torch.uint8), (), "empty"))


WHOLE = {**PRE, "crop_fraction": 1.0}


def test_squash_is_one_resize_and_letterbox_a_resize_between_bars(photo):
    """A photograph of 427 × 640 into 31 × 47: squashed to it; 31 × 46 of its own aspect, and a bar on the right."""
    squashed = evaluation_transform(Preprocessing(**WHOLE, resize="squash"))(photo)
    torch.testing.assert_close(squashed, normalised(v2.functional.resize(photo, [31, 47], antialias=True)))
    pre = Preprocessing(**WHOLE, resize="letterbox")
    boxed = evaluation_transform(pre)(photo)
    torch.testing.assert_close(boxed[..., :46], normalised(v2.functional.resize(photo, [31, 46], antialias=True)))
    assert (boxed[..., 46:] == 0).all()
    assert pre.seen(boxed)[:, 0, 46].tolist() == [round(255 * mean) for mean in PRE["mean"]]


def test_the_bars_of_a_letterbox_are_on_both_sides():
    """A tall white strip stands in the middle, between 20 and 21 columns of the mean colour."""
    boxed = evaluation_transform(Preprocessing(**WHOLE, resize="letterbox"))(
        torch.full((3, 310, 60), 255, dtype=torch.uint8)
    )
    columns = (boxed != 0).all(0).all(0).nonzero().flatten().tolist()
    assert columns == list(range(20, 26))
    torch.testing.assert_close(boxed[..., 20], normalised(torch.full((3, 31, 1), 255, dtype=torch.uint8))[..., 0])


@pytest.mark.parametrize("shape", [(3, 1, 5000), (3, 5000, 1), (3, 9, 9), (3, 31, 47)])
@pytest.mark.parametrize("resize", ["squash", "letterbox"])
@pytest.mark.parametrize("change", [{}, {"crop_scale": 0.5}])
def test_a_whole_image_of_any_size_gives_the_size(shape, resize, change):
    image = torch.randint(256, shape, dtype=torch.uint8)
    transform = training_transform(Preprocessing(**WHOLE, resize=resize), Augmentation(**{**OFF, **change}))
    assert transform(image).shape == (3, 31, 47)


def test_a_random_crop_has_about_the_aspect_of_the_image_where_the_whole_is_seen():
    """Of a picture of 100 × 800, whose columns are numbered, a crop of half the area has 3 / 4 to 4 / 3 of its aspect:
    it shows √(1 / 2 · 3 / 4) to √(1 / 2 · 4 / 3) of the width. A crop for a square would show an eighth."""
    columns = (torch.arange(800) * 255 / 799).round().byte().expand(1, 100, 800)
    pre = Preprocessing((32, 32), 1, (0.0,), (1.0,), "bilinear", 1.0, resize="squash")
    transform = training_transform(pre, Augmentation(**{**OFF, "crop_scale": 0.5}))
    widths = [(crop := transform(columns))[0, 0, -1].item() - crop[0, 0, 0].item() for _ in range(200)]
    assert 0.56 < min(widths) < 0.7
    assert 0.85 < max(widths) <= 1


def test_how_an_image_is_resized_is_stored_where_it_is_not_a_crop():
    assert "resize" not in Preprocessing(**PRE).to_dict()
    pre = Preprocessing(**WHOLE, resize="letterbox")
    assert Preprocessing.from_dict(json.loads(json.dumps(pre.to_dict()))) == pre
    with pytest.raises(RegardError, match="unknown resize 'squish'; did you mean 'squash'"):
        Preprocessing(**WHOLE, resize="squish")
    with pytest.raises(RegardError, match=r"crop_fraction is 0\.875; it must be 1 where resize is squash"):
        Preprocessing(**PRE, resize="squash")
