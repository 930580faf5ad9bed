"""The grid, patches, positions, and the block that every encoder repeats."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from regard.errors import RegardError
from regard.layers import MLP, Block, DropPath, Grid, LayerScale, LearnedPositions, Mixer, PatchEmbed, SinePositions
from regard.mixers import create_mixer
from regard.ops import resample_positions, sine_positions_2d

# Grid


@pytest.mark.parametrize("prefix", [0, 2])
def test_grid_counts_and_splits(prefix):
    grid = Grid(3, 7, prefix)
    assert grid.num_patches == 21
    assert grid.num_tokens == 21 + prefix
    x = torch.randn(5, grid.num_tokens, 11)
    first, picture = grid.split(x)
    assert first.equal(x[:, :prefix])
    assert picture.shape == (5, 3, 7, 11)
    for row in range(3):
        for col in range(7):
            assert picture[:, row, col].equal(x[:, prefix + 7 * row + col])


@pytest.mark.parametrize("sizes", [(0, 7), (3, 0), (-3, 7), (3, 7, -1)])
def test_grid_needs_sizes(sizes):
    with pytest.raises(RegardError, match=r"height and width must be at least 1 and prefix at least 0, got Grid\("):
        Grid(*sizes)


def test_grids_are_values():
    assert Grid(3, 7) == Grid(3, 7, 0)
    assert Grid(3, 7) != Grid(7, 3)
    assert len({Grid(3, 7), Grid(3, 7, 0), Grid(3, 7, 1)}) == 2


# Patches


def test_patch_embed_equals_unfolding():
    """Each patch, channel by channel and row by row, times the weights as a matrix; patches row by row."""
    embed = PatchEmbed(5, 3, 11).double()
    images = torch.randn(2, 3, 5 * 2, 5 * 7, dtype=torch.float64)
    out = embed(images)
    assert out.shape == (2, 2 * 7, 11)
    weight = embed.proj.weight.flatten(1)
    for row in range(2):
        for col in range(7):
            patch = images[:, :, 5 * row : 5 * row + 5, 5 * col : 5 * col + 5].flatten(1)
            assert_close(out[:, 7 * row + col], patch @ weight.T + embed.proj.bias, rtol=1e-10, atol=1e-12)


def test_patch_embed_gives_the_grid():
    assert PatchEmbed(5, 3, 11).grid(10, 35, prefix=2) == Grid(2, 7, 2)


@pytest.mark.parametrize("size", [(10, 36), (11, 35), (0, 35), (3, 5)])
def test_patches_must_tile_the_image(size):
    with pytest.raises(RegardError, match=f"{size[0]} × {size[1]} pixels is not whole patches of 5"):
        PatchEmbed(5, 3, 11).grid(*size)


def test_channels_must_be_those_of_the_model():
    with pytest.raises(RegardError, match="the images have 2 channels, the model takes 3"):
        PatchEmbed(5, 3, 11)(torch.randn(2, 2, 10, 35))


def test_patch_embed_flops():
    """14 patches of 3 × 5 × 5 values times a 75 × 11 matrix."""
    assert PatchEmbed(5, 3, 11).flops(Grid(2, 7, 1)) == 2 * 14 * 75 * 11


# Positions


def test_learned_positions_are_a_parameter_and_are_resampled():
    positions = LearnedPositions(Grid(3, 7, 2), 11)
    assert [name for name, _ in positions.named_parameters()] == ["table"]
    assert positions(Grid(3, 7, 2)).equal(positions.table)
    expected = resample_positions(positions.table, (3, 7), (5, 2), prefix=2)
    assert positions(Grid(5, 2, 2)).equal(expected)
    assert 0.01 < positions.table.std() < 0.03


def test_learned_positions_of_another_prefix():
    with pytest.raises(RegardError, match="a table of 23 tokens is not 1 \\+ 3 × 7"):
        LearnedPositions(Grid(3, 7, 2), 11)(Grid(3, 7, 1))


def test_sine_positions_leave_the_prefix_alone():
    positions = SinePositions(12)
    out = positions(Grid(3, 7, 2))
    assert out.shape == (1, 23, 12)
    assert out[:, :2].eq(0).all()
    assert out[0, 2:].equal(sine_positions_2d(3, 7, 12))
    assert positions.state_dict() == {}
    assert positions.double()(Grid(3, 7)).dtype == torch.float64


# The block


def test_layer_scale_multiplies_each_channel():
    scale, x = LayerScale(11, 0.1), torch.randn(2, 7, 11)
    assert_close(scale(x), 0.1 * x, rtol=1e-6, atol=1e-7)
    with torch.no_grad():
        scale.gamma.copy_(torch.arange(11.0))
    assert_close(scale(x), torch.arange(11.0) * x, rtol=1e-6, atol=1e-7)


def test_drop_path_leaves_out_whole_images():
    """What stays is scaled up, so that the mean stays: over 4,000 images, within four standard errors."""
    drop, images = DropPath(0.3), 4_000
    out = drop(torch.ones(images, 5, 7))
    kept = out[:, 0, 0] != 0
    assert_close(out, (kept / 0.7)[:, None, None].expand_as(out), rtol=1e-6, atol=0)
    assert abs(kept.float().mean() - 0.7) < 4 * (0.3 * 0.7 / images) ** 0.5


def test_drop_path_is_for_training():
    x = torch.randn(13, 5, 7)
    assert DropPath(0.9).eval()(x).equal(x)
    assert DropPath(0.0)(x).equal(x)
    assert not DropPath(0.9)(x).equal(x)


def test_mlp_is_two_maps_with_a_gelu_between():
    mlp, x = MLP(11, 17).double(), torch.randn(2, 7, 11, dtype=torch.float64)
    hidden = x @ mlp.fc1.weight.T + mlp.fc1.bias
    gelu = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
    assert_close(mlp(x), gelu @ mlp.fc2.weight.T + mlp.fc2.bias, rtol=1e-10, atol=1e-12)
    assert mlp.flops(Grid(2, 3, 1)) == 2 * 7 * 11 * 17 + 2 * 7 * 17 * 11


def block(layer_scale=None, drop_path=0.0):
    grid = Grid(3, 7, 1)
    mixer = create_mixer("attention", 55, num_heads=5, grid=grid)
    made = Block(55, mixer, mlp_ratio=1.5, drop_path=drop_path, layer_scale=layer_scale)
    return made, grid, torch.randn(2, grid.num_tokens, 55)


@pytest.mark.parametrize("layer_scale", [None, 0.3])
def test_block_is_two_residual_branches(layer_scale):
    made, grid, x = block(layer_scale)
    factor = 1.0 if layer_scale is None else layer_scale
    assert made.mlp.fc1.out_features == 82
    middle = x + factor * made.mixer(nn.functional.layer_norm(x, (55,), eps=1e-6), grid=grid)
    expected = middle + factor * made.mlp(nn.functional.layer_norm(middle, (55,), eps=1e-6))
    assert_close(made(x, grid=grid), expected, rtol=1e-5, atol=1e-5)


def test_block_hands_the_mask_to_its_mixer():
    made, grid, x = block()
    mask = (torch.arange(grid.num_tokens) < 13).expand(2, -1)
    changed = torch.where(mask[..., None], x, torch.randn_like(x))
    assert_close(
        made(changed, grid=grid, mask=mask)[:, :13], made(x, grid=grid, mask=mask)[:, :13], rtol=1e-5, atol=1e-5
    )
    assert not torch.allclose(made(changed, grid=grid)[:, :13], made(x, grid=grid)[:, :13], atol=1e-3)


def test_block_drops_both_branches_of_an_image_in_training():
    made, grid, x = block(drop_path=0.999)
    x = x[:1].expand(13, -1, -1)
    assert made.train()(x, grid=grid).equal(x)
    assert not made.eval()(x, grid=grid).equal(x)


def test_a_mixer_is_what_a_block_asks_for():
    made, grid, _ = block()
    assert isinstance(made.mixer, Mixer)
    assert not isinstance(nn.Linear(5, 5), Mixer)
    assert made.flops(grid) == made.mixer.flops(grid) + made.mlp.flops(grid)
