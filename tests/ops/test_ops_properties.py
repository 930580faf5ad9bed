"""Every path gives what the definition gives, or the same error, whatever the signature allows: values and gradients.

The cases are drawn by hypothesis, always the same ones. NaN and infinity are put where a case says so.
"""

import math

import jaxtyping
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from regard.errors import RegardError
from regard.ops import attention, favor_attention, local_attention, native_state

NEAR = {torch.float64: 1e-7, torch.float32: 3e-4, torch.bfloat16: 0.1, torch.float16: 2e-2}
SPECIAL = [math.nan, math.inf, -math.inf]
QUICK, FULL = 30, 300


def drawn(examples: int):
    """The same cases in every run."""
    return settings(
        max_examples=examples, derandomize=True, deadline=None, database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )  # fmt: skip


def both(*strategies):
    """A quick test of some dozens of cases, and a slow one of some hundreds."""

    def make(check):
        @pytest.mark.parametrize("examples", [QUICK, pytest.param(FULL, marks=pytest.mark.slow)])
        def test(examples):
            drawn(examples)(given(*strategies)(check))()

        test.__doc__ = check.__doc__
        return test

    return make


@pytest.fixture(autouse=True)
def _without_the_shape_checker() -> None:
    jaxtyping.config.update("jaxtyping_disable", True)


LAYOUTS = ["plain", "transposed", "every other", "expanded", "shifted"]


def tensor(shape: list[int], dtype: torch.dtype, layout: str, draw: torch.Generator) -> Tensor:
    """Random numbers in another order of memory, with gaps, repeated along the heads, or not at the start of it."""

    def numbers(*size: int) -> Tensor:
        return torch.randn(*size, generator=draw, dtype=torch.float64).to(dtype)

    if layout == "transposed":
        return numbers(*shape[::-1]).permute(*reversed(range(len(shape))))
    if layout == "every other":
        return numbers(*(2 * size for size in shape))[tuple(slice(None, None, 2) for _ in shape)]
    if layout == "expanded" and shape[0]:
        return numbers(1, *shape[1:]).expand(*shape)
    if layout == "shifted":
        return numbers(shape[0], *shape[1:-1], shape[-1] + 3)[..., 3:]
    return numbers(*shape)


def spoil(parts: dict[str, Tensor], plants: list[tuple[str, float, int]]) -> dict[str, Tensor]:
    """Puts each special number at one place of the tensor that is named."""
    found = {name: part.clone(memory_format=torch.preserve_format) for name, part in parts.items()}
    for name, value, place in plants:
        if name in found and found[name].numel():
            at = torch.unravel_index(torch.tensor(place % found[name].numel()), found[name].shape)
            found[name][at] = value
    return found


def outcome(run, parts: dict[str, Tensor]) -> tuple[list[Tensor], str]:
    """Values and gradients; or the error's one line."""
    leaves = {name: part.detach().requires_grad_() for name, part in parts.items()}
    try:
        found = run(leaves)
    except RegardError as error:
        return [], str(error)
    outs = found if isinstance(found, tuple) else (found,)
    draw = torch.Generator().manual_seed(1)
    upstream = [torch.randn(out.shape, generator=draw, dtype=torch.float64).to(out.dtype) for out in outs]
    gradients = torch.autograd.grad(outs, [*leaves.values()], upstream, allow_unused=True)
    made = [
        torch.zeros_like(leaf) if one is None else one for one, leaf in zip(gradients, leaves.values(), strict=True)
    ]
    return [out.detach() for out in outs] + [one.masked_fill(one.isinf(), math.nan) for one in made], ""


def hold(found: tuple[list[Tensor], str], wanted: tuple[list[Tensor], str], dtype: torch.dtype) -> None:
    """The same error; or the same numbers, with NaN and infinity in the same places.

    In gradients an infinity counts as NaN: which of the two ∞ - ∞ and 0 ∞ give depends on the order of the sums.
    """
    assert found[1] == wanted[1]
    assert "\n" not in found[1]
    for one, other in zip(found[0], wanted[0], strict=True):
        assert one.dtype == dtype
        scale = max(1.0, *other[other.isfinite()].abs().tolist(), 0.0) if other.numel() else 1.0
        assert_close(one.double(), other.double(), rtol=NEAR[dtype], atol=NEAR[dtype] * scale, equal_nan=True)


