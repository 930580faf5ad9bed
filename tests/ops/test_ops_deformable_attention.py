"""Deformable attention against its definition, one place at a time, and what it says of inputs that do not fit."""

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from regard.errors import RegardError
from regard.ops import deformable_attention

SHAPES = ((3, 7), (11, 2))
BATCH, HEADS, DIM, QUERIES, POINTS = 2, 3, 5, 13, 17


def inputs(dtype: torch.dtype = torch.float64, *, grad: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Some of the locations are outside of their map."""
    value = torch.randn(BATCH, HEADS, sum(h * w for h, w in SHAPES), DIM, dtype=dtype)
    locations = torch.rand(BATCH, HEADS, QUERIES, len(SHAPES), POINTS, 2, dtype=dtype) * 1.4 - 0.2
    weights = torch.randn(BATCH, HEADS, QUERIES, len(SHAPES), POINTS, dtype=dtype)
    return tuple(tensor.requires_grad_(grad) for tensor in (value, locations, weights))


def at(one: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """A map (height, width, dim) at (x, y) in [0, 1]: from the four tokens around, by how near their centres are."""
    height, width = one.shape[:2]
    column, row = x * width - 0.5, y * height - 0.5
    left, top = math.floor(column.detach()), math.floor(row.detach())
    found = one.new_zeros(one.shape[2])
    for i in (top, top + 1):
        for j in (left, left + 1):
            if 0 <= i < height and 0 <= j < width:
                found = found + one[i, j] * (1 - abs(row - i)) * (1 - abs(column - j))
    return found


def slow(value: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    rows = []
    for batch in range(value.shape[0]):
        for head in range(value.shape[1]):
            maps = value[batch, head].split([h * w for h, w in SHAPES])
            for query in range(locations.shape[2]):
                found = value.new_zeros(value.shape[3])
                for level, shape in enumerate(SHAPES):
                    one = maps[level].unflatten(0, shape)
                    for point in range(locations.shape[4]):
                        place = (batch, head, query, level, point)
                        found = found + weights[place] * at(one, *locations[place])
                rows.append(found)
    return torch.stack(rows).unflatten(0, (*value.shape[:2], -1))


def test_it_is_the_definition():
    given = inputs(grad=True)
    found, wanted = deformable_attention(given[0], SHAPES, *given[1:]), slow(*given)
    assert found.shape == (BATCH, HEADS, QUERIES, DIM)
    assert_close(found, wanted, rtol=1e-10, atol=1e-10)
    onto = torch.randn_like(found)
    for mine, theirs in zip(*(torch.autograd.grad(out, given, onto) for out in (found, wanted)), strict=True):
        assert_close(mine, theirs, rtol=1e-9, atol=1e-9)


def test_gradients_by_finite_differences():
    value = torch.randn(1, 2, 11, 3, dtype=torch.float64, requires_grad=True)
    locations = torch.rand(1, 2, 1, 2, 2, 2, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(1, 2, 1, 2, 2, dtype=torch.float64, requires_grad=True)
    shapes = [(2, 3), (5, 1)]
    assert torch.autograd.gradcheck(lambda v, p, w: deformable_attention(v, shapes, p, w), (value, locations, weights))


@pytest.mark.parametrize("far", [(-0.4, 0.5), (0.5, 1.6), (1.3, 0.1), (0.2, -9.0)])
def test_outside_of_a_map_there_are_zeros(far):
    value, locations, weights = inputs()
    locations[:] = torch.tensor(far, dtype=locations.dtype)
    assert deformable_attention(value, SHAPES, locations, weights).eq(0).all()


def test_at_the_centre_of_a_token_is_that_token():
    value, _, _ = inputs(torch.float32)
    locations = torch.tensor([[(4 + 0.5) / 7, (1 + 0.5) / 3], [-3.0, -3.0]]).view(1, 1, 1, 2, 1, 2)
    locations = locations.expand(BATCH, HEADS, 1, 2, 1, 2)
    found = deformable_attention(value, SHAPES, locations, torch.ones(BATCH, HEADS, 1, 2, 1))
    assert_close(found[:, :, 0], value[:, :, 1 * 7 + 4], rtol=1e-5, atol=1e-5)


def test_bfloat16_comes_out_as_it_came_in():
    value, locations, weights = inputs(torch.float32)
    wanted = deformable_attention(value, SHAPES, locations, weights)
    found = deformable_attention(value.bfloat16(), SHAPES, locations, weights)
    assert found.dtype == torch.bfloat16
    assert_close(found.float(), wanted, rtol=1e-2, atol=5e-2)


@pytest.mark.parametrize(
    ("shapes", "told"),
    [
        (((3, 7), (11, 3)), "have 54 tokens on 2 levels, got 43 tokens and locations on 2 levels"),
        (((43, 1),), "have 43 tokens on 1 levels, got 43 tokens and locations on 2 levels"),
    ],
)
def test_maps_that_do_not_belong_to_the_tokens(shapes, told):
    value, locations, weights = inputs()
    with pytest.raises(RegardError, match=told):
        deformable_attention(value, shapes, locations, weights)
