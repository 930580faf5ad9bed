"""A small frozen model, images, and the jobs that its features are."""

import hashlib

import pytest
import torch
from torch import nn

from regard.tasks.features.extract import FrozenFeatures, Job, weights_hash


class Frozen(nn.Module):
    """Maps of stride 4, (3, rows, columns); it counts the images that it has seen."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 4, 4)
        self.dropout = nn.Dropout(0.5)
        self.seen = []

    def forward(self, images):
        self.seen.append(tuple(images.shape))
        return self.dropout(self.conv(images))

    @property
    def images(self):
        """How many it has seen, without the black one by which room is estimated."""
        return sum(batch for batch, *_ in self.seen)


@pytest.fixture
def module():
    return Frozen()


@pytest.fixture
def make_jobs():
    """Jobs of random images; those of one seed are the same."""

    def make(*sizes, seed=0, view=""):
        found = []
        for number, size in enumerate(sizes):
            image = torch.rand(3, *size, generator=torch.Generator().manual_seed(100 * seed + number))
            digest = hashlib.blake2b(image.numpy().tobytes(), digest_size=16).hexdigest()
            found.append(Job(digest, view, f"image {number}", lambda image=image: image))
        return found

    return make


@pytest.fixture
def make_frozen():
    def make(module, store=None, **options):
        options = {"dtype": "fp32", "precision": "fp32", "preprocessing": {"size": 8}} | options
        return FrozenFeatures(module, module, weights=weights_hash(module), store=store, **options)

    return make
