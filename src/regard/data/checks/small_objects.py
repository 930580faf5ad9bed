"""Objects that a model sees as less than one of its tokens."""

import math

import torch
from jaxtyping import Float32
from torch import Tensor

from regard.data.boxes.sources import DetectionSource
from regard.data.boxes.transforms import DetectionPreprocessing

# So many of the objects may be smaller than a token before a word is said; a larger size is meant to leave no more.
FEW = 0.1


def sides_of(source: DetectionSource, preprocessing: DetectionPreprocessing) -> Float32[Tensor, " objects"]:
    """The side of each object that is trained on: the root of its box's area, in pixels of the image as it is seen."""
    sides = [
        (
            (one.boxes_xyxy[:, 2:] - one.boxes_xyxy[:, :2])[~one.crowd].prod(1)
            * (seen[0] * seen[1] / (stored[0] * stored[1]))
        ).sqrt()
        for one, stored in zip(source.objects, source.sizes, strict=True)
        if len(one)
        for seen in [preprocessing.prepared_size(*stored)]
    ]
    return torch.cat([torch.zeros(0), *sides])


def enlarged(preprocessing: DetectionPreprocessing, factor: float) -> tuple[int, int]:
    """`shortest` and `longest` at which objects are `factor` times as large."""
    step = preprocessing.divisor
    shortest, longest = (
        math.ceil(pixels * factor / step) * step for pixels in (preprocessing.shortest, preprocessing.longest)
    )
    return shortest, longest


def too_small(source: DetectionSource, preprocessing: DetectionPreprocessing, token: int) -> str:
    """How many objects are smaller than a `token` of so many pixels, and the size that would do; "" for a few."""
    side = sides_of(source, preprocessing)
    small = int((side < token).sum())
    if not len(side) or small <= FEW * len(side):
        return ""
    needed = enlarged(preprocessing, token / max(float(side.quantile(FEW)), 1e-3))
    return (
        f"{small} of {len(side)} objects are smaller than a token, {token} × {token} pixels of an image of at most "
        f"{preprocessing.shortest} × {preprocessing.longest}, and will hardly be found; with --set "
        f"data.shortest={needed[0]} --set data.longest={needed[1]} nine of ten are as large as one"
    )
