"""Views of whole images: the same for every run and model, whatever size it sees; turned, mirrored, in part."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from regard.data import ImageViews, Preprocessing, evaluation_transform, normalised

DIGESTS = [f"{number:032x}" for number in (0x2A3B5C7D9E1F << 80, 7 << 100, 11 << 90)]
RESIZES = ("crop", "squash", "letterbox")


def preprocessing(height: int = 30, width: int = 42, channels: int = 3, resize: str = "crop") -> Preprocessing:
    return Preprocessing(
        *((height, width), channels, (0.5, 0.4, 0.3)[:channels], (0.2, 0.3, 0.4)[:channels], "bilinear", 1.0),
        resize=resize,
    )


def picture(height: int = 121, width: int = 143, channels: int = 3) -> Tensor:
    """Colours that change slowly and differ everywhere, so that a small picture shows what a large one does."""
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    waves = [torch.sin(6 * x + 4 * y), torch.cos(7 * y - 2 * x), torch.sin(5 * x * y + 2 * x)][:channels]
    return (127.5 + 127 * torch.stack(waves)).round().byte()


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(121, 143), (53, 37), (30, 42)])
def test_the_first_view_is_what_evaluation_sees(resize, channels, size):
    pre, image = preprocessing(channels=channels, resize=resize), picture(*size, channels=channels)
    views = ImageViews(crop_scale=0.2, rotation=45.0, flip=True)
    assert torch.equal(views.pixels(image, 0, DIGESTS[0], pre), evaluation_transform(pre)(image))
    assert views.name(0) == "whole"


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("rotation", [0.0, 30.0])
def test_every_view_has_the_models_size(resize, channels, rotation):
    pre, views = preprocessing(channels=channels, resize=resize), ImageViews(0.3, rotation, flip=True)
    for size in [(121, 143), (53, 37), (1, 7), (30, 42)]:
        for number in range(5):
            found = views.pixels(picture(*size, channels=channels), number, DIGESTS[0], pre)
            assert found.shape == (channels, 30, 42)
            assert found.dtype == torch.float32


def test_a_view_depends_on_the_file_and_the_number_alone():
    views, pre, image = ImageViews(0.3, 20.0, flip=True), preprocessing(), picture()
    found = {}
    for digest in DIGESTS:
        for number in range(1, 6):
            torch.manual_seed(number)  # the run's own draws have no part in it
            before = torch.random.get_rng_state()
            found[digest, number] = views.part(image, number, digest, pre)
            assert torch.equal(torch.random.get_rng_state(), before)  # and it takes nothing from them
            torch.manual_seed(17)
            assert torch.equal(views.part(image, number, digest, pre), found[digest, number])
    kept = list(found.values())
    assert not any(torch.equal(kept[i], kept[j]) for i in range(len(kept)) for j in range(i))
    names = {ImageViews(*options).name(1) for options in [(0.3, 20.0, True), (0.3, 20.0), (0.3, 0.0), (1.0, 20.0)]}
    assert len(names) == 4


def resized(image: Tensor, size: tuple[int, ...]) -> Tensor:
    return F.interpolate(image[None].float(), size=size, mode="bilinear", antialias=True)[0]


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("rotation", [0.0, 40.0])
@pytest.mark.parametrize("stored", [(121, 143), (97, 307), (307, 97)])
def test_student_and_teacher_see_the_same_part(resize, rotation, stored):
    """Whatever their sizes, and where the student's images are kept smaller than they are stored."""
    student = preprocessing(32, 32, resize=resize)
    teacher = replace(student, img_size=(97, 97), interpolation="bicubic")
    image, views = picture(*stored), ImageViews(0.3, rotation, flip=True)
    smaller = resized(image, (round(stored[0] * 0.7), round(stored[1] * 0.7))).round().byte()
    for number in range(8):
        seen = views.part(image, number, DIGESTS[1], student).float()
        theirs = resized(views.part(image, number, DIGESTS[1], teacher), seen.shape[1:])
        other = views.part(image, number + 1, DIGESTS[1], student).float()
        assert (seen - theirs).abs().mean() < 4
        assert (seen - views.part(smaller, number, DIGESTS[1], student).float()).abs().mean() < 5
        assert other.shape == seen.shape
        assert (seen - other).abs().mean() > 10


