"""Views of images with boxes: the same for every run, with boxes where the pixels are."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from regard.data import DetectionPreprocessing, Objects, Views

DIGESTS = [f"{number:032x}" for number in (0x2A3B5C7D9E1F << 80, 7 << 100, 11 << 90)]
BOX = [(13, 29, 47, 71)]  # left, top, right, bottom


def preprocessing(**changed: object) -> DetectionPreprocessing:
    values = {"shortest": 70, "longest": 98, "channels": 3, "mean": (0.0,) * 3, "std": (1.0,) * 3, "divisor": 14}
    return DetectionPreprocessing(**{**values, **changed})  # type: ignore[arg-type]


def objects(*boxes: tuple[int, int, int, int], crowd: bool = False) -> Objects:
    corners = torch.tensor(boxes, dtype=torch.float32).view(-1, 4)
    areas = (corners[:, 2:] - corners[:, :2]).prod(1)
    return Objects(corners, torch.arange(len(corners)), areas, torch.full((len(corners),), crowd))


def picture(height: int, width: int) -> Tensor:
    """Black, and white where the box is."""
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    left, top, right, bottom = BOX[0]
    image[:, top:bottom, left:right] = 255
    return image


def test_the_first_view_is_the_whole_image_as_it_is_evaluated():
    views = Views(preprocessing(), (0.5, 2.0), 0.5)
    window = views.window((101, 151), objects(*BOX), 0, DIGESTS[0])
    assert window == (0, 0, 101, 151, (70, 98))
    pixels = views.pixels(picture(101, 151), window, 0, DIGESTS[0])
    assert pixels.shape == (3, 70, 98)
    assert pixels.max() == 1
    assert views.name(0) == "whole"


@pytest.mark.parametrize("number", range(1, 13))
@pytest.mark.parametrize("digest", DIGESTS)
def test_boxes_lie_where_their_pixels_are(number, digest):
    views = Views(preprocessing(divisor=1), (0.4, 2.5))
    stored = objects(*BOX)
    window = views.window((101, 151), stored, number, digest)
    pixels = views.pixels(picture(101, 151), window, number, digest)[0]
    assert pixels.shape == window.size
    (box,) = views.objects(stored, window).boxes_xyxy
    scale = torch.tensor([window.size[1] / window.width, window.size[0] / window.height]).repeat(2)
    rows, columns = (pixels > 0.5).nonzero(as_tuple=True)
    seen = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]).float()
    assert_close(seen, box * scale, atol=1.01, rtol=0)


def test_a_view_is_the_same_for_every_run_and_another_for_every_file_and_number():
    views, stored = Views(preprocessing(), (0.5, 2.0), 0.4), objects(*BOX)
    found = {}
    for digest in DIGESTS:
        for number in range(1, 6):
            torch.manual_seed(number)  # the run's own draws have no part in it
            window = views.window((101, 151), stored, number, digest)
            torch.manual_seed(0)
            assert views.window((101, 151), stored, number, digest) == window
            first, second = (views.pixels(picture(101, 151), window, number, digest) for _ in range(2))
            assert torch.equal(first, second)
            found[digest, number] = window
    assert len(set(found.values())) == len(found)


def test_factors_cover_their_range_and_sides_are_tiled():
    views = Views(preprocessing(shortest=140, longest=196), (0.5, 2.0))
    windows = [views.window((303, 401), objects(), number, digest) for digest in DIGESTS for number in range(1, 60)]
    smaller = [window for window in windows if window[:4] == (0, 0, 303, 401)]
    parts = [window for window in windows if window not in smaller]
    assert 60 < len(smaller) < 120  # half of them, evenly over the logarithm
    assert min(window.size[0] for window in smaller) == 70
    assert {side % 14 for window in windows for side in window.size} == {0}
    assert all(0 <= w.top <= 303 - w.height and 0 <= w.left <= 401 - w.width for w in parts)
    kept = [(window.height * window.width / (303 * 401)) ** 0.5 for window in parts]
    assert 0.49 < min(kept) < 0.6
    assert 0.85 < max(kept) <= 1


def test_a_view_shows_an_object_where_there_is_one_and_leaves_out_what_is_hardly_seen():
    views, small = Views(preprocessing(), (2.0, 2.0)), objects((140, 90, 149, 99))
    windows = [views.window((101, 151), small, number, digest) for digest in DIGESTS for number in range(1, 8)]
    assert all(len(views.objects(small, window)) == 1 for window in windows)
    part = windows[0]._replace(top=0, left=0, height=60, width=60)
    beside, cut, crowd = objects((90, 10, 99, 20)), objects((50, 10, 90, 20)), objects((0, 0, 30, 30), crowd=True)
    assert [len(views.objects(one, part)) for one in (beside, cut, crowd)] == [0, 0, 0]
    (clipped,) = views.objects(objects((40, -5, 70, 20)), part).boxes_xyxy
    assert clipped.tolist() == [40, 0, 60, 20]


def test_no_image_is_too_small():
    views = Views(preprocessing(), (0.1, 9.0))
    for number in range(9):
        window = views.window((1, 3), objects(), number, DIGESTS[1])
        pixels = views.pixels(torch.zeros(3, 1, 3, dtype=torch.uint8), window, number, DIGESTS[1])
        assert pixels.shape[1:] == window.size
        assert min(window.size) >= 14


def test_colours_change_in_all_views_but_the_whole_and_the_boxes_do_not():
    plain, coloured = (Views(preprocessing(), (0.5, 2.0), colour) for colour in (0.0, 0.5))
    grey, stored = torch.full((3, 101, 151), 120, dtype=torch.uint8), objects(*BOX)
    for number in range(3):
        window = plain.window((101, 151), stored, number, DIGESTS[0])
        assert coloured.window((101, 151), stored, number, DIGESTS[0]) == window
        alike = torch.equal(*(views.pixels(grey, window, number, DIGESTS[0]) for views in (plain, coloured)))
        assert alike == (number == 0)
    assert plain.name(1) != coloured.name(1)


def test_preprocessing_with_a_divisor_is_stored_and_read():
    assert "divisor" not in preprocessing(divisor=1).to_dict()
    assert DetectionPreprocessing.from_dict(preprocessing().to_dict()) == preprocessing()
    assert preprocessing().prepared_size(480, 640) == (70, 98)
    assert preprocessing().prepared_size(3, 640) == (14, 98)
