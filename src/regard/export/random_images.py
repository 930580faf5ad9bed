"""Images of random pixels, prepared for a model: what engines are compared and timed on where no others are at hand."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from regard.data.images.transforms import Normalise
from regard.tasks import Classifier, Detector


def random_images(predictor: Classifier | Detector, count: int, size: tuple[int, int] | None = None) -> Tensor:
    """(count, channels, height, width), always the same; of the size that the predictor prepares unless given."""
    pre: Any = predictor.preprocessing
    shape = size or usual_size(predictor)
    random, normalise = np.random.default_rng(0), Normalise(pre.mean, pre.std)
    pixels = [random.integers(256, size=(pre.channels, *shape)).astype(np.uint8) for _ in range(count)]
    return torch.stack([normalise(torch.from_numpy(one)) for one in pixels])


def usual_size(predictor: Classifier | Detector) -> tuple[int, int]:
    """(height, width) of a prepared image; of a detector, of a square one."""
    if isinstance(predictor, Classifier):
        height, width = predictor.preprocessing.img_size
        return height, width
    return predictor.preprocessing.prepared_size(predictor.preprocessing.shortest, predictor.preprocessing.shortest)
