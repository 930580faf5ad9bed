"""A small frozen model, images, and the jobs that its features are."""

import hashlib
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from regard.tasks.features.extract import FrozenFeatures, Job, weights_hash
from regard.tasks.features.store import FeatureStore


class Frozen(nn.Module):
    """Maps of stride 4, (3, rows, columns); it counts the images that it has seen."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 4, 4)
        self.dropout = nn.Dropout(0.5)
        self.seen: list[tuple[int, ...]] = []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(tuple(images.shape))
        found: Tensor = self.dropout(self.conv(images))
        return found

    @property
    def images(self) -> int:
        """How many it has seen, without the black one by which room is estimated."""
        return sum(batch for batch, *_ in self.seen)


@pytest.fixture
def module() -> Frozen:
    return Frozen()


@pytest.fixture
def make_jobs() -> Callable[..., list[Job]]:
    """Jobs of random images; those of one seed are the same."""

    def make(*sizes: tuple[int, int], seed: int = 0, view: str = "") -> list[Job]:
        found = []
        for number, size in enumerate(sizes):
            image = torch.rand(3, *size, generator=torch.Generator().manual_seed(100 * seed + number))
            digest = hashlib.blake2b(image.numpy().tobytes(), digest_size=16).hexdigest()
            found.append(Job(digest, view, f"image {number}", partial(torch.Tensor.clone, image)))
        return found

    return make


@pytest.fixture
def make_frozen() -> Callable[..., FrozenFeatures]:
    def make(module: nn.Module, store: FeatureStore | None = None, **options: Any) -> FrozenFeatures:
        options = {"dtype": "fp32", "precision": "fp32", "preprocessing": {"size": 8}} | options
        return FrozenFeatures(module, module, weights=weights_hash(module), store=store, **options)

    return make
