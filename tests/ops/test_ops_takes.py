"""What the ops take, alike on all their paths: dtypes, devices, shapes, integers; and that nothing else comes in."""

import subprocess
import sys

import jaxtyping
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from regard.errors import RegardError
from regard.layers import LocalAttention2d
from regard.mixers import create_mixer
from regard.ops import (
    attention,
    attention_weights,
    deformable_attention,
    favor_attention,
    favor_step,
    favor_weights,
    fourier_mixing,
    local_attention,
    local_attention_weights,
    native_state,
    resample_positions,
    sine_boxes,
    stem_attention,
)
from regard.ops.arguments import FLOATS

IMPLS = ["auto", "math", "blocked", "native", "flex", "natten"]


@pytest.fixture(autouse=True)
def _without_the_shape_checker() -> None:
    """It would say so first; what is tested here are the package's own checks."""
    jaxtyping.config.update("jaxtyping_disable", True)


def pixels(count: int = 3, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    return [torch.randn(2, 3, 5, 6, 8, dtype=dtype) for _ in range(count)]


def extras(dtype: torch.dtype = torch.float32) -> dict[str, object]:
    return {
        "rel_rows": torch.randn(3, 3, dtype=dtype),
        "rel_cols": torch.randn(3, 5, dtype=dtype),
        "bias": torch.randn(3, 3, 3, dtype=dtype),
        "prefix": tuple(torch.randn(2, 3, 2, 8, dtype=dtype) for _ in range(3)),
    }


OTHERS = [torch.float64, torch.float16, torch.bfloat16]
PARTS = ["k", "v", "rel_rows", "rel_cols", "bias", "k of the prefix"]


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("part", PARTS)
def test_local_attention_takes_one_dtype(impl, part):
    for other in OTHERS:
        q, k, v = pixels()
        given = {"q": q, "k": k, "v": v, **extras()}
        if part == "k of the prefix":
            given["prefix"] = (given["prefix"][0], given["prefix"][1].to(other), given["prefix"][2])
        else:
            given[part] = given[part].to(other)
        told = f"local attention: {part} is {str(other).removeprefix('torch.')}, but must be float32, as q is"
        with pytest.raises(RegardError) as caught:
            local_attention(**given, window=3, impl=impl)
        assert str(caught.value) == told


def heads(tokens: int = 5) -> list[Tensor]:
    return [torch.randn(2, 3, tokens, 8) for _ in range(3)]


def stem() -> dict[str, Tensor]:
    q, k = torch.randn(2, 2, 3, 4, 5, 6)
    return {
        "q": q, "k": k, "x": torch.randn(2, 7, 5, 6),
        "value_maps": torch.randn(2, 3, 4, 7), "mixture": torch.randn(4, 4, 2),
    }  # fmt: skip


def deformable() -> dict[str, Tensor]:
    return {
        "value": torch.randn(2, 3, 6, 4),
        "locations": torch.rand(2, 3, 5, 1, 2, 2),
        "weights": torch.rand(2, 3, 5, 1, 2),
    }


OPS = {
    "attention": (attention, lambda: dict(zip("qkv", heads(), strict=True)) | {"bias": torch.randn(5, 5)}, {}),
    "attention, math": (attention, lambda: dict(zip("qkv", heads(), strict=True)), {"impl": "math"}),
    "weights": (attention_weights, lambda: dict(zip("qk", heads(), strict=False)), {}),
    "local weights": (
        local_attention_weights,
        lambda: dict(zip("qk", heads(6), strict=False)),
        {"height": 2, "width": 3, "window": 3},
    ),
    "favor": (favor_attention, lambda: dict(zip("qkv", heads(), strict=True)), {"projection": torch.randn(4, 8)}),
    "favor, chunked": (
        favor_attention,
        lambda: dict(zip("qkv", heads(), strict=True)),
        {"projection": torch.randn(4, 8), "impl": "chunked"},
    ),
    "favor weights": (favor_weights, lambda: dict(zip("qk", heads(), strict=False)), {"projection": torch.randn(4, 8)}),
    "favor step": (
        favor_step,
        lambda: dict(zip("qkv", heads(), strict=True)) | {"state": None},
        {"projection": torch.randn(4, 8)},
    ),
    "stem": (stem_attention, stem, {}),
    "deformable": (deformable_attention, deformable, {"shapes": [(2, 3)]}),
    "fourier": (fourier_mixing, lambda: {"x": torch.randn(2, 5, 8)}, {}),
    "sine boxes": (sine_boxes, lambda: {"boxes": torch.rand(5, 4)}, {"embed_dim": 8}),
    "positions": (resample_positions, lambda: {"table": torch.randn(1, 6, 4)}, {"old": (2, 3), "new": (3, 3)}),
}


@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("wrong", [torch.int64, torch.bool, torch.complex64, "sparse", "list"])
def test_numbers_are_floating_and_dense(name, wrong):
    op, make, options = OPS[name]
    for part, tensor in make().items():
        if tensor is None:
            continue
        spoilt = tensor.tolist() if wrong == "list" else tensor.to_sparse() if wrong == "sparse" else tensor.to(wrong)
        with pytest.raises(RegardError, match=f"{part} must be a dense tensor of float") as caught:
            op(**{**make(), part: spoilt}, **options)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [name for name in OPS if name not in ("fourier", "sine boxes", "positions")])