SIDES = st.sampled_from([1, 2, 3, 5, 7, 11, 13, 17])
WINDOWS = st.sampled_from([1, 3, 5, 7, 9, 27, 2**32 + 1, 2**62 + 1, 2**63 - 1])
LOCAL = st.fixed_dictionaries(
    {
        "sizes": st.tuples(st.integers(0, 2), st.integers(1, 3), SIDES, SIDES, st.sampled_from([2, 3, 5, 16])),
        "dtype": st.sampled_from([torch.float32, torch.float32, torch.bfloat16, torch.float64, torch.float16]),
        "layouts": st.tuples(*(st.sampled_from(LAYOUTS) for _ in range(3))),
        "window": st.one_of(WINDOWS, st.tuples(WINDOWS, WINDOWS)),
        "dilation": st.sampled_from([1, 1, 2, 3, 8, 2**31, 2**63 - 1]),
        "border": st.sampled_from(["clip", "clip", "shift"]),
        "real": st.sampled_from([None, 0.0, 0.3, 0.8]),
        "embedded": st.booleans(),
        "bias": st.sampled_from([None, "finite", "masks"]),
        "prefix": st.sampled_from([None, None, 0, 1, 3]),
        "scale": st.sampled_from([None, None, 0.3, -0.5, 0, 1e-30, math.nan]),
        "plants": st.lists(
            st.tuples(
                st.sampled_from(["q", "k", "v", "k", "v", "rel_rows", "rel_cols", "prefix k", "prefix v", "bias"]),
                st.sampled_from(SPECIAL),
                st.integers(0, 10**6),
            ),
            max_size=3,
        ),
        "behind_mask": st.booleans(),
        "seed": st.integers(0, 2**31),
    }
)


def local_case(case) -> tuple[dict[str, Tensor], dict[str, object]]:
    """The tensors that have gradients, and the other arguments."""
    draw = torch.Generator().manual_seed(case["seed"])
    batch, heads, height, width, dim = case["sizes"]
    rows, cols = case["window"] if isinstance(case["window"], tuple) else (case["window"],) * 2
    parts = {
        name: tensor([batch, heads, height, width, dim], case["dtype"], layout, draw)
        for name, layout in zip("qkv", case["layouts"], strict=True)
    }
    offsets = [size if case["border"] == "clip" else 2 * size - 1 for size in (rows, cols)]
    if max(offsets) < 1000:  # beyond, tables would be as large as that
        if case["embedded"]:
            parts["rel_rows"] = tensor([offsets[0], 1], case["dtype"], "plain", draw)
            parts["rel_cols"] = tensor([offsets[1], dim - 1], case["dtype"], "plain", draw)
        if case["bias"]:
            parts["bias"] = tensor([heads, *offsets], case["dtype"], "plain", draw)
            if case["bias"] == "masks":
                parts["bias"][torch.rand(parts["bias"].shape, generator=draw) < 0.4] = -math.inf
    if case["prefix"] is not None:
        for name in "qkv":
            parts[f"prefix {name}"] = tensor([batch, heads, case["prefix"], dim], case["dtype"], "plain", draw)
    parts = spoil(parts, case["plants"])
    if case["prefix"] is not None:  # it attends by PyTorch's kernels, which hold to NaN in queries and keys alone
        for name in ("k", "prefix q", "prefix k"):
            parts[name] = parts[name].masked_fill(parts[name].isinf(), math.nan)
    options = {name: case[name] for name in ("window", "dilation", "border", "scale")}
    if case["real"] is not None:
        options["mask"] = torch.rand(batch, height, width, generator=draw) < case["real"]
        if case["behind_mask"]:
            for name in "kv":
                hidden = ~options["mask"][:, None, :, :, None]
                parts[name] = parts[name].masked_fill(hidden, math.nan)
    return parts, options


def run_local(parts, options, impl):
    prefix = tuple(parts[f"prefix {name}"] for name in "qkv") if "prefix q" in parts else None
    tensors = {name: part for name, part in parts.items() if not name.startswith("prefix")}
    return local_attention(**tensors, prefix=prefix, impl=impl, **options)


@both(LOCAL)
def test_local_attention_is_its_definition_on_every_path(case):
    parts, options = local_case(case)
    exact = outcome(lambda leaves: run_local(leaves, options, "math"), {n: part.double() for n, part in parts.items()})
    takes = case["dtype"] in (torch.float32, torch.bfloat16) and native_state().library is not None
    for impl in ["math", "blocked", "auto", *["native"] * takes]:
        hold(outcome(lambda leaves, impl=impl: run_local(leaves, options, impl), parts), exact, case["dtype"])


ATTENTION = st.fixed_dictionaries(
    {
        "sizes": st.tuples(
            st.integers(0, 2), st.integers(1, 3), st.integers(0, 37), st.sampled_from([0, 1, 5, 15, 16, 37])
        ),
        "dims": st.tuples(st.sampled_from([1, 3, 8, 16]), st.sampled_from([1, 3, 8, 16])),
        "dtype": st.sampled_from([torch.float32, torch.float32, torch.bfloat16, torch.float64, torch.float16]),
        "layouts": st.tuples(*(st.sampled_from(LAYOUTS) for _ in range(3))),
        "mask": st.sampled_from([None, "keys", "pairs", "heads", "row", "none"]),
        "bias": st.sampled_from([None, "finite", "masks"]),
        "is_causal": st.booleans(),
        "scale": st.sampled_from([None, None, 0.3, -0.5, 0, 1e-30, math.nan, math.inf]),
        "plants": st.lists(
            st.one_of(
                st.tuples(st.sampled_from(["q", "k", "v", "k", "v", "bias"]), st.just(math.nan), st.integers(0, 10**6)),
                st.tuples(st.just("v"), st.sampled_from(SPECIAL), st.integers(0, 10**6)),
            ),
            max_size=3,
        ),
        "behind_mask": st.booleans(),
        "seed": st.integers(0, 2**31),
    }
)  # fmt: skip


