"""Images as patches: there and back, in the order of the convolution that embeds them; and which are hidden."""

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from regard.layers import PatchEmbed
from regard.ops import hidden_patches, images_of, patches_of

BATCH, CHANNELS, SIZE, ROWS, COLUMNS = 2, 3, 5, 7, 11


def images() -> torch.Tensor:
    return torch.randn(BATCH, CHANNELS, ROWS * SIZE, COLUMNS * SIZE, dtype=torch.float64)


def test_each_patch_is_the_part_of_the_image_at_its_place():
    pictures = images()
    patches = patches_of(pictures, SIZE)
    assert patches.shape == (BATCH, ROWS * COLUMNS, CHANNELS * SIZE**2)
    for row in range(ROWS):
        for column in range(COLUMNS):
            part = pictures[:, :, row * SIZE : (row + 1) * SIZE, column * SIZE : (column + 1) * SIZE]
            assert torch.equal(patches[:, row * COLUMNS + column], part.flatten(1))


def test_there_and_back_is_the_same():
    pictures = images()
    assert torch.equal(images_of(patches_of(pictures, SIZE), SIZE, ROWS), pictures)
    patches = torch.randn(BATCH, ROWS * COLUMNS, CHANNELS * SIZE**2)
    assert torch.equal(patches_of(images_of(patches, SIZE, ROWS), SIZE), patches)


def test_the_gradient_of_a_patch_returns_to_its_place():
    pictures = images().requires_grad_()
    weights = torch.randn(BATCH, ROWS * COLUMNS, CHANNELS * SIZE**2, dtype=torch.float64)
    (patches_of(pictures, SIZE) * weights).sum().backward()
    assert torch.equal(pictures.grad, images_of(weights, SIZE, ROWS))


def test_their_values_are_in_the_order_of_the_convolution():
    pictures, weight, bias = images(), torch.randn(13, CHANNELS, SIZE, SIZE).double(), torch.randn(13).double()
    wanted = F.conv2d(pictures, weight, bias, stride=SIZE).flatten(2).transpose(1, 2)
    assert_close(patches_of(pictures, SIZE) @ weight.flatten(1).T + bias, wanted)
    embed = PatchEmbed(SIZE, CHANNELS, 13).double()
    found = F.linear(patches_of(pictures, SIZE), embed.proj.weight.flatten(1), embed.proj.bias)
    assert_close(found, embed(pictures))


@pytest.mark.parametrize("count", [2, 3, 7, 49, 97])
@pytest.mark.parametrize("fraction", [1e-9, 0.2, 0.5, 0.6, 0.75, 1 - 1e-9])
def test_so_many_patches_are_hidden_and_each_image_has_some_of_both_kinds(count, fraction):
    order = torch.stack([torch.randperm(count) for _ in range(5)])
    visible, hidden = hidden_patches(order, fraction)
    assert 1 <= visible.shape[1] <= count - 1
    assert abs(visible.shape[1] - min(max(count * (1 - fraction), 1), count - 1)) <= 0.5
    assert torch.equal(visible, order[:, : visible.shape[1]])
    for places, unseen in zip(visible.tolist(), hidden.tolist(), strict=True):
        assert [place for place in range(count) if not unseen[place]] == sorted(places)


def test_what_mae_and_simmim_hide_of_a_photograph():
    """Of 14 × 14 patches MAE keeps 49 (He et al. 2022); SimMIM hides 0.6 of 6 × 6 (Xie et al. 2022)."""
    assert hidden_patches(torch.randperm(196)[None], 0.75)[0].shape == (1, 49)
    assert hidden_patches(torch.randperm(36)[None], 0.6)[1].sum() == 22


def test_an_image_of_one_patch_hides_nothing():
    """It would otherwise have no visible token, which no encoder takes."""
    visible, hidden = hidden_patches(torch.zeros(3, 1, dtype=torch.int64), 0.75)
    assert visible.shape == (3, 1)
    assert not hidden.any()
