"""Sine tables against their formula; resampled tables against timm's."""

import math

import pytest
import torch
from timm.layers import resample_abs_pos_embed
from torch.testing import assert_close

from regard.errors import RegardError
from regard.ops import resample_positions, sine_boxes, sine_positions, sine_positions_2d


@pytest.mark.parametrize(("height", "width", "embed_dim"), [(3, 7, 20), (5, 2, 4)])
def test_sine_table_equals_the_formula(height, width, embed_dim):
    table = sine_positions_2d(height, width, embed_dim, temperature=100.0)
    quarter = embed_dim // 4
    omegas = [100.0 ** -(i / max(quarter - 1, 1)) for i in range(quarter)]
    expected = [
        [wave(angle * omega) for angle in (y, x) for wave in (math.sin, math.cos) for omega in omegas]
        for y in range(height)
        for x in range(width)
    ]
    assert_close(table, torch.tensor(expected), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("embed_dim", [4, 20])
def test_sine_table_tells_all_positions_apart(embed_dim):
    table = sine_positions_2d(37, 41, embed_dim)
    assert len(table.unique(dim=0)) == 37 * 41
    assert torch.pdist(table).min() > 1e-2


def test_sine_table_has_its_slowest_wave_at_the_temperature():
    table = sine_positions_2d(3, 2, 20, temperature=10_000.0)
    assert_close(table[2 * 2, 4], torch.tensor(2 / 10_000).sin(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("embed_dim", [6, 7, 1])
def test_sine_table_needs_a_multiple_of_four(embed_dim):
    with pytest.raises(RegardError, match=f"multiple of 4, got {embed_dim}"):
        sine_positions_2d(3, 5, embed_dim)


@pytest.mark.parametrize("prefix", [0, 2])
def test_resampling_to_the_same_grid_changes_nothing(prefix):
    table = torch.randn(1, prefix + 15, 11)
    assert resample_positions(table, (3, 5), (3, 5), prefix=prefix).equal(table)


@pytest.mark.parametrize("new", [(5, 3), (2, 2), (7, 11), (1, 13)])
@pytest.mark.parametrize("prefix", [0, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_resampling_equals_timm(dtype, prefix, new):
    table = torch.randn(1, prefix + 15, 11, dtype=dtype)
    out = resample_positions(table, (3, 5), new, prefix=prefix)
    expected = resample_abs_pos_embed(table, list(new), [3, 5], num_prefix_tokens=prefix)
    assert out.shape == (1, prefix + new[0] * new[1], 11)
    assert out.dtype == dtype
    assert_close(out, expected, rtol=1e-6, atol=1e-6)
    assert out[:, :prefix].equal(table[:, :prefix])


@pytest.mark.parametrize("new", [(5, 3), (2, 2), (7, 11)])
def test_a_constant_table_stays_constant(new):
    """Every channel has a constant of its own; the prefix another."""
    constants = torch.randn(11)
    table = torch.cat([torch.randn(1, 2, 11), constants.expand(1, 15, -1)], dim=1)
    out = resample_positions(table, (3, 5), new, prefix=2)
    assert_close(out[0, 2:], constants.expand(new[0] * new[1], -1), rtol=1e-5, atol=1e-6)


def test_resampling_keeps_height_and_width_apart():
    """A table that grows down the rows grows down the rows of the new grid, and is constant along them."""
    table = torch.arange(3.0)[:, None, None].expand(3, 5, 11).reshape(1, 15, 11)
    out = resample_positions(table, (3, 5), (7, 13))[0].unflatten(0, (7, 13))
    assert out.diff(dim=0).gt(0).all()
    assert_close(out, out[:, :1].expand(-1, 13, -1), rtol=0, atol=1e-5)


def test_gradients_reach_the_table():
    table = torch.randn(1, 17, 11, requires_grad=True)
    (gradient,) = torch.autograd.grad(resample_positions(table, (3, 5), (5, 7), prefix=2).sum(), table)
    assert gradient.ne(0).all()


@pytest.mark.parametrize("prefix", [0, 1])
def test_a_table_of_another_grid(prefix):
    with pytest.raises(RegardError, match=f"a table of 17 tokens is not {prefix} \\+ 3 × 5"):
        resample_positions(torch.randn(1, 17, 11), (3, 5), (7, 7), prefix=prefix)


def test_sine_positions_are_the_papers():
    """Vaswani et al. 2017, section 3.5, written out."""
    table = sine_positions(13, 22)
    for position in range(13):
        for i in range(11):
            angle = position / 10_000 ** (2 * i / 22)
            assert table[position, 2 * i].item() == pytest.approx(math.sin(angle), abs=1e-7)
            assert table[position, 2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-7)
    assert sine_positions(6, 22, start=7).equal(table[7:])
    with pytest.raises(RegardError, match="embed_dim must be even, got 7"):
        sine_positions(3, 7)


@pytest.mark.parametrize(("embed_dim", "temperature"), [(4, 10_000.0), (20, 20.0)])
def test_sine_boxes_are_the_papers(embed_dim, temperature):
    """DAB-DETR, eq. 6 and 7, written out: half of the channels for each of cx, cy, w and h."""
    boxes = torch.rand(3, 5, 4)
    found = sine_boxes(boxes, embed_dim, temperature=temperature)
    assert found.shape == (3, 5, 2 * embed_dim)
    half = embed_dim // 2
    for box, row in zip(boxes.flatten(0, 1).tolist(), found.flatten(0, 1), strict=True):
        wanted = []
        for coordinate in box:
            for i in range(half // 2):
                angle = 2 * math.pi * coordinate / temperature ** (2 * i / half)
                wanted += [math.sin(angle), math.cos(angle)]
        assert_close(row, torch.tensor(wanted), rtol=1e-5, atol=1e-5)


def test_sine_boxes_are_in_float32_and_have_gradients():
    boxes = torch.rand(7, 4, dtype=torch.bfloat16)
    assert sine_boxes(boxes, 8).dtype == torch.float32
    assert torch.equal(sine_boxes(boxes, 8), sine_boxes(boxes.float(), 8))
    boxes = torch.rand(7, 4, requires_grad=True)
    (gradient,) = torch.autograd.grad(sine_boxes(boxes, 8).sum(), boxes)
    assert gradient.ne(0).all()
    with pytest.raises(RegardError, match="embed_dim must be a multiple of 4, got 6"):
        sine_boxes(boxes, 6)
