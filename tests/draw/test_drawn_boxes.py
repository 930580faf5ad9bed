"""Boxes on a picture can be seen and read, whatever its size."""

import numpy as np
import pytest
import torch

from regard.draw.boxes import draw_boxes
from regard.draw.colours import COLOURS


def covered(size: tuple[int, int], text: float) -> float:
    """The fraction of a black picture that a box's frame and caption take."""
    height, width = size
    box = torch.tensor([[0.1 * width, 0.4 * height, 0.8 * width, 0.9 * height]])
    picture = draw_boxes(torch.zeros(3, *size, dtype=torch.uint8), box, [0], ["ant 0.93"], text=text)
    colour = tuple(int(COLOURS[0][start : start + 2], 16) for start in (1, 3, 5))
    return float((np.asarray(picture) == colour).all(-1).mean())


@pytest.mark.parametrize("size", [(97, 131), (601, 797), (1201, 1597)])
def test_text_is_a_fraction_of_the_picture(size):
    assert covered(size, 1 / 17) > 2 * covered(size, 1 / 40)
    assert covered(size, 1 / 17) == pytest.approx(covered((601, 797), 1 / 17), rel=0.15)


def test_a_small_picture_is_enlarged_by_a_whole_factor():
    nothing = torch.zeros(0, 4)
    assert draw_boxes(torch.zeros(3, 97, 131, dtype=torch.uint8), nothing, [], []).size == (4 * 131, 4 * 97)
    assert draw_boxes(torch.zeros(3, 401, 17, dtype=torch.uint8), nothing, [], []).size == (17, 401)
