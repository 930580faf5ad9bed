"""FNet's mixing (Lee-Thorp et al. 2021)."""

import torch
from jaxtyping import Float
from torch import Tensor


def fourier_mixing(x: Float[Tensor, "batch tokens embed_dim"]) -> Float[Tensor, "batch tokens embed_dim"]:
    """Re(F_tokens(F_channels(x))), the real part of the 2-D Fourier transform (Lee-Thorp et al. 2021, eq. 3).

    The transform is not normalised: its output is √(tokens · embed_dim) times as large as its input.
    It runs in float32 at least, since the FFT takes no half precision.
    """
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    return torch.fft.fft2(wide, dim=(-2, -1)).real.to(x.dtype)
