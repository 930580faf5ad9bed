"""How good a classifier is, from its logits."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from regard.errors import RegardError


@dataclass(frozen=True)
class ClassFigures:
    """Precision, recall and F1 of one class in [0, 1], and its number of images."""

    name: str
    precision: float
    recall: float
    f1: float
    images: int


@dataclass(frozen=True)
class Evaluation:
    """The logits of a set of images beside their true classes."""

    logits: Float[Tensor, "images num_classes"]
    labels: Int[Tensor, " images"]
    names: tuple[str, ...]
    """The images' names."""
    class_names: tuple[str, ...]
    skipped: tuple[str, ...] = ()
    """Images that could not be read."""

    @staticmethod
    def joined(shards: Sequence["Evaluation"]) -> "Evaluation":
        """The shards of several processes as one."""
        return replace(
            shards[0],
            logits=torch.cat([shard.logits for shard in shards]),
            labels=torch.cat([shard.labels for shard in shards]),
            names=tuple(name for shard in shards for name in shard.names),
            skipped=tuple(name for shard in shards for name in shard.skipped),
        )

    @property
    def not_finite(self) -> tuple[str, ...]:
        """Images for which the model gave a logit that is NaN or infinite: the figures say nothing."""
        return tuple(self.names[index] for index in (~self.logits.isfinite().all(1)).nonzero().flatten().tolist())

    @property
    def predicted(self) -> Int[Tensor, " images"]:
        return self.logits.argmax(1)

    def metrics(self) -> dict[str, float]:
        """`accuracy`, `top5` (the right class among the first five) and `loss` (mean cross-entropy in nats).

        RegardError if there is no image.
        """
        if not self.names:
            raise RegardError(f"evaluation: there is no image that can be read ({len(self.skipped)} were skipped)")
        best = self.logits.topk(min(5, self.logits.shape[1])).indices
        hits = (best == self.labels[:, None]) & self.logits.isfinite().all(1, keepdim=True)  # NaN counts as large
        return {
            "accuracy": hits[:, 0].double().mean().item(),
            "top5": hits.any(1).double().mean().item(),
            "loss": F.cross_entropy(self.logits.double(), self.labels).item(),
        }

    def confusion(self) -> Int[Tensor, "num_classes num_classes"]:
        """The number of images of class i (row) that were predicted as class j (column)."""
        count = len(self.class_names)
        return torch.bincount(self.labels * count + self.predicted, minlength=count**2).reshape(count, count)

    def per_class(self) -> Sequence[ClassFigures]:
        from sklearn.metrics import precision_recall_fscore_support

        columns = precision_recall_fscore_support(
            self.labels.numpy(), self.predicted.numpy(), labels=range(len(self.class_names)), zero_division=0
        )
        rows = zip(self.class_names, *(column.tolist() for column in columns), strict=True)
        # scikit-learn gives the number of images as a float if a class has none.
        return [ClassFigures(name, p, r, f1, int(images)) for name, p, r, f1, images in rows]

    def details(self) -> dict[str, Any]:
        """`balanced_accuracy`, the mean recall of the classes that have images, and `per_class`, their figures."""
        sound = self.logits.isfinite().all(1)
        right = (self.predicted == self.labels) & sound
        recalls = [right[self.labels == label].double().mean().item() for label in self.labels.unique().tolist()]
        return {
            "balanced_accuracy": sum(recalls) / len(recalls),
            "per_class": [vars(figures) for figures in self.per_class()],
        }

    def mistakes(self) -> list[int]:
        """The indices of the misclassified images, the most confident mistake first."""
        confidence = self.logits.softmax(1).amax(1)
        wrong = (self.predicted != self.labels).nonzero().flatten()
        return wrong[confidence[wrong].argsort(descending=True, stable=True)].tolist()
