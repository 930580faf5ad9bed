"""DETR's positions: by hand on a full grid, the same whatever an image is padded to."""

import math

import pytest
import torch
from torch.testing import assert_close

from regard.errors import RegardError
from regard.ops import masked_sine_positions


def real(height: int, width: int, rows: int, columns: int) -> torch.Tensor:
    mask = torch.zeros(1, height, width, dtype=torch.bool)
    mask[:, :rows, :columns] = True
    return mask


def test_a_full_grid_by_hand():
    table = masked_sine_positions(real(3, 5, 3, 5), 12).view(3, 5, 12)
    for row, column, channel in ((0, 0, 0), (1, 3, 2), (2, 4, 5), (2, 1, 7), (0, 2, 10)):
        place = (row + 1) / 3 if channel < 6 else (column + 1) / 5
        within = channel % 6
        angle = 2 * math.pi * place / 10_000 ** (2 * (within // 2) / 6)
        wave = math.sin(angle) if within % 2 == 0 else math.cos(angle)
        assert table[row, column, channel].item() == pytest.approx(wave, abs=2e-5)


def test_padding_changes_no_position_of_what_is_real():
    alone = masked_sine_positions(real(3, 5, 3, 5), 20).view(1, 3, 5, 20)
    padded = masked_sine_positions(real(7, 11, 3, 5), 20).view(1, 7, 11, 20)
    assert_close(padded[:, :3, :5], alone, rtol=0, atol=0)
    assert padded.isfinite().all()  # also where a row or a column is all padding


def test_bad_width():
    with pytest.raises(RegardError, match="multiple of 4, got 10"):
        masked_sine_positions(real(3, 5, 3, 5), 10)