@pytest.mark.parametrize("resize", RESIZES)
def test_a_pattern_of_circles_looks_the_same_however_it_is_turned(resize):
    """Also where the image is not square, so that angles are those of the image itself."""
    height, width = (120, 120) if resize == "crop" else (120, 168)
    pre = preprocessing(60, 60 if resize == "crop" else 84, resize=resize)
    y, x = torch.meshgrid(*(torch.arange(side) - (side - 1) / 2 for side in (height, width)), indexing="ij")
    radius = (x**2 + y**2).sqrt().clamp(max=58)
    image = (127.5 + 127 * torch.cos(radius / 6)).round().byte().expand(3, -1, -1)
    whole, turned = ImageViews(), ImageViews(rotation=180.0)
    inside = (resized(radius[None], pre.img_size)[0] < 54).expand(3, -1, -1)
    wanted = whole.part(image, 0, DIGESTS[0], pre).float()
    for number in range(1, 9):
        found = turned.part(image, number, DIGESTS[0], pre).float()
        assert (found - wanted)[inside].abs().mean() < 2
    # A pattern that is not symmetric shows that they are turned.
    other = picture(height, width)
    seen = [turned.part(other, number, DIGESTS[0], pre).float() for number in range(1, 9)]
    assert min((one - whole.part(other, 0, DIGESTS[0], pre).float()).abs().mean() for one in seen) > 5


def test_a_quarter_turn_is_torchs():
    """The middle of the view stays; angles count anticlockwise, as an image is seen, or clockwise, never skewed."""
    from regard.data.images.parts import turned

    image = picture(60, 60)
    found = turned(image, (0.0, 0.0, 60.0, 60.0), torch.pi / 2, (60, 60))
    wanted = [torch.rot90(image, turns, (1, 2)) for turns in (1, -1)]
    assert min((found.float() - one.float()).abs().max() for one in wanted) <= 1


def test_what_lies_outside_is_a_reflection():
    white, turned = torch.full((3, 121, 143), 255, dtype=torch.uint8), ImageViews(0.5, rotation=45.0)
    for number in range(1, 5):
        assert turned.part(white, number, DIGESTS[0], preprocessing()).min() == 255


def test_bars_are_of_the_mean_colour_and_no_view_draws_on_them():
    pre = preprocessing(60, 60, resize="letterbox")
    for number in range(3):
        found = ImageViews(0.5, 30.0).pixels(picture(60, 120), number, DIGESTS[0], pre)
        assert torch.equal(found[:, :15], torch.zeros(3, 15, 60))
        assert torch.equal(found[:, 45:], torch.zeros(3, 15, 60))
        assert found[:, 15:45].abs().mean() > 0.3
    part = torch.randint(0, 256, (3, 30, 60), dtype=torch.uint8)
    assert normalised(part, pre).shape == (3, 60, 60)


def test_every_second_view_is_mirrored():
    plain, flipped, pre, image = ImageViews(0.4), ImageViews(0.4, flip=True), preprocessing(), picture()
    mirrored = 0
    for digest in DIGESTS:
        for number in range(1, 21):
            one, other = (views.part(image, number, digest, pre) for views in (plain, flipped))
            assert torch.equal(one, other) or torch.equal(one.flip(-1), other)
            mirrored += torch.equal(one.flip(-1), other)
    assert 20 < mirrored < 40


@pytest.mark.parametrize("scale", [0.2, 0.7])
def test_parts_have_at_least_the_area_that_was_said(scale):
    """Two ramps tell which rows and columns of the image a view shows."""
    ramp = torch.arange(200, dtype=torch.uint8)
    image = torch.stack([ramp.expand(200, 200), ramp[:, None].expand(200, 200), ramp.expand(200, 200)])
    pre, areas = preprocessing(200, 200), []
    for digest in DIGESTS:
        for number in range(1, 21):
            seen = ImageViews(scale).part(image, number, digest, pre).float()
            width, height = (seen[channel].max() - seen[channel].min() + 1 for channel in (0, 1))
            areas.append(float(width * height) / 200**2)
            assert 3 / 4 - 0.05 < width / height < 4 / 3 + 0.05
    # A stretched part that does not fit is cut: by at most the root of 4 / 3.
    assert min(areas) > scale * 0.86 - 0.02
    assert min(areas) < scale + 0.15
    assert max(areas) > 0.9


def test_the_whole_image_is_every_view_where_nothing_is_drawn():
    image, pre = picture(), preprocessing(resize="squash")
    assert_close(ImageViews().pixels(image, 3, DIGESTS[0], pre), evaluation_transform(pre)(image), atol=0.02, rtol=0)
