"""What every entry of MIXERS promises: a new mixer is tested by being there (and by its line in DOES_NOT_SUPPORT)."""

from contextlib import nullcontext

import pytest
import safetensors.torch
import torch
from torch.testing import assert_close

from regard.errors import RegardError
from regard.explain.influence import influence, influence_error
from regard.layers import Grid
from regard.mixers import MIXERS, create_mixer, mixer_options

# What a mixer refuses; everything else it honours. "gaps" is a mask with padding before real tokens.
DOES_NOT_SUPPORT = {
    "attention": set(),
    "local": {"no grid"},
    "performer": set(),
    "fourier": {"mask", "gaps", "positions"},
    "mlp": {"mask", "gaps", "positions", "other size"},
    "conv": {"no grid", "positions", "other prefix"},
    "lstm": {"gaps", "positions"},
    "none": {"positions"},
}
# Every mixer as it comes, and the variants that compute something else.
CASES = [(name, {}) for name in MIXERS] + [
    ("attention", {"causal": True}),
    ("attention", {"fused_qkv": False, "qkv_bias": False}),
    ("local", {"window": 3}),
    ("performer", {"causal": True, "num_features": 13}),
    ("fourier", {"ortho": True}),
    ("mlp", {"hidden_dim": 17}),
    ("conv", {"kernel_size": 5}),
    ("lstm", {"hidden_dim": 13}),
]


def those(*, where=lambda name: True, masks=(None,)):
    """A test for each case of the mixers that `where` picks, and, of those that have a place for one, each mask."""
    cases = [
        pytest.param(
            name, options, *([] if mask is None else [mask]), id=f"{name} {options or ''} {mask or ''}".strip()
        )
        for name, options in CASES
        for mask in masks
        if where(name) and not (mask and "mask" in DOES_NOT_SUPPORT.get(name, ()))
    ]
    return pytest.mark.parametrize(["name", "options", "with_mask"][: len(cases[0].values)], cases)


each_name = pytest.mark.parametrize("name", MIXERS)
each = those()
each_with_matrix = those(where=lambda name: hasattr(MIXERS[name], "mixing_matrix"))
each_with_and_without_mask = those(masks=(False, True))


def test_every_mixer_says_what_it_cannot_serve():
    assert DOES_NOT_SUPPORT.keys() == MIXERS.keys()


@each_name
def test_name_is_the_key(name):
    assert MIXERS[name].name == name


@each_name
def test_options_do_not_hold_what_the_model_gives(name):
    options = mixer_options(name)
    assert not {"self", "embed_dim", "num_heads", "num_tokens", "num_prefix"} & options.keys()
    given_again = create_mixer(name, 55, num_heads=5, grid=Grid(3, 7), options=options)
    assert isinstance(given_again, MIXERS[name])


