"""What sets one mixer apart from another: causality, cached decoding, symmetries, padding, positions."""

import pytest
import torch
from torch.testing import assert_close

from regard.errors import RegardError
from regard.layers import Grid
from regard.mixers import MIXERS, Mixer, create_mixer, mixer_options

CAUSAL = [name for name in MIXERS if "causal" in mixer_options(name)]


def test_which_mixers_can_be_causal():
    assert CAUSAL == ["attention", "performer"]
    assert [name for name in MIXERS if MIXERS[name].step is not Mixer.step] == CAUSAL


@pytest.mark.parametrize("token", [0, 10, 70])
@pytest.mark.parametrize("name", CAUSAL)
def test_the_past_does_not_feel_the_future(make, tokens, name, token):
    """To the bit."""
    mixer, grid = make(name, {"causal": True}, height=11)
    x = tokens(grid)
    before = mixer(x)
    x[:, token + 1 :] = torch.randn_like(x[:, token + 1 :])
    after = mixer(x)
    assert after[:, : token + 1].equal(before[:, : token + 1])
    assert not torch.isclose(after[:, token + 1 :], before[:, token + 1 :]).all(-1).any()


@pytest.mark.parametrize("sizes", [[1] * 78, [1, 64, 13]], ids=["tokens", "uneven"])
@pytest.mark.parametrize("name", CAUSAL)
def test_steps_equal_forward(make, tokens, name, sizes):
    mixer, grid = make(name, {"causal": True}, height=11)
    x = tokens(grid)
    state, outs = None, []
    for piece in x.split(sizes, dim=1):
        out, state = mixer.step(piece, state)
        outs.append(out)
    assert_close(torch.cat(outs, dim=1), mixer(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", CAUSAL)
def test_only_a_causal_mixer_steps(make, tokens, name):
    mixer, grid = make(name)
    with pytest.raises(RegardError, match=f"{name}.*causal"):
        mixer.step(tokens(grid))


@pytest.mark.parametrize("name", ["attention", "performer", "none"])
def test_without_positions_tokens_have_no_order(make, tokens, name):
    mixer, grid = make(name)
    x, order = tokens(grid), torch.randperm(grid.num_tokens)
    assert_close(mixer(x[:, order]), mixer(x)[:, order], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["local", "fourier", "mlp", "conv", "lstm"])
def test_with_places_of_their_own_tokens_have_an_order(make, tokens, name):
    mixer, grid = make(name, prefix=0)
    x, order = tokens(grid), torch.randperm(grid.num_tokens)
    assert not torch.allclose(mixer(x[:, order], grid=grid), mixer(x, grid=grid)[:, order], atol=1e-2)


@pytest.mark.parametrize(("name", "options"), [("local", {"window": 3}), ("conv", {"kernel_size": 3})])
@pytest.mark.parametrize(("down", "right"), [(1, 0), (0, 2), (2, 3)])
def test_a_picture_that_moves_moves_the_output(make, tokens, name, options, down, right):
    """Translation equivariance, but for the pixels that have another neighbourhood, which are at the border."""
    mixer, grid = make(name, options, prefix=0, height=11, width=13)
    picture = tokens(grid).unflatten(1, (11, 13))
    moved = torch.zeros_like(picture)
    moved[:, down:, right:] = picture[:, : 11 - down, : 13 - right]
    out, out_moved = (mixer(t.flatten(1, 2), grid=grid).unflatten(1, (11, 13)) for t in (picture, moved))
    actual, expected = out_moved[:, down + 1 : -1, right + 1 : -1], out[:, 1 : 10 - down, 1 : 12 - right]
    assert_close(actual, expected, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(out_moved, out, atol=1e-2)


@pytest.mark.parametrize("name", ["attention", "local", "performer"])
def test_fused_and_separate_projections_are_one_function(make, tokens, name):
    """With the same weights, with positions and without."""
    fused, grid = make(name)
    separate, _ = make(name, {"fused_qkv": False})
    weights = dict(fused.state_dict())
    for kind in ("weight", "bias"):
        for part, rows in zip("qkv", weights.pop(f"qkv.{kind}").chunk(3), strict=True):
            weights[f"{part}.{kind}"] = rows
    separate.load_state_dict(weights, strict=True)
    x = tokens(grid)
    for positions in (None, torch.randn_like(x)):
        outs = [mixer(x, grid=grid, positions=positions) for mixer in (fused, separate)]
        assert_close(*outs, rtol=1e-4, atol=1e-5)
        if hasattr(fused, "mixing_matrix"):
            matrices = [mixer.mixing_matrix(x, grid=grid, positions=positions) for mixer in (fused, separate)]
            assert_close(*matrices, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("fused_qkv", [True, False])
@pytest.mark.parametrize("name", ["attention", "local", "performer"])
def test_positions_go_to_queries_and_keys_not_to_values(make, tokens, name, fused_qkv):
    mixer, grid = make(name, {"fused_qkv": fused_qkv})
    x = tokens(grid)
    positions = torch.randn_like(x)
    placed_q, placed_k, placed_v = mixer.heads(x, positions)
    q, k, _ = mixer.heads(x + positions)
    assert_close(placed_q, q, rtol=1e-5, atol=1e-5)
    assert_close(placed_k, k, rtol=1e-5, atol=1e-5)
    assert placed_v.equal(mixer.value(x))
    matrix = mixer.mixing_matrix(x, grid=grid, positions=positions)
    rebuilt = mixer.out(matrix @ mixer.value(x))
    assert_close(rebuilt, mixer(x, grid=grid, positions=positions), rtol=1e-4, atol=1e-5)


def test_attention_and_local_agree_where_the_window_holds_the_picture(make, tokens):
    """They share their projections: with offsets of zero, one takes the other's place in a trained model."""
    attention, grid = make("attention")
    local, _ = make("local", {"window": 13})
    weights = attention.state_dict() | {key: torch.zeros(13, size) for key, size in (("rel_rows", 5), ("rel_cols", 6))}
    local.load_state_dict(weights, strict=True)
    x = tokens(grid)
    assert_close(local(x, grid=grid), attention(x, grid=grid), rtol=1e-4, atol=1e-5)


def test_many_features_make_performer_near_attention(make, tokens):
    attention, grid = make("attention")
    performer, _ = make("performer", {"num_features": 4_000})
    weights = attention.state_dict() | {"projection": performer.projection}
    performer.load_state_dict(weights, strict=True)
    x = 0.5 * tokens(grid)
    exact, few = attention(x), make("performer", {"num_features": 7})[0]
    few.load_state_dict(attention.state_dict() | {"projection": few.projection}, strict=True)
    assert (performer(x) - exact).norm() < 0.02 * exact.norm()
    assert (performer(x) - exact).norm() < 0.3 * (few(x) - exact).norm()


@pytest.mark.parametrize("name", ["attention", "local", "performer", "lstm"])
def test_padding_is_as_good_as_absence(make, tokens, padding, name):
    """A padded sequence gives what it gives alone; one row of tokens, so that both lie on a grid."""
    mixer, grid = make(name, height=1, width=17)
    x, mask = tokens(grid), padding(grid, real=11)
    out = mixer(x, grid=grid, mask=mask)
    assert_close(out[1:], mixer(x[1:], grid=grid), rtol=1e-5, atol=1e-5)
    assert_close(out[:1, :11], mixer(x[:1, :11], grid=Grid(1, 10, 1)), rtol=1e-5, atol=1e-5)


def test_lstm_gives_its_bias_at_padding(make, tokens, padding):
    mixer, grid = make("lstm")
    mask = padding(grid)
    out = mixer(tokens(grid), grid=grid, mask=mask)
    assert_close(out[~mask], mixer.proj.bias.expand(int((~mask).sum()), -1), rtol=0, atol=1e-6)


@pytest.mark.parametrize("real", [[], [1, 2], [0, 2]], ids=["nothing", "gap first", "gap between"])
def test_lstm_refuses_a_mask_that_it_cannot_pack(make, tokens, real):
    mixer, grid = make("lstm")
    mask = torch.ones(2, grid.num_tokens, dtype=torch.bool)
    mask[1] = False
    mask[1, real] = True
    with pytest.raises(RegardError, match="lstm: `mask` must be real tokens, at least one, and then padding"):
        mixer(tokens(grid), grid=grid, mask=mask)


def test_conv_pads_with_zeros_and_averages_real_pixels_for_its_prefix(make, tokens, padding):
    mixer, grid = make("conv")
    x, mask = tokens(grid, dtype=torch.float64), padding(grid)
    mixer = mixer.double()
    out = mixer(x, grid=grid, mask=mask)
    pixels = (x * mask[..., None])[:, 1:].unflatten(1, (grid.height, grid.width))
    weight, bias = mixer.depthwise.weight[:, 0], mixer.depthwise.bias
    expected = bias.expand_as(pixels).clone()
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            for row in range(max(0, -down), min(grid.height, grid.height - down)):
                for col in range(max(0, -right), min(grid.width, grid.width - right)):
                    expected[:, row, col] += weight[:, down + 1, right + 1] * pixels[:, row + down, col + right]
    assert_close(out[:, 1:], expected.flatten(1, 2), rtol=1e-10, atol=1e-12)
    means = torch.stack([x[i, 1:][mask[i, 1:]].mean(0) for i in range(len(x))])
    assert_close(out[:, 0], mixer.prefix_self * x[:, 0] + mixer.prefix_mean * means, rtol=1e-10, atol=1e-12)


def test_fourier_with_ortho_keeps_the_scale(make, tokens):
    """Parseval: the real and the imaginary part of the transform share the energy of the input."""
    mixer, grid = make("fourier", {"ortho": True})
    plain, _ = make("fourier")
    x = tokens(grid, dtype=torch.float64)
    transform = torch.fft.fft2(x, norm="ortho")
    assert_close(mixer(x), transform.real, rtol=1e-10, atol=1e-10)
    assert_close(transform.abs().square().sum(), x.square().sum(), rtol=1e-10, atol=0)
    assert_close(plain(x), mixer(x) * (grid.num_tokens * x.shape[2]) ** 0.5, rtol=1e-10, atol=1e-10)


def test_performer_draws_its_features_from_its_seed(make):
    first, again, other = (make("performer", {"seed": seed})[0].projection for seed in (3, 3, 4))
    assert first.equal(again)
    assert not first.equal(other)
    assert first.shape == (22, 11)


# Building


def test_options_of_each_mixer():
    """What the command line and the tables list."""
    heads = {"qkv_bias": True, "fused_qkv": True}
    assert {name: mixer_options(name) for name in MIXERS} == {
        "attention": {**heads, "causal": False},
        "local": {"window": 7, **heads},
        "performer": {
            "num_features": None,
            "kind": "softmax_positive",
            "redraw_every": 0,
            "seed": 0,
            **heads,
            "causal": False,
        },
        "fourier": {"ortho": False},
        "mlp": {"hidden_dim": None},
        "conv": {"kernel_size": 3},
        "lstm": {"hidden_dim": None},
        "none": {},
    }


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "atention",
            {},
            r"^unknown mixer 'atention'; did you mean 'attention'\? Known: attention, conv, fourier, local",
        ),
        ("zzz", {}, r"^unknown mixer 'zzz'\. Known: attention, conv"),
        (
            "local",
            {"windw": 3},
            r"^mixer local: unknown option 'windw'; did you mean 'window'\? Known: fused_qkv, qkv_b",
        ),
        ("local", {"num_heads": 3}, r"^mixer local: unknown option 'num_heads'"),
        ("none", {"window": 3}, r"^mixer none: takes no options, got 'window'"),
        ("local", {"window": 4}, r"^local: window must be odd and at least 1, got 4"),
        ("conv", {"kernel_size": 0}, r"^conv: kernel_size must be odd and at least 1, got 0"),
        ("performer", {"num_features": 0}, r"^mixer performer: num_features: input should be greater than 0, got 0"),
    ],
)
def test_errors_of_create_mixer(name, options, message):
    with pytest.raises(RegardError, match=message):
        create_mixer(name, 55, num_heads=5, grid=Grid(3, 7), options=options)


@pytest.mark.parametrize("num_heads", [7, 0, -5])
@pytest.mark.parametrize("name", ["attention", "local", "performer"])
def test_heads_must_divide_the_width(name, num_heads):
    with pytest.raises(RegardError, match=f"{name}: embed_dim 55 does not divide into num_heads {num_heads}"):
        create_mixer(name, 55, num_heads=num_heads, grid=Grid(3, 7))


def test_options_are_not_changed():
    options = {"window": 5}
    create_mixer("local", 55, num_heads=5, grid=Grid(3, 7), options=options)
    assert options == {"window": 5}
