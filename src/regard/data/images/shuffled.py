"""Labels that are wrong on purpose: a comparison has to find a contender that learned from them."""

import torch
from jaxtyping import UInt8
from torch import Tensor

from regard.data.images.sources import ImageSource
from regard.data.order import seed_for

_OF_SHUFFLING = 7  # another draw than that of the split, from the same seed


class ShuffledLabels(ImageSource):
    """The same images, of which round(fraction · n), drawn by `seed`, have exchanged their labels at random."""

    def __init__(self, source: ImageSource, fraction: float, seed: int) -> None:
        self.source, self.num_classes = source, source.num_classes
        self.skipped, self.sizes = source.skipped, source.sizes
        draw = torch.Generator().manual_seed(seed_for(seed, _OF_SHUFFLING))
        chosen = torch.randperm(len(source), generator=draw)[: round(fraction * len(source))]
        others = chosen[torch.randperm(len(chosen), generator=draw)]
        labels = list(source.labels)
        for here, there in zip(chosen.tolist(), others.tolist(), strict=True):
            labels[here] = source.labels[there]
        self.labels = tuple(labels)

    def read(self, index: int) -> UInt8[Tensor, "channels height width"]:
        return self.source.read(index)

    def name(self, index: int) -> str:
        return self.source.name(index)

    def digest(self, index: int) -> str:
        return self.source.digest(index)