@each
@pytest.mark.parametrize("prefix", [0, 1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_keeps_shape_and_dtype_and_is_finite(make, tokens, name, options, dtype, prefix):
    mixer, grid = make(name, options, prefix)
    x = tokens(grid, dtype=dtype)
    out = mixer.to(dtype)(x, grid=grid)
    assert out.shape == x.shape
    assert out.dtype == dtype
    assert out.isfinite().all()


@each
@pytest.mark.parametrize("prefix", [0, 1])
def test_bfloat16_is_near_float32(make, tokens, name, options, prefix):
    """Within five roundings of the output's size, root mean square."""
    mixer, grid = make(name, options, prefix)
    x = tokens(grid, dtype=torch.bfloat16)
    wide = mixer(x.float(), grid=grid)
    error = mixer.to(torch.bfloat16)(x, grid=grid).float() - wide
    assert error.norm() < 5 * 2**-8 * wide.norm()


@each
def test_autocast_is_near_float32(make, tokens, name, options):
    mixer, grid = make(name, options)
    x = tokens(grid)
    wide = mixer(x, grid=grid)
    with torch.autocast("cpu", torch.bfloat16):
        out = mixer(x, grid=grid)
    assert (out.float() - wide).norm() < 5 * 2**-8 * wide.norm()


@each
@pytest.mark.parametrize("prefix", [0, 1])
def test_every_parameter_has_a_gradient(make, tokens, name, options, prefix):
    mixer, grid = make(name, options, prefix)
    x = tokens(grid).requires_grad_()
    mixer(x, grid=grid).square().sum().backward()
    assert x.grad.ne(0).any(-1).all()
    for key, parameter in mixer.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        assert parameter.grad.ne(0).any(), key


@each_with_and_without_mask
def test_images_do_not_see_each_other(make, tokens, padding, name, options, with_mask):
    """Not to the bit: a matrix product picks its blocks, and so the order of its sums, by the number of rows."""
    mixer, grid = make(name, options)
    x = tokens(grid)
    mask = padding(grid) if with_mask else None
    together = mixer(x, grid=grid, mask=mask)
    for i in range(len(x)):
        alone = mixer(x[i : i + 1], grid=grid, mask=None if mask is None else mask[i : i + 1])
        assert_close(together[i : i + 1], alone, rtol=1e-5, atol=1e-5)


@each_with_matrix
@pytest.mark.parametrize("with_mask", [False, True])
@pytest.mark.parametrize("prefix", [0, 1])
def test_mixing_matrix_rebuilds_forward(make, tokens, padding, name, options, prefix, with_mask):
    """out(A value(x)), with rows of A that sum to one (or, where padding sees padding only, to zero)."""
    mixer, grid = make(name, options, prefix)
    x, mask = tokens(grid), padding(grid) if with_mask else None
    matrix = mixer.mixing_matrix(x, grid=grid, mask=mask)
    heads = matrix.shape[1]
    assert matrix.shape == (len(x), heads, grid.num_tokens, grid.num_tokens)
    assert_close(mixer.out(matrix @ mixer.value(x)), mixer(x, grid=grid, mask=mask), rtol=1e-4, atol=1e-5)
    assert matrix.ge(0).all()
    sums = matrix.sum(-1).transpose(1, 2)
    ones = sums > 0 if mask is None else (sums > 0) | mask[..., None]
    assert_close(sums, ones.float(), rtol=0, atol=1e-5)
    assert mask is not None or ones.all()
    if mask is not None and name != "none":
        assert matrix[~mask[:, None, None, :].expand_as(matrix)].eq(0).all()


@each_name
def test_a_mixing_matrix_comes_with_its_value_and_out(name):
    has = {part for part in ("mixing_matrix", "value", "out") if hasattr(MIXERS[name], part)}
    assert has in (set(), {"mixing_matrix", "value", "out"})


def small(make, tokens, name, options, prefix=1):
    """Small enough for a Jacobian, in float64."""
    mixer, grid = make(name, options, prefix, embed_dim=6, num_heads=2, height=2, width=3)
    return mixer.double(), grid, tokens(grid, embed_dim=6, dtype=torch.float64)


@each_with_and_without_mask
def test_influence_is_the_norm_of_the_jacobian(make, tokens, padding, name, options, with_mask):
    mixer, grid, x = small(make, tokens, name, options)
    mask = padding(grid, real=5) if with_mask else None
    rows = []
    for i in range(len(x)):
        one = None if mask is None else mask[i : i + 1]
        jacobian = torch.autograd.functional.jacobian(lambda t, one=one: mixer(t, grid=grid, mask=one), x[i : i + 1])
        rows.append(jacobian[0, :, :, 0].square().sum((1, 3)).sqrt())
    assert_close(influence(mixer, x, grid=grid, mask=mask), torch.stack(rows), rtol=1e-9, atol=1e-12)


@each
def test_influence_is_estimated_within_its_error(make, tokens, name, options):
    """Over all entries and three seeds, the root mean square of the relative errors; zero where there is nothing."""
    mixer, grid, x = small(make, tokens, name, options)
    exact = influence(mixer, x, grid=grid)
    num_probes = 64
    estimates = torch.stack([influence(mixer, x, grid=grid, num_probes=num_probes, seed=seed) for seed in range(3)])
    # A transform's entries may cancel to some 1e-16 of its largest: a relative error means nothing there.
    nothing = exact < 1e-12 * exact.max()
    assert estimates[:, nothing].le(1e-11 * exact.max()).all()
    assert estimates[:, exact == 0].eq(0).all()
    relative = estimates[:, ~nothing] / exact[~nothing] - 1
    assert relative.square().mean().sqrt() < 1.1 * influence_error(num_probes)


@each
@pytest.mark.parametrize("prefix", [0, 1])
def test_saved_and_loaded_it_gives_the_same_bits(make, tokens, name, options, prefix):
    """Into a mixer with other weights, and, where features are drawn from a seed, with another seed."""
    mixer, grid = make(name, options, prefix)
    x = tokens(grid)
    saved = safetensors.torch.save(mixer.state_dict())
    other, _ = make(name, options | ({"seed": 1} if "seed" in mixer_options(name) else {}), prefix)
    if mixer.state_dict():
        assert not other(x, grid=grid).equal(mixer(x, grid=grid))
    other.load_state_dict(safetensors.torch.load(saved), strict=True)
    assert other(x, grid=grid).equal(mixer(x, grid=grid))


@each
def test_twice_it_gives_the_same_bits(make, tokens, name, options):
    mixer, grid = make(name, options)
    x = tokens(grid)
    assert mixer(x, grid=grid).equal(mixer(x, grid=grid))


# What it does not support


def gaps(grid):
    mask = torch.ones(2, grid.num_tokens, dtype=torch.bool)
    mask[0, [0, 4, 5, 12]] = False
    return mask


def expect(name, case, pattern):
    """Raises that error, naming the mixer and the input, where the table says so, and nothing where not."""
    if case in DOES_NOT_SUPPORT[name]:
        return pytest.raises(RegardError, match=rf"^{name}: .*{pattern}")
    return nullcontext()


@each
@pytest.mark.parametrize("case", ["mask", "gaps"])
def test_mask_is_refused_or_honoured(make, tokens, padding, name, options, case):
    """Where honoured, what stands at padding does not reach a real token."""
    mixer, grid = make(name, options)
    x = tokens(grid)
    mask = gaps(grid) if case == "gaps" else padding(grid)
    changed = torch.where(mask[..., None], x, torch.randn_like(x) * 7)
    with expect(name, case, "(does not support a mask$|`mask` must be real tokens)"):
        before, after = (mixer(t, grid=grid, mask=mask) for t in (x, changed))
        assert_close(after[mask], before[mask], rtol=1e-6, atol=1e-6)
        assert before.isfinite().all()
        if name != "none" and not (case == "mask" and options.get("causal")):
            assert not torch.allclose(mixer(changed, grid=grid)[mask], mixer(x, grid=grid)[mask], atol=1e-3)


@each
def test_positions_are_refused_or_honoured(make, tokens, name, options):
    mixer, grid = make(name, options)
    x = tokens(grid)
    with expect(name, "positions", "does not support positions$"):
        placed = mixer(x, grid=grid, positions=torch.randn_like(x))
        assert not torch.allclose(placed, mixer(x, grid=grid), atol=1e-3)
        assert_close(mixer(x, grid=grid, positions=torch.zeros_like(x)), mixer(x, grid=grid), rtol=1e-5, atol=1e-6)


@each
def test_no_grid_is_refused_or_not_needed(make, tokens, name, options):
    mixer, grid = make(name, options)
    x = tokens(grid)
    with expect(name, "no grid", "needs a grid"):
        assert mixer(x).equal(mixer(x, grid=grid))


@each
def test_a_grid_of_other_tokens_is_refused(make, tokens, name, options):
    mixer, grid = make(name, options)
    with pytest.raises(RegardError, match=rf"^{name}: got 22 tokens, but the grid has 21: Grid\("):
        mixer(tokens(grid), grid=Grid(grid.height, grid.width))


@each
def test_another_image_size_is_refused_or_served(make, tokens, name, options):
    mixer, _ = make(name, options)
    other = Grid(5, 2, 1)
    with expect(name, "other size", "was built for 22 tokens and got 11"):
        assert mixer(tokens(other), grid=other).isfinite().all()


@each
def test_another_prefix_is_refused_or_served(make, tokens, name, options):
    """As many tokens, laid out otherwise: 2 + 4 × 5 in the place of 1 + 3 × 7."""
    mixer, _ = make(name, options)
    other = Grid(4, 5, 2)
    with expect(name, "other prefix", "was built for 1 prefix tokens, the grid has 2"):
        assert mixer(tokens(other), grid=other).isfinite().all()
