"""Images as patches, and which of the patches a model may see."""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor


def patches_of(
    images: Float[Tensor, "batch channels height width"], size: int
) -> Float[Tensor, "batch patches values"]:
    """Images as their size × size patches, row by row; the values of a patch as its convolution orders them."""
    rows, columns = images.shape[2] // size, images.shape[3] // size
    split = images.unflatten(3, (columns, size)).unflatten(2, (rows, size))  # batch, channels, row, y, column, x
    return split.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def images_of(
    patches: Float[Tensor, "batch patches values"], size: int, rows: int
) -> Float[Tensor, "batch channels height width"]:
    """The inverse of `patches_of`, for images of so many rows of patches."""
    split = patches.unflatten(2, (-1, size, size)).unflatten(1, (rows, -1))  # batch, row, column, channels, y, x
    return split.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)


def hidden_patches(
    order: Int64[Tensor, "batch patches"], fraction: float
) -> tuple[Int64[Tensor, "batch visible"], Bool[Tensor, "batch patches"]]:
    """Which patches stay visible, and True for each one that is hidden.

    order: the patches of each image in a random order. The last `fraction` of them are hidden, as MAE shuffles (He et
    al. 2022, section 3); at least one is, and at least one is not.
    """
    count = order.shape[1]
    visible = order[:, : min(max(round(count * (1 - fraction)), 1), max(count - 1, 1))]
    return visible, torch.ones_like(order, dtype=torch.bool).scatter(1, visible, False)
