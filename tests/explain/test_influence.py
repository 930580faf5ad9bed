"""Influence: what it measures in cases that can be worked out, its arguments and its errors."""

import pytest
import torch
from torch.testing import assert_close

from regard.errors import RegardError
from regard.explain.influence import influence, influence_error
from regard.layers import Grid
from regard.mixers import create_mixer

EMBED_DIM, GRID = 6, Grid(2, 5, 1)


def mixer_and_tokens(name, **options):
    mixer = create_mixer(name, EMBED_DIM, num_heads=2, grid=GRID, options=options)
    return mixer.double(), torch.randn(3, GRID.num_tokens, EMBED_DIM, dtype=torch.float64)


def test_of_the_identity():
    """‖I‖ = √embed_dim at each token itself, and nothing elsewhere."""
    mixer, x = mixer_and_tokens("none")
    expected = EMBED_DIM**0.5 * torch.eye(GRID.num_tokens, dtype=torch.float64)
    for num_probes in (None, 1):
        assert_close(influence(mixer, x, num_probes=num_probes), expected.expand(3, -1, -1), rtol=1e-12, atol=0)


def test_of_a_linear_map_is_that_map_everywhere():
    """The transform's block for tokens m and n is cos(2π (mn/N + ed/D)) over channels e and d."""
    mixer, x = mixer_and_tokens("fourier")
    index, channel = torch.arange(11, dtype=torch.float64), torch.arange(6, dtype=torch.float64)
    turns = (index[:, None] * index / 11)[:, :, None, None] + channel[:, None] * channel / 6
    expected = (2 * torch.pi * turns).cos().square().sum((2, 3)).sqrt()
    assert_close(influence(mixer, x), expected.expand(3, -1, -1), rtol=1e-10, atol=1e-10)


def test_of_a_window_is_nothing_outside_it():
    mixer, x = mixer_and_tokens("local", window=3)
    pixels = influence(mixer, x, grid=GRID)[:, 1:, 1:]
    column = torch.arange(10) % 5
    near = (column[:, None] - column).abs() <= 1
    assert pixels[:, ~near].eq(0).all()
    assert pixels[:, near].gt(0).all()


def test_of_a_causal_mixer_is_nothing_in_the_future():
    mixer, x = mixer_and_tokens("attention", causal=True)
    future = torch.ones(11, 11, dtype=torch.bool).triu(1)
    for num_probes in (None, 5):
        out = influence(mixer, x, num_probes=num_probes)
        assert out[:, future].eq(0).all()
        assert out[:, ~future].gt(0).all()


def test_honours_mask_and_positions():
    mixer, x = mixer_and_tokens("attention")
    mask = torch.arange(11) < torch.tensor([[11], [7], [5]])
    positions = torch.randn_like(x)
    out = influence(mixer, x, mask=mask, positions=positions)
    hidden = ~mask[:, None, :].expand_as(out) & ~torch.eye(11, dtype=torch.bool)
    assert out[hidden].eq(0).all()
    assert out[1, 3, :7].gt(0).all()
    for i in range(3):
        alone = influence(mixer, x[i : i + 1], mask=mask[i : i + 1], positions=positions[i : i + 1])
        assert_close(out[i : i + 1], alone, rtol=1e-10, atol=1e-12)
    assert not torch.allclose(out, influence(mixer, x, mask=mask), rtol=1e-3)


@pytest.mark.parametrize("num_probes", [None, 3])
def test_tokens_picks_rows(num_probes):
    mixer, x = mixer_and_tokens("attention")
    rows = influence(mixer, x, tokens=[7, 0, -1], num_probes=num_probes)
    assert_close(rows, influence(mixer, x, num_probes=num_probes)[:, [7, 0, 10]], rtol=1e-12, atol=1e-12)


def test_the_estimate_comes_from_its_seed():
    mixer, x = mixer_and_tokens("attention")
    one, again, other = (influence(mixer, x, num_probes=3, seed=seed) for seed in (1, 1, 2))
    assert one.equal(again)
    assert not one.equal(other)


def test_the_square_of_the_estimate_is_unbiased():
    """Over 2,000 probes of one each, within five standard errors of the exact square."""
    mixer, x = mixer_and_tokens("attention")
    exact = influence(mixer, x[:1], tokens=[4]).square()
    squares = influence(mixer, x[:1].expand(2_000, -1, -1), tokens=[4], num_probes=1).square()
    assert ((squares.mean(0) - exact[0]).abs() < 5 * squares.std(0) / 2_000**0.5).all()


def test_leaves_no_gradient_behind_and_works_without_grad():
    mixer, x = mixer_and_tokens("attention")
    x.requires_grad_()
    with torch.no_grad():
        out = influence(mixer, x)
    assert out.isfinite().all()
    assert not out.requires_grad
    assert x.grad is None
    assert all(parameter.grad is None for parameter in mixer.parameters())


def test_error_bound():
    """1 / √(2 S): some 9% of 64 probes."""
    assert influence_error(64) == pytest.approx(0.0883883, rel=1e-5)
    assert influence_error(1) == pytest.approx(0.7071068, rel=1e-5)


@pytest.mark.parametrize("token", [11, -12])
def test_a_token_that_is_not_there(token):
    mixer, x = mixer_and_tokens("attention")
    with pytest.raises(RegardError, match=f"influence: token {token} is not one of 11"):
        influence(mixer, x, tokens=[0, token])


def test_no_probes():
    mixer, x = mixer_and_tokens("attention")
    with pytest.raises(RegardError, match="influence: num_probes must be at least 1, got 0"):
        influence(mixer, x, num_probes=0)


def test_the_mixers_own_errors_come_through():
    mixer, x = mixer_and_tokens("local")
    with pytest.raises(RegardError, match="local: needs a grid"):
        influence(mixer, x)
