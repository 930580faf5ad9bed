"""FNet's mixing against the library's transform and against the sum that defines it."""

import math

import pytest
import torch
from torch.testing import assert_close

from regard.errors import RegardError
from regard.ops import fourier_mixing

BATCH, TOKENS, EMBED_DIM = 2, 7, 11


def test_equals_the_real_part_of_the_transform():
    x = torch.randn(BATCH, TOKENS, EMBED_DIM)
    assert_close(fourier_mixing(x), torch.fft.fft2(x).real, rtol=1e-6, atol=1e-5)


def test_equals_the_sum_of_cosines():
    """Re Σ_nd x_nd exp(-2πi (mn/N + ed/D)) = Σ_nd x_nd cos(2π (mn/N + ed/D))."""
    x = torch.randn(BATCH, TOKENS, EMBED_DIM, dtype=torch.float64)

    def turns(size):
        index = torch.arange(size, dtype=torch.float64)
        return index[:, None] * index / size

    angles = 2 * math.pi * (turns(TOKENS)[:, None, :, None] + turns(EMBED_DIM)[None, :, None, :])
    assert_close(fourier_mixing(x), torch.einsum("bnd,ndme->bme", x, angles.cos()), rtol=1e-12, atol=1e-11)


def test_is_its_own_adjoint():
    """<F x, y> = <x, F y>, and so the gradient of <F x, y> is F y."""
    x, y = torch.randn(2, BATCH, TOKENS, EMBED_DIM, dtype=torch.float64).unbind()
    x.requires_grad_()
    product = (fourier_mixing(x) * y).sum()
    assert_close(product, (x * fourier_mixing(y)).sum(), rtol=1e-12, atol=1e-12)
    (gradient,) = torch.autograd.grad(product, x)
    assert_close(gradient, fourier_mixing(y), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("dtype", "rounding"), [(torch.bfloat16, 2**-8), (torch.float16, 2**-11)])
def test_half_precision_rounds_the_output_only(dtype, rounding):
    x = torch.randn(BATCH, TOKENS, EMBED_DIM).to(dtype)
    out = fourier_mixing(x)
    assert out.dtype == dtype
    assert_close(out.float(), fourier_mixing(x.float()), rtol=rounding, atol=1e-6)


@pytest.mark.parametrize("shape", [(2, 7, 11), (3, 8, 12), (1, 1, 5), (2, 6, 1), (2, 9, 2), (1, 197, 64)])
@pytest.mark.parametrize("impl", ["fft", "matmul", "auto"])
def test_every_path_equals_the_definition_in_values_and_gradients(shape, impl):
    x, weight = torch.randn(2, *shape, dtype=torch.float64)
    x.requires_grad_()
    results = []
    for path in ("math", impl):
        out = fourier_mixing(x, impl=path)
        results.append([out, *torch.autograd.grad((out * weight).sum(), x)])
    for wanted, found in zip(*results, strict=True):
        assert_close(found, wanted, rtol=1e-10, atol=1e-9)


@pytest.mark.parametrize("impl", ["fft", "matmul"])
def test_float32_is_near(impl):
    x = torch.randn(2, 196, 192)
    wanted = fourier_mixing(x.double(), impl="math")
    error = (fourier_mixing(x, impl=impl) - wanted).norm() / wanted.norm()
    assert error < 1e-6


def test_gradients_of_gradients():
    x = torch.randn(1, 5, 7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: fourier_mixing(x).square(), x)


def test_an_unknown_path():
    with pytest.raises(RegardError, match="unknown impl 'dct'"):
        fourier_mixing(torch.zeros(1, 2, 3), impl="dct")
