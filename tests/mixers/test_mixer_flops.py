"""Formulas of operations against counts by hand, and against PyTorch's counter where it sees the products."""

import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from regard.layers import Grid
from regard.mixers import MIXERS, create_mixer
from regard.ops import attention

# A width of 6 in 2 heads of 3; 1 + 2 × 5 = 11 tokens. A product of an a × b by a b × c matrix has 2abc operations.
GRID = Grid(2, 5, 1)
PROJECTIONS = 4 * (2 * 11 * 6 * 6)  # q, k, v and the output's
HAND_COUNTS = {
    # In each of 2 heads, q kᵀ is 11 × 3 by 3 × 11, and the weights times v 11 × 11 by 11 × 3.
    ("attention", ()): PROJECTIONS + 2 * (2 * 11 * 3 * 11) + 2 * (2 * 11 * 11 * 3),
    # 10 pixels see 2 × 3 pixels; the prefix sees 11 tokens and is seen by 10 more; q·k and weight times v for each.
    # q·r in 2 heads, for 10 pixels: 3 rows' embeddings of 1 channel, 3 columns' of 2.
    ("local", (("window", 3),)): PROJECTIONS
    + (10 * 2 * 3 + 11 + 10) * 2 * (2 * 3 + 2 * 3)
    + 2 * 10 * 2 * (3 * 1 + 3 * 2),
    # Exponents of q and of k, 11 × 3 by 3 × 7; φ(k)ᵀ v, 7 × 11 by 11 × 3; φ(q) times it, and times Σ φ(k), a 7 × 1.
    ("performer", (("num_features", 7),)): PROJECTIONS
    + 2 * (2 * (2 * 11 * 3 * 7) + 2 * 7 * 11 * 3 + 2 * 11 * 7 * 3 + 2 * 11 * 7 * 1),
    # 5 n log₂ n for n = 66 values.
    ("fourier", ()): round(5 * 66 * math.log2(66)),
    # For each of 6 channels 1 × 11 by 11 × 13, and back.
    ("mlp", (("hidden_dim", 13),)): 6 * (2 * 11 * 13 + 2 * 13 * 11),
    # 9 multiply-adds for 10 pixels of 6 channels; the mean of 10 pixels; two multiply-adds for the prefix token.
    ("conv", ()): 10 * 6 * 9 * 2 + 10 * 6 + 6 * 2 * 2,
    # 11 tokens in 2 directions: 4 gates of 13 from an input of 6 and a state of 13; then 26 -> 6.
    ("lstm", (("hidden_dim", 13),)): 11 * 2 * (4 * 13 * 6 * 2 + 4 * 13 * 13 * 2) + 11 * 26 * 6 * 2,
    ("none", ()): 0,
}


def build(name, options=(), grid=GRID):
    return create_mixer(name, 6, num_heads=2, grid=grid, options=dict(options))


def counted(function):
    counter = FlopCounterMode(display=False)
    with counter:
        function()
    return counter.get_total_flops()


def test_every_mixer_has_a_hand_count():
    assert {name for name, _ in HAND_COUNTS} == MIXERS.keys()


@pytest.mark.parametrize(("name", "options"), HAND_COUNTS)
def test_flops_equal_the_hand_count(name, options):
    assert build(name, options).flops(GRID) == HAND_COUNTS[name, options]


@pytest.mark.parametrize("prefix", [0, 1])
def test_attention_equals_the_counter(prefix):
    grid = Grid(2, 5, prefix)
    mixer, x = build("attention", grid=grid), torch.randn(1, grid.num_tokens, 6)
    assert counted(lambda: mixer.out(attention(*mixer.heads(x), impl="math"))) == mixer.flops(grid)


@pytest.mark.parametrize(("name", "options"), [("mlp", (("hidden_dim", 13),)), ("performer", (("num_features", 7),))])
def test_all_products_equal_the_counter(name, options):
    mixer, x = build(name, options), torch.randn(1, GRID.num_tokens, 6)
    assert counted(lambda: mixer(x, grid=GRID)) == mixer.flops(GRID)


def test_convolution_equals_the_counter():
    """Without a prefix, whose few products are no matrix products."""
    grid = Grid(2, 5)
    mixer, x = build("conv", (("kernel_size", 5),), grid), torch.randn(1, 10, 6)
    assert counted(lambda: mixer(x, grid=grid)) == mixer.flops(grid)


def test_projections_of_local_equal_the_counter():
    mixer, x = build("local"), torch.randn(1, GRID.num_tokens, 6)
    assert counted(lambda: mixer.out(mixer.heads(x)[0])) == mixer.projection_flops(GRID)


def test_local_with_a_window_of_all_pixels_has_the_products_of_attention():
    """And those with the offsets, on top."""
    grid = Grid(3, 3)
    offsets = 2 * 9 * 2 * (3 * 1 + 3 * 2)
    assert build("local", (("window", 3),), grid).flops(grid) == build("attention", (), grid).flops(grid) + offsets


@pytest.mark.parametrize("name", MIXERS)
def test_which_grow_with_the_square_of_the_tokens(name):
    """The claim of each paper, at sizes where the projections are small: 16 times the tokens at 4 times the side."""
    small, large = Grid(32, 32), Grid(128, 128)
    growth = build(name, grid=large).flops(large) / max(1, build(name, grid=small).flops(small))
    if name == "attention":
        assert growth > 200
    else:
        assert growth < 25
