"""What masked image modelling is trained with: how well hidden patches return."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

EPSILON = 1e-6


def normalised_patches(patches: Float[Tensor, "batch patches values"]) -> Float[Tensor, "batch patches values"]:
    """Each patch minus its mean, over its standard deviation: MAE's better target (He et al. 2022, section 3)."""
    variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
    return (patches - mean) / (variance + EPSILON).sqrt()


def masked_loss(
    predicted: Float[Tensor, "batch patches values"],
    wanted: Float[Tensor, "batch patches values"],
    hidden: Bool[Tensor, "batch patches"],
    *,
    power: int,
) -> Float[Tensor, ""]:
    """The mean of |predicted - wanted|^power over the hidden patches alone.

    power: 2 for MAE (He et al. 2022, section 3), 1 for SimMIM (Xie et al. 2022, section 3.4).
    """
    difference = (predicted.float() - wanted.float())[hidden].abs()
    return (difference if power == 1 else difference.square()).mean()
