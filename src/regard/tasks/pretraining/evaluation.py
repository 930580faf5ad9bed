"""What is measured on held-out images: the loss, and where there are labels what the features know of the classes."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from regard.tasks.features.logistic_regression import logistic_regression
from regard.tasks.features.neighbours import nearest_neighbours

NEIGHBOURS = 20
PENALTY = 10.0
"""Of the linear head's squared weights, on standardised features."""


@dataclass(frozen=True)
class Labelled:
    """What a head would read of some images, and their classes."""

    features: Float[Tensor, "images num_features"]
    labels: Int64[Tensor, " images"]

    @classmethod
    def joined(cls, parts: "Sequence[Labelled]") -> "Labelled":
        return cls(torch.cat([part.features for part in parts]), torch.cat([part.labels for part in parts]))


def linear_head(
    known: Float[Tensor, "known features"],
    labels: Int64[Tensor, " known"],
    asked: Float[Tensor, "asked features"],
    num_classes: int,
) -> Int64[Tensor, " asked"]:
    """The classes that logistic regression on standardised features gives."""
    std, mean = torch.std_mean(known, dim=0)
    std = torch.where(std > 0, std, 1.0)
    weight, bias = logistic_regression((known - mean) / std, labels, num_classes, penalty=PENALTY)
    return ((asked - mean) / std @ weight.T + bias).argmax(1)


@dataclass
class PretrainingEvaluation:
    """One process's shard of an evaluation."""

    loss_sum: float
    count: int
    num_classes: int
    """Of the data; 0 where there are no labels."""
    known: Labelled | None
    """Of training images, which classes are learned from."""
    asked: Labelled | None
    """Of held-out images."""
    right: Bool[Tensor, " images"] | None
    """Whether the student's own head finds the class, where it has the data's classes from its teacher."""
    names: tuple[str, ...]
    skipped: tuple[str, ...]
    not_finite: tuple[str, ...] = ()

    @classmethod
    def of_shards(cls, shards: "Sequence[PretrainingEvaluation]") -> "PretrainingEvaluation":
        known = [shard.known for shard in shards if shard.known is not None]
        asked = [shard.asked for shard in shards if shard.asked is not None]
        right = [shard.right for shard in shards if shard.right is not None]
        return cls(
            sum(shard.loss_sum for shard in shards),
            sum(shard.count for shard in shards),
            shards[0].num_classes,
            Labelled.joined(known) if known else None,
            Labelled.joined(asked) if asked else None,
            torch.cat(right) if right else None,
            tuple(name for shard in shards for name in shard.names),
            tuple(dict.fromkeys(name for shard in shards for name in shard.skipped)),
            tuple(name for shard in shards for name in shard.not_finite),
        )

    @cached_property
    def linear_right(self) -> Bool[Tensor, " images"] | None:
        """For each held-out image, whether a linear head on the features finds its class."""
        if self.known is None or self.asked is None or not self._are_finite:
            return None
        found = linear_head(self.known.features, self.known.labels, self.asked.features, self.num_classes)
        return found == self.asked.labels

    @property
    def _are_finite(self) -> bool:
        parts = [part.features for part in (self.known, self.asked) if part is not None]
        return all(bool(features.isfinite().all()) and len(features) > 0 for features in parts)

    def metrics(self) -> dict[str, float]:
        """`loss`; with labels `knn` and `linear`, the accuracy of the 20 nearest neighbours and of a linear head.

        With a teacher that knows the data's classes `accuracy`, that of the student's own head.
        """
        found = {"loss": self.loss_sum / max(self.count, 1)}
        if self.right is not None and len(self.right):
            found["accuracy"] = self.right.float().mean().item()
        if self.known is not None and self.asked is not None and self._are_finite:
            classes = nearest_neighbours(self.known.features, self.known.labels, self.asked.features, k=NEIGHBOURS)
            found["knn"] = (classes == self.asked.labels).float().mean().item()
            assert self.linear_right is not None
            found["linear"] = self.linear_right.float().mean().item()
        return found
