"""FNet's mixing (Lee-Thorp et al. 2021)."""

import math
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from regard.errors import RegardError, unknown
from regard.ops.arguments import full_precision, require_floats
from regard.ops.tables import kept

FourierImpl = Literal["auto", "math", "fft", "matmul"]


def fourier_mixing(
    x: Float[Tensor, "batch tokens embed_dim"], *, impl: str = "auto"
) -> Float[Tensor, "batch tokens embed_dim"]:
    """Re(F_tokens(F_channels(x))), the real part of the 2-D Fourier transform (Lee-Thorp et al. 2021, eq. 3).

    The transform is not normalised: its output is about √(tokens · embed_dim / 2) times as large as its input.
    It runs in float32 at least, since the FFT does not support half precision, and autocast does not change that.
    Every output depends on every input of its image: one NaN makes all of them NaN.

    impl: "math" is the definition. "fft" is the FFT of real numbers: it computes half of the frequencies, and the other
    half is their mirror image. "matmul" multiplies with matrices of cosines and sines, without complex numbers: slower,
    but it can be exported. "auto" is "fft", or "matmul" in an export. RegardError for another name, and for x that is
    not three-dimensional, empty in a transformed dimension, or not of floating numbers.
    """
    require_floats("fourier mixing", x=x)
    if x.ndim != 3 or 0 in x.shape[1:]:
        raise RegardError(
            f"fourier mixing: x must be (batch, tokens, embed_dim) with at least one of both, got {tuple(x.shape)}"
        )
    if impl not in get_args(FourierImpl):
        raise unknown("impl", impl, get_args(FourierImpl), where="fourier mixing")
    return _mixed(x, impl)


@full_precision
def _mixed(x: Tensor, impl: str) -> Tensor:
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    if impl == "math":
        return torch.fft.fft2(wide, dim=(-2, -1)).real.to(x.dtype)
    if impl == "matmul" or (impl == "auto" and (torch.compiler.is_exporting() or torch.onnx.is_in_onnx_export())):
        return _by_matrices(wide).to(x.dtype)
    return _Mirrored.apply(wide).to(x.dtype)


class _Mirrored(torch.autograd.Function):
    """The transform is a symmetric matrix for each axis, so the backward pass is the forward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _mirrored(x)

    @staticmethod
    def backward(ctx: Any, d_out: Tensor) -> Tensor:
        return _Mirrored.apply(d_out)


def _mirrored(x: Tensor) -> Tensor:
    """For real x, frequency (-n, -d) is the conjugate of (n, d), so half of the channels' frequencies are enough."""
    half = torch.fft.rfft2(x, dim=(-2, -1)).real
    known, mirrored = half.shape[-1], half[..., 1 : (x.shape[-1] + 1) // 2]
    out = x.new_empty(x.shape)
    out[..., :known] = half
    out[..., :1, known:] = mirrored[..., :1, :].flip(-1)
    out[..., 1:, known:] = mirrored[..., 1:, :].flip(-2, -1)
    return out


def _by_matrices(x: Tensor) -> Tensor:
    """C_tokens x C_channels - S_tokens x S_channels: the cosine of a sum."""
    (cos_tokens, sin_tokens), (cos_chans, sin_chans) = (_cos_sin(size, x.dtype, x.device) for size in x.shape[-2:])
    return cos_tokens @ (x @ cos_chans) - sin_tokens @ (x @ sin_chans)


@kept(16)
def _cos_sin(size: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """cos and sin of 2π m n / size. m n is taken modulo `size` first, since large angles lose digits."""
    index = torch.arange(size, dtype=torch.float64, device=device)
    angles = torch.outer(index, index).remainder(size) * (2 * math.pi / size)
    return angles.cos().to(dtype), angles.sin().to(dtype)