def attention_case(case) -> tuple[dict[str, Tensor], dict[str, object]]:
    draw = torch.Generator().manual_seed(case["seed"])
    (batch, heads, queries, keys), (dim, value_dim) = case["sizes"], case["dims"]
    shapes = {"q": [queries, dim], "k": [keys, dim], "v": [keys, value_dim]}
    parts = {
        name: tensor([batch, heads, *shape], case["dtype"], layout, draw)
        for (name, shape), layout in zip(shapes.items(), case["layouts"], strict=True)
    }
    options = {name: case[name] for name in ("is_causal", "scale")}
    if case["bias"]:
        parts["bias"] = tensor([heads, queries, keys], case["dtype"], "plain", draw)
        if case["bias"] == "masks":
            parts["bias"][torch.rand(parts["bias"].shape, generator=draw) < 0.4] = -math.inf
    shape = {"keys": (batch, 1, 1, keys), "pairs": (queries, keys), "heads": (batch, heads, queries, keys)}
    shape |= {"row": (keys,), "none": (1, 1, queries, 1)}
    parts = spoil(parts, case["plants"])
    if case["mask"]:
        options["mask"] = torch.rand(shape[case["mask"]], generator=draw) < 0.6
        if case["behind_mask"] and case["mask"] in ("keys", "row"):
            for name in "kv":
                hidden = ~options["mask"][..., None] if case["mask"] == "row" else ~options["mask"].transpose(-2, -1)
                parts[name] = parts[name].masked_fill(hidden, math.nan)
    return parts, options


@both(ATTENTION)
def test_attention_is_its_definition_on_every_path(case):
    parts, options = attention_case(case)
    wide = {name: part.double() for name, part in parts.items()}
    exact = outcome(lambda leaves: attention(**leaves, impl="math", **options), wide)
    for impl in ("math", "sdpa", "auto"):
        found = outcome(lambda leaves, impl=impl: attention(**leaves, impl=impl, **options), parts)
        hold(found, exact, case["dtype"])


FAVOR = st.fixed_dictionaries(
    {
        "sizes": st.tuples(st.integers(0, 2), st.integers(1, 2), st.integers(0, 90), st.integers(0, 90)),
        "dims": st.tuples(st.sampled_from([1, 3, 8]), st.sampled_from([1, 5])),
        "features": st.sampled_from([1, 7, 16]),
        "kind": st.sampled_from(["softmax_positive", "softmax_hyperbolic", "relu"]),
        "dtype": st.sampled_from([torch.float32, torch.bfloat16, torch.float64, torch.float16]),
        "layouts": st.tuples(*(st.sampled_from(LAYOUTS) for _ in range(3))),
        "real": st.sampled_from([None, 0.0, 0.6]),
        "plants": st.lists(st.tuples(st.sampled_from("qkv"), st.just(math.nan), st.integers(0, 10**6)), max_size=2),
        "seed": st.integers(0, 2**31),
    }
)


@both(FAVOR)
def test_favor_in_chunks_is_its_definition(case):
    draw = torch.Generator().manual_seed(case["seed"])
    (batch, heads, queries, keys), (dim, value_dim) = case["sizes"], case["dims"]
    shapes = {"q": [queries, dim], "k": [keys, dim], "v": [keys, value_dim]}
    parts = {
        name: tensor([batch, heads, *shape], case["dtype"], layout, draw)
        for (name, shape), layout in zip(shapes.items(), case["layouts"], strict=True)
    }
    projection = torch.randn(case["features"], dim, generator=draw)
    parts = spoil(parts, case["plants"])
    options = {"kind": case["kind"], "mask": None}
    if case["real"] is not None:
        options["mask"] = torch.rand(batch, keys, generator=draw) < case["real"]
        parts |= {name: parts[name].masked_fill(~options["mask"][:, None, :, None], math.nan) for name in "kv"}

    def run(impl, leaves):
        return favor_attention(**leaves, projection=projection.to(leaves["q"].dtype), impl=impl, **options)

    exact = outcome(lambda leaves: run("math", leaves), {name: part.double() for name, part in parts.items()})
    for impl in ("math", "chunked", "auto"):
        found = outcome(
            lambda leaves, impl=impl: favor_attention(**leaves, projection=projection, impl=impl, **options), parts
        )
        hold(found, exact, case["dtype"])
