"""Random changes of colour for a whole batch at once, each image's own."""

import torch
from jaxtyping import Float
from torch import Tensor

# Of red, green and blue in grey (ITU-R BT.601), as Pillow and torchvision have them.
GREY = (0.299, 0.587, 0.114)


def colour_factors(strength: float) -> Float[Tensor, "3"]:
    """Factors of brightness, contrast and saturation, each between 1 - strength and 1 + strength."""
    return 1 + strength * (2 * torch.rand(3) - 1)


def with_colours(
    images: Float[Tensor, "batch channels height width"], factors: Float[Tensor, "batch 3"]
) -> Float[Tensor, "batch channels height width"]:
    """Images in [0, 1] with their brightness, contrast and saturation changed, in this order, as `v2.ColorJitter` does.

    Brightness f x; contrast f x + (1 - f) m, with m the mean of the image's grey; saturation f x + (1 - f) grey(x).
    """
    brightness, contrast, saturation = factors[:, :, None, None, None].unbind(1)
    images = (images * brightness).clamp(0, 1)
    images = torch.lerp(_grey(images).mean((2, 3), keepdim=True), images, contrast).clamp(0, 1)
    if images.shape[1] == 1:
        return images
    return torch.lerp(_grey(images), images, saturation).clamp(0, 1)


def _grey(images: Tensor) -> Float[Tensor, "batch 1 height width"]:
    if images.shape[1] == 1:
        return images
    return (images * images.new_tensor(GREY)[:, None, None]).sum(1, keepdim=True)