def test_all_are_of_one_dtype_and_on_one_device(name):
    op, make, options = OPS[name]
    _, *rest = (part for part, tensor in make().items() if tensor is not None)
    for part in rest:
        with pytest.raises(RegardError, match=rf"{part} (is float64, but must be float32|must be .* float32)"):
            op(**make() | {part: make()[part].double()}, **options)
        with pytest.raises(RegardError, match=f"{part} is on meta, but must be on cpu, as .*"):
            op(**make() | {part: make()[part].to("meta")}, **options)


@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("dtype", FLOATS)
def test_every_floating_dtype_comes_out_as_it_came_in(name, dtype):
    op, make, options = OPS[name]
    wide = {k: v if v is None else v.double() for k, v in make().items()}
    given = {k: v if v is None else v.to(dtype) for k, v in wide.items()}
    found, exact = (op(**one, **options) for one in (given, wide))
    found, exact = (one[0] if isinstance(one, tuple) else one for one in (found, exact))
    assert found.dtype == (torch.float32 if name == "sine boxes" else dtype)
    near = {torch.bfloat16: 0.2, torch.float16: 0.03}.get(dtype, 1e-4)
    assert_close(found.double(), exact.double(), rtol=near, atol=near)


WHOLE = [3.0, True, "3", None, torch.tensor(3), (3, 3.0), (3, 3, 3), (), (3, True)]


@pytest.mark.parametrize("impl", ["auto", "math", "blocked", "native"])
@pytest.mark.parametrize("window", WHOLE, ids=repr)
def test_windows_are_odd_integers(impl, window):
    with pytest.raises(RegardError, match=r"local attention: window must be .*odd integer"):
        local_attention(*pixels(), window=window, impl=impl)


@pytest.mark.parametrize("dilation", [2.0, True, "2", None, torch.tensor(2), 0, -(2**70)], ids=repr)
def test_dilations_are_integers(dilation):
    with pytest.raises(RegardError, match=r"dilation .* must be an integer of at least 1"):
        local_attention(*pixels(), window=3, dilation=dilation)


@pytest.mark.parametrize("scale", ["0.5", True, torch.tensor(0.5), 1j])
def test_scales_are_numbers(scale):
    for op, given in ((local_attention, {"window": 3}), (attention, {})):
        tensors = pixels() if given else heads()
        with pytest.raises(RegardError, match="attention: scale must be a number, got"):
            op(*tensors, scale=scale, **given)
    with pytest.raises(RegardError, match="stem attention: scale must be a number, got"):
        stem_attention(**stem(), scale=scale)


@pytest.mark.parametrize("impl", ["auto", "math", "blocked", "native"])
@pytest.mark.parametrize(
    ("rows", "cols", "told"),
    [
        ((3, 0), (3, 8), r"rel_rows must be \(offsets, channels\) with at least one channel, got \(3, 0\)"),
        ((3, 8), (3, 0), r"rel_cols must be .*, got \(3, 0\)"),
        ((3, 4, 1), (3, 4, 1), r"rel_rows must be .*, got \(3, 4, 1\)"),
        ((3,), (3, 8), r"rel_rows must be .*, got \(3,\)"),
    ],
)
def test_embeddings_are_matrices_with_channels(impl, rows, cols, told):
    with pytest.raises(RegardError, match=told):
        local_attention(*pixels(), window=3, rel_rows=torch.randn(rows), rel_cols=torch.randn(cols), impl=impl)


HUGE = [2**32 + 1, 2**62 + 1, 2**63 - 1, 2**63 + 1, (200_001, 1), (1, 2**63 - 1), 10_001]


