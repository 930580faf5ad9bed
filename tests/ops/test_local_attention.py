"""Local attention: the definition against a loop over pixels, and every path against the definition."""

import math
import subprocess
import sys
from typing import get_args

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck
from torch.testing import assert_close

from regard.errors import RegardError
from regard.ops import attention, local_attention, native_state
from regard.ops.local.arguments import Case, check
from regard.ops.local.attention import IMPLEMENTATIONS, LocalImpl

BATCH, HEADS, ROW_DIM, COL_DIM = 2, 3, 4, 7
DIM = ROW_DIM + COL_DIM


def tokens(height: int, width: int, dtype: torch.dtype = torch.float64, count: int = 3) -> list[Tensor]:
    return [torch.randn(BATCH, HEADS, height, width, DIM, dtype=dtype) for _ in range(count)]


def extras(rows: int, cols: int, border: str, names: str, height: int, width: int) -> dict[str, object]:
    """Embeddings, bias, a mask and a prefix, as `names` says by their first letters."""
    down, right = (2 * n - 1 if border == "shift" else n for n in (rows, cols))
    found: dict[str, object] = {}
    if "e" in names:
        found["rel_rows"] = torch.randn(down, ROW_DIM, dtype=torch.float64)
        found["rel_cols"] = torch.randn(right, COL_DIM, dtype=torch.float64)
    if "b" in names:
        found["bias"] = torch.randn(HEADS, down, right, dtype=torch.float64)
    if "m" in names:
        found["mask"] = torch.rand(BATCH, height, width) < 0.7
    if "p" in names:
        found["prefix"] = tuple(torch.randn(BATCH, HEADS, 2, DIM, dtype=torch.float64) for _ in range(3))
    return found


