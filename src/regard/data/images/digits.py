"""`digits`: real handwritten digits that come with scikit-learn, so that everything can be tried without a network."""

import numpy as np
import torch

from regard.data.images.pixels import require_channels
from regard.data.images.sources import ImageClasses, InMemoryImages, split_source


def open_digits(channels: int, val_fraction: float, split_seed: int) -> ImageClasses:
    """1,797 digits of 8×8 pixels. Their ink counts 0..16 become 0..255, dark background; 3 channels repeat the one."""
    from sklearn.datasets import load_digits  # it takes over a second to import

    require_channels(channels)
    digits = load_digits()
    pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    images = torch.from_numpy(pixels)[:, None].repeat(1, channels, 1, 1)
    labels = tuple(int(label) for label in digits.target)
    names = tuple(str(digit) for digit in range(10))
    return split_source(
        InMemoryImages(images, labels, "digits"),
        names,
        address="digits",
        val_fraction=val_fraction,
        split_seed=split_seed,
    )