def test_a_window_beyond_the_image_is_a_window_over_all_of_it():
    """In a process of its own: this ended the process."""
    script = f"""
import torch
from torch.testing import assert_close
from regard.ops import local_attention
torch.manual_seed(0)
q, k, v = (part.requires_grad_() for part in torch.randn(3, 1, 2, 4, 5, 8))
for window in {HUGE}:
    rows, cols = window if isinstance(window, tuple) else (window, window)
    wanted = local_attention(q, k, v, window=(min(rows, 7), min(cols, 9)), impl="math")
    gradients = torch.autograd.grad(wanted.square().sum(), (q, k, v))
    for impl in ("math", "blocked", "native", "auto"):
        found = local_attention(q, k, v, window=window, impl=impl)
        assert_close(found, wanted, rtol=1e-4, atol=1e-5)
        assert_close(torch.autograd.grad(found.square().sum(), (q, k, v)), gradients, rtol=1e-4, atol=1e-5)
"""
    _needs_native()
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("impl", ["math", "blocked", "native", "auto"])
def test_a_dilation_beyond_the_image_leaves_the_pixel_itself(impl):
    _needs_native()
    q, k, v = pixels()
    for dilation in (6, 100_000, 2**63 - 1, 2**63 + 1, 10**30):
        assert_close(local_attention(q, k, v, window=5, dilation=dilation, impl=impl), v)
    # Along the rows it reaches one neighbour, along the columns none.
    wide = [part[:, :, :1, :, :].contiguous() for part in (q, k, v)]
    wanted = local_attention(*wide, window=(1, 3), dilation=5, impl="math")
    assert_close(local_attention(*wide, window=(2**40 + 1, 3), dilation=5, impl=impl), wanted)


def test_the_middle_of_large_tables_is_used_and_the_rest_has_no_gradient():
    _needs_native()
    q, k, v = pixels()
    rows, cols = torch.randn(41, 3, requires_grad=True), torch.randn(61, 5, requires_grad=True)
    bias = torch.randn(3, 41, 61, requires_grad=True)
    middle = {"rel_rows": rows[16:25], "rel_cols": cols[25:36], "bias": bias[:, 16:25, 25:36]}
    wanted = local_attention(q, k, v, window=(9, 11), **middle, impl="math")
    expected = torch.autograd.grad(wanted.square().sum(), (rows, cols, bias))
    for impl in ("math", "blocked", "native"):
        found = local_attention(q, k, v, window=(41, 61), rel_rows=rows, rel_cols=cols, bias=bias, impl=impl)
        assert_close(found, wanted, rtol=1e-4, atol=1e-5)
        gradients = torch.autograd.grad(found.square().sum(), (rows, cols, bias))
        assert_close(gradients, expected, rtol=1e-3, atol=1e-4)
        assert gradients[0][:16].eq(0).all()


def test_a_lazy_minus_is_read_as_a_minus():
    """The imaginary part of a conjugate is a view whose memory has the other sign."""
    _needs_native()
    q, k, v = (torch.randn(1, 2, 5, 6, 8, dtype=torch.complex64).conj().imag for _ in range(3))
    assert q.is_neg()
    wanted = local_attention(q.clone(), k.clone(), v.clone(), window=3, impl="math")
    assert_close(local_attention(q, k, v, window=3, impl="native"), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("window", [2**16 + 1, 2**40 + 1, 3.0, True, 4])
def test_modules_refuse_windows_that_they_have_no_table_for(window):
    for make in (
        lambda: create_mixer("local", 8, num_heads=2, grid=None, options={"window": window}),
        lambda: LocalAttention2d(3, 16, window=window),
    ):
        with pytest.raises(RegardError, match="window"):
            make()
    with pytest.raises(RegardError, match="head_dim must be at least 2"):
        create_mixer("local", 8, num_heads=8, grid=None)


def test_empty_inputs():
    for impl in ("math", "blocked", "native", "auto"):
        for shape in ((0, 3, 5, 6, 8), (2, 0, 5, 6, 8), (2, 3, 0, 6, 8)):
            q, k, v = torch.randn(3, *shape)
            assert local_attention(q, k, v, window=3, impl=impl).shape == shape
        q, k, v = pixels()
        none = tuple(torch.randn(2, 3, 0, 8) for _ in range(3))
        mask = torch.zeros(2, 5, 6, dtype=torch.bool)
        found, prefix = local_attention(q, k, v, window=3, mask=mask, prefix=none, impl=impl)
        assert found.eq(0).all()
        assert prefix.shape == (2, 3, 0, 8)
    q, k, v = heads()
    w = torch.randn(4, 8)
    for queries, keys in ((5, 0), (0, 5), (0, 0)):
        for impl in ("math", "sdpa"):
            assert attention(q[:, :, :queries], k[:, :, :keys], v[:, :, :keys], impl=impl).eq(0).all()
        for impl in ("math", "chunked"):
            assert (
                favor_attention(q[:, :, :queries], k[:, :, :keys], v[:, :, :keys], projection=w, impl=impl).eq(0).all()
            )
    assert favor_attention(q[:0], k[:0], v[:0], projection=w, impl="chunked").shape == (0, 3, 5, 8)
    assert favor_attention(*(part[:, :, :0] for part in (q, k, v)), projection=w, is_causal=True).shape == (2, 3, 0, 8)


def _needs_native():
    state = native_state()
    if state.library is None:
        pytest.skip(f"no native path: {state.reason}")
