"""The attention stem (SASA, eq. 4): its definition, pixel by pixel."""

from inspect import unwrap

import pytest
import torch
from torch.autograd import gradcheck
from torch.testing import assert_close

from regard.errors import RegardError
from regard.layers import StemAttention2d
from regard.ops import stem_attention

BATCH, HEADS, DIM, CHANNELS, MIXTURES = 2, 3, 5, 7, 4


def inputs(height, width, rows, cols):
    shapes = [
        (BATCH, HEADS, DIM, height, width),
        (BATCH, HEADS, DIM, height, width),
        (BATCH, CHANNELS, height, width),
        (MIXTURES, HEADS, DIM, CHANNELS),
        (rows, cols, MIXTURES),
    ]
    return [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]


def by_hand(q, k, x, value_maps, mixture, scale):
    rows, cols = mixture.shape[:2]
    height, width = x.shape[2:]
    out = torch.zeros_like(q)
    for b in range(BATCH):
        for h in range(HEADS):
            for i in range(height):
                for j in range(width):
                    logits, values = [], []
                    for a in range(rows):
                        for c in range(cols):
                            y, z = i + a - rows // 2, j + c - cols // 2
                            if 0 <= y < height and 0 <= z < width:
                                share = mixture[a, c].softmax(0)
                                mixed = sum(share[m] * value_maps[m, h] for m in range(MIXTURES))
                                logits.append(q[b, h, :, i, j] @ k[b, h, :, y, z] * scale)
                                values.append(mixed @ x[b, :, y, z])
                    weights = torch.stack(logits).softmax(0)
                    out[b, h, :, i, j] = (weights[:, None] * torch.stack(values)).sum(0)
    return out


@pytest.mark.parametrize(("rows", "cols"), [(4, 4), (3, 2), (1, 5)])
def test_it_is_its_definition(rows, cols):
    parts = inputs(7, 5, rows, cols)
    assert_close(stem_attention(*parts), by_hand(*parts, DIM**-0.5))
    assert_close(stem_attention(*parts, scale=0.3), by_hand(*parts, 0.3))


def test_gradients_by_differences():
    assert gradcheck(stem_attention, inputs(3, 4, 2, 3), fast_mode=True)


def test_the_layer_learns_all_of_it():
    layer = StemAttention2d(3, 12, num_heads=3, window=4)
    out = layer(torch.randn(2, 3, 11, 13))
    assert out.shape == (2, 12, 11, 13)
    out.square().sum().backward()
    assert all(parameter.grad.ne(0).any() for parameter in layer.parameters())


def test_what_does_not_fit():
    q, k, x, maps, mixture = inputs(5, 7, 2, 2)
    with pytest.raises(RegardError, match="images of one size"):
        unwrap(stem_attention)(q, k[..., :5], x, maps, mixture)  # past the shape checker, which says so first
    with pytest.raises(RegardError, match=r"value_maps must be .* \(4, 3, 5, 7\), got \(3, 3, 5, 7\)"):
        unwrap(stem_attention)(q, k, x, maps[:3], mixture)
    with pytest.raises(RegardError, match="12 channels do not divide into 5 heads"):
        StemAttention2d(3, 12, num_heads=5)
    with pytest.raises(RegardError, match="window must be at least 1"):
        StemAttention2d(3, 12, num_heads=3, window=0)