def window_of(place: int, length: int, window: int, dilation: int, border: str) -> list[int]:
    """Pixels of a window along one axis, by walking."""
    around = [place + dilation * step for step in range(-(window // 2), window // 2 + 1)]
    if border == "clip":
        return [other for other in around if 0 <= other < length]
    while around[0] < 0:
        around = [other + dilation for other in around]
    while around[-1] >= length:
        around = [other - dilation for other in around]
    return around


def by_hand(
    q, k, v, *, window, dilation, border, scale, rel_rows=None, rel_cols=None, bias=None, mask=None, prefix=None
):
    (rows, cols), (height, width) = window, q.shape[2:4]
    centre = [(n // 2 if border == "clip" else n - 1) for n in (rows, cols)]
    out = torch.zeros_like(q)
    for b in range(BATCH):
        for h in range(HEADS):
            for y in range(height):
                for x in range(width):
                    logits, values = [], []
                    for p in range(0 if prefix is None else prefix[1].shape[2]):
                        logits.append(scale * float(q[b, h, y, x] @ prefix[1][b, h, p]))
                        values.append(prefix[2][b, h, p])
                    for r in window_of(y, height, rows, dilation, border):
                        for c in window_of(x, width, cols, dilation, border):
                            if mask is not None and not mask[b, r, c]:
                                continue
                            down, right = (r - y) // dilation + centre[0], (c - x) // dilation + centre[1]
                            key = k[b, h, r, c]
                            if rel_rows is not None:
                                key = key + torch.cat([rel_rows[down], rel_cols[right]])
                            logit = scale * float(q[b, h, y, x] @ key)
                            logits.append(logit + (0.0 if bias is None else float(bias[h, down, right])))
                            values.append(v[b, h, r, c])
                    if logits:
                        weights = [math.exp(logit - max(logits)) for logit in logits]
                        out[b, h, y, x] = sum(w * one for w, one in zip(weights, values, strict=True)) / sum(weights)
    return out


@pytest.mark.parametrize("border", ["clip", "shift"])
@pytest.mark.parametrize(("window", "dilation"), [((3, 3), 1), ((5, 3), 1), ((3, 1), 2)])
@pytest.mark.parametrize("names", ["", "ebmp"])
def test_the_definition_is_a_loop_over_pixels(border, window, dilation, names):
    height, width = 7, 5
    q, k, v = tokens(height, width)
    more = extras(*window, border, names, height, width)
    options = {"window": window, "dilation": dilation, "border": border, "scale": 0.3, **more}
    found = local_attention(q, k, v, **options, impl="math")
    pixels = found[0] if "p" in names else found
    assert_close(pixels, by_hand(q, k, v, **options))


CASES = [
    ((19, 23), 7, 1),
    ((17, 13), (3, 5), 1),
    ((29, 11), 3, 3),
    ((5, 7), 5, 1),
    ((31, 3), (7, 3), 1),
    ((16, 16), 1, 1),
    ((3, 37), (1, 21), 1),
    pytest.param((41, 43), (17, 19), 2, marks=pytest.mark.slow),
]
EXTRAS = ["", "e", "b", "m", "p", "ebmp"]


def results(impl, inputs, more, *, gradients=True, **options) -> list[Tensor]:
    """Values, and the gradients of everything that is learned."""
    with torch.set_grad_enabled(gradients):
        found = local_attention(*inputs, impl=impl, **options, **more)
    parts = found if isinstance(found, tuple) else (found,)
    if not gradients:
        return [*parts]
    learned = [*inputs]
    for value in more.values():
        learned += [part for part in (value if isinstance(value, tuple) else (value,)) if part.requires_grad]
    torch.manual_seed(1)
    total = sum((part * torch.randn(part.shape, dtype=torch.float64).to(part)).sum() for part in parts)
    return [*parts, *torch.autograd.grad(total, learned)]


def sample(border, size, window, names, dtype=torch.float64) -> tuple[list[Tensor], dict[str, object]]:
    """q, k, v and extras, all with gradients."""
    rows, cols = (window, window) if isinstance(window, int) else window

    def leaf(part):
        return part.to(dtype).requires_grad_() if part.is_floating_point() else part

    more = extras(rows, cols, border, names, *size)
    moved = {name: tuple(map(leaf, value)) if isinstance(value, tuple) else leaf(value) for name, value in more.items()}
    return [leaf(part) for part in tokens(*size)], moved


@pytest.mark.parametrize("border", ["clip", "shift"])
@pytest.mark.parametrize(("size", "window", "dilation"), CASES)
@pytest.mark.parametrize("names", EXTRAS)
def test_blocks_equal_the_definition_in_values_and_gradients(border, size, window, dilation, names):
    if border == "shift" and (size, window) in [((3, 37), (1, 21)), ((41, 43), (17, 19))]:
        size = (size[0], size[1] + 5)
    inputs, more = sample(border, size, window, names)
    options = {"window": window, "dilation": dilation, "border": border}
    for wanted, found in zip(
        results("math", inputs, more, **options), results("blocked", inputs, more, **options), strict=True
    ):
        assert_close(found, wanted)


@pytest.mark.parametrize("border", ["clip", "shift"])
@pytest.mark.parametrize(("size", "window", "dilation"), CASES)
@pytest.mark.parametrize("names", EXTRAS)
def test_native_equals_the_definition_in_values_and_gradients(border, size, window, dilation, names):
    """In float32, beside the definition in float64."""
    _needs_native()
    if border == "shift" and (size, window) in [((3, 37), (1, 21)), ((41, 43), (17, 19))]:
        size = (size[0], size[1] + 5)
    inputs, more = sample(border, size, window, names, torch.float32)
    exact = [part.detach().double().requires_grad_() for part in inputs]
    wide = {name: _doubled(value) for name, value in more.items()}
    options = {"window": window, "dilation": dilation, "border": border}
    for wanted, found in zip(
        results("math", exact, wide, **options), results("native", inputs, more, **options), strict=True
    ):
        assert_close(found.double(), wanted, rtol=1e-4, atol=3e-5)


def _needs_native():
    state = native_state()
    if state.library is None:
        pytest.skip(f"no native path: {state.reason}")


def _doubled(value):
    if isinstance(value, tuple):
        return tuple(map(_doubled, value))
    return value.detach().double().requires_grad_() if value.is_floating_point() else value


@pytest.mark.parametrize("layout", ["heads first", "channels last", "channels first", "every other"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dim", [11, 16, 32])
def test_native_takes_any_strides(layout, dtype, dim):
    _needs_native()
    shapes = {
        "heads first": lambda: torch.randn(2, 3, 13, 29, dim),
        "channels last": lambda: torch.randn(2, 13, 29, 3, dim).permute(0, 3, 1, 2, 4),
        "channels first": lambda: torch.randn(2, 3, dim, 13, 29).permute(0, 1, 3, 4, 2),
        "every other": lambda: torch.randn(2, 3, 13, 58, 2 * dim)[:, :, :, ::2, ::2],
    }
    inputs = [shapes[layout]().to(dtype).requires_grad_() for _ in range(3)]
    exact = [part.detach().double().contiguous().requires_grad_() for part in inputs]
    close = {"rtol": 1e-4, "atol": 3e-5} if dtype == torch.float32 else {"rtol": 0.03, "atol": 0.03}
    for wanted, found in zip(
        results("math", exact, {}, window=7), results("native", inputs, {}, window=7), strict=True
    ):
        assert found.dtype == dtype
        assert_close(found.double(), wanted, **close)


def test_native_gives_the_same_bits_again():
    _needs_native()
    inputs, more = sample("clip", (23, 31), 5, "eb", torch.float32)
    first, second = (results("native", inputs, more, window=5) for _ in range(2))
    assert all(one.equal(other) for one, other in zip(first, second, strict=True))


def test_native_reads_nothing_of_masked_pixels():
    """What padding holds, NaN even, changes nothing."""
    _needs_native()
    q, k, v = tokens(17, 19, torch.float32)
    mask = torch.rand(BATCH, 17, 19) < 0.6
    wanted = local_attention(q, k, v, window=5, mask=mask, impl="native")
    for part in (k, v):
        part.movedim(1, -2)[~mask] = float("nan")
    assert_close(local_attention(q, k, v, window=5, mask=mask, impl="native"), wanted, rtol=0, atol=0)


def test_native_through_a_compiler_is_the_same():
    script = """
import torch
from torch.testing import assert_close
from regard.ops import local_attention
from regard.mixers import create_mixer
from regard.layers import Grid
torch.manual_seed(0)
mixer = create_mixer("local", 24, num_heads=3, grid=Grid(11, 13, 1))
x = torch.randn(2, 144, 24, requires_grad=True)
compiled = torch.compile(mixer, fullgraph=True, backend="aot_eager")
found = []
for run in (mixer, compiled):
    out = run(x, grid=Grid(11, 13, 1))
    found.append([out, *torch.autograd.grad(out.square().sum(), [x, *mixer.parameters()])])
for one, other in zip(*found, strict=True):
    assert_close(one, other, rtol=1e-4, atol=1e-5)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_flex_equals_the_definition():
    """Its eager form on a CPU, which has no gradients; without the shape checker, which its compiler cannot read."""
    script = """
import torch
from torch.testing import assert_close
from regard.ops import local_attention

torch.manual_seed(0)
for border in ("clip", "shift"):
    for height, width, rows, cols, dilation in [(19, 23, 7, 7, 1), (29, 11, 3, 3, 3), (13, 17, 3, 5, 2)]:
        for names in ("", "e", "b", "m", "p", "ebm", "ebmp"):
            q, k, v = torch.randn(3, 2, 3, height, width, 11)
            down, right = (2 * n - 1 if border == "shift" else n for n in (rows, cols))
            more = {}
            if "e" in names:
                more |= {"rel_rows": torch.randn(down, 4), "rel_cols": torch.randn(right, 7)}
            if "b" in names:
                more["bias"] = torch.randn(3, down, right)
            if "m" in names:
                more["mask"] = torch.rand(2, height, width) < 0.7
                more["mask"][0, :9, :9] = False
            if "p" in names:
                more["prefix"] = tuple(torch.randn(3, 2, 3, 2, 11))
            options = {"window": (rows, cols), "dilation": dilation, "border": border, **more}
            wanted, found = (local_attention(q, k, v, impl=impl, **options) for impl in ("math", "flex"))
            assert_close(found, wanted, rtol=1e-4, atol=1e-5, msg=lambda m: f"{border} {names} {height}: {m}")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("impl", ["flex", "blocked", "auto"])
@pytest.mark.parametrize("names", EXTRAS)
def test_on_a_gpu_with_gradients(impl, names):
    inputs, more = sample("clip", (19, 23), 7, names, torch.float32)
    wanted = results("math", inputs, more, window=7)

    def move(value):
        return value.detach().cuda().requires_grad_(value.requires_grad)

    moved = {name: tuple(map(move, value)) if isinstance(value, tuple) else move(value) for name, value in more.items()}
    found = results(impl, [move(part) for part in inputs], moved, window=7)
    for one, other in zip(found[: len(wanted) - len(inputs)], wanted, strict=False):
        assert_close(one.cpu(), other, rtol=5e-3, atol=5e-3)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:flex_attention called without torch.compile")
def test_natten_equals_the_definition():
    pytest.importorskip("natten", reason="natten is not installed")
    inputs = list(torch.randn(3, BATCH, HEADS, 19, 23, 32))
    for dilation in (1, 2):
        options = {"window": (5, 7), "dilation": dilation, "border": "shift"}
        wanted = results("math", inputs, {}, gradients=False, **options)
        found = results("natten", inputs, {}, gradients=False, **options)
        assert_close(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("impl", ["math", "blocked"])
def test_gradients_by_differences(impl):
    q, k, v = (part[:1, :1, :, :, :5].clone().requires_grad_() for part in tokens(4, 17))
    rel_rows, rel_cols = (torch.randn(3, dim, dtype=torch.float64, requires_grad=True) for dim in (2, 3))
    bias = torch.randn(1, 3, 3, dtype=torch.float64, requires_grad=True)

    def run(q, k, v, rel_rows, rel_cols, bias):
        return local_attention(q, k, v, window=3, rel_rows=rel_rows, rel_cols=rel_cols, bias=bias, impl=impl)

    assert gradcheck(run, (q, k, v, rel_rows, rel_cols, bias), fast_mode=True)


def test_a_window_over_all_is_attention():
    q, k, v = tokens(5, 7)
    flat = [part.flatten(2, 3) for part in (q, k, v)]
    wanted = attention(*flat, impl="math").unflatten(2, (5, 7))
    for impl in ("math", "blocked", "auto"):
        assert_close(local_attention(q, k, v, window=(9, 13), impl=impl), wanted)


def test_a_pixel_that_may_look_nowhere_gets_zeros():
    q, k, v = (part.requires_grad_() for part in tokens(17, 19))
    mask = torch.ones(BATCH, 17, 19, dtype=torch.bool)
    mask[0, :9, :9] = False
    for impl in ("math", "blocked"):
        out = local_attention(q, k, v, window=5, mask=mask, impl=impl)
        assert not out[0, :, :7, :7].any()
        assert out[0, :, 12, 12].any()
        (gradient,) = torch.autograd.grad(out.sum(), q)
        assert gradient.isfinite().all()


def test_a_plan_made_without_gradients_serves_a_training():
    q, k, v = (part.requires_grad_() for part in tokens(23, 15))
    with torch.inference_mode():
        local_attention(q, k, v, window=3)
    local_attention(q, k, v, window=3).sum().backward()
    assert q.grad is not None


@pytest.mark.parametrize("impl", ["math", "blocked", "native", "auto"])
@pytest.mark.parametrize("shape", [(0, 2, 5, 7, 4), (1, 0, 5, 7, 4), (1, 2, 0, 7, 4), (1, 2, 5, 0, 4)])
def test_nothing_gives_nothing(impl, shape):
    q, k, v = (torch.zeros(shape, requires_grad=True) for _ in range(3))
    out = local_attention(q, k, v, window=3, impl=impl)
    assert out.shape == shape
    out.sum().backward()


def test_half_precision_is_near():
    q, k, v = tokens(17, 19, torch.float32)
    wanted = local_attention(q, k, v, window=5, impl="math")
    found = local_attention(*(part.bfloat16() for part in (q, k, v)), window=5, impl="blocked")
    assert found.dtype == torch.bfloat16
    assert_close(found.float(), wanted, rtol=0.05, atol=0.05)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"window": 4}, "window must be odd"),
        ({"window": 3, "dilation": 0}, "dilation 0"),
        ({"window": 9, "border": "shift"}, "cannot be moved inside of 7 pixels; the largest possible is 7"),
        ({"window": 5, "border": "shift", "dilation": 2}, "the largest possible is 3"),
        ({"window": 3, "border": "wrap"}, "unknown border 'wrap'"),
        ({"window": 3, "impl": "fast"}, "unknown impl 'fast'"),
        ({"window": 3, "impl": "native"}, "'native' takes float32 and bfloat16 on a CPU, got torch.float64"),
        ({"window": 3, "impl": "flex"}, "'flex' takes no float64"),
        ({"window": 3, "impl": "natten"}, "'natten' cannot be used: it has no border 'clip'"),
        ({"window": 3, "impl": "natten", "border": "shift", "bias": torch.zeros(3, 5, 5).double()}, "it has no bias"),
        ({"window": 3, "rel_rows": torch.zeros(3, 4)}, "go together"),
        ({"window": 3, "rel_rows": torch.zeros(3, 4), "rel_cols": torch.zeros(5, 7)}, "3 and 3, got 3 and 5"),
        ({"window": 3, "rel_rows": torch.zeros(3, 4), "rel_cols": torch.zeros(3, 4)}, "must be head_dim 11"),
        ({"window": 3, "bias": torch.zeros(3, 3, 5)}, r"bias must be \(3, 3, 3\)"),
        ({"window": 3, "prefix": (torch.zeros(2, 3, 1, 5),) * 3}, "prefix must be"),
    ],
)
def test_what_cannot_be_is_one_line(options, told):
    with pytest.raises(RegardError, match=told) as caught:
        local_attention(*tokens(7, 9), **options)
    assert "\n" not in str(caught.value)


def test_shapes_that_do_not_meet():
    """Past the shape checker of the tests, which says so first."""
    q, k, v = tokens(7, 9)
    case = Case(3, 3, 1, "clip", None, None, None, None, 1.0)
    with pytest.raises(RegardError, match="all of one shape"):
        check(q, k[:, :, :5], v, case, None)
    with pytest.raises(RegardError, match="mask must be bool"):
        check(q, k, v, case._replace(mask=torch.ones(2, 7, 8, dtype=torch.bool)), None)


def test_every_implementation_has_a_name_and_the_definition_is_the_last_resort():
    assert {"auto", *IMPLEMENTATIONS} == set(get_args(LocalImpl))
    assert list(IMPLEMENTATIONS)[-2:] == ["blocked", "math"]
    q, case = torch.zeros(1, 1, 3, 3, 2, dtype=torch.float64), Case(3, 3, 1, "clip", None, None, None, None, 1.0)
    assert [name for name, known in IMPLEMENTATIONS.items() if known.serves(q, case)] == ["blocked", "math"]
