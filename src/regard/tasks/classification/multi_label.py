"""How good a classifier is whose images may have several classes, or none."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from regard.errors import RegardError
from regard.tasks.classification.metrics import ClassFigures, Evaluation

LOWEST = -1e30  # what a logit that is NaN or infinite counts as


@dataclass(frozen=True)
class LabelFigures(ClassFigures):
    """One class against its absence: precision, recall and F1 at `threshold`, and over all thresholds `ap`, the average
    precision, which is None where no image has the class."""

    ap: float | None
    threshold: float


@dataclass(frozen=True)
class MultiLabelEvaluation(Evaluation):
    """The logits of a set of images beside their true classes, a row of zeros and ones for each image."""

    labels: Int[Tensor, "images num_classes"]
    thresholds: tuple[float, ...] = ()
    """From this probability on an image has a class."""

    @property
    def probabilities(self) -> Float[Tensor, "images num_classes"]:
        return self.logits.sigmoid()

    @property
    def predicted(self) -> Int[Tensor, "images num_classes"]:
        return (self.probabilities >= torch.tensor(self.thresholds, dtype=torch.float64)).long()

    def metrics(self) -> dict[str, float]:
        """`map` (the mean of the classes' average precision), `f1` (the mean of their F1, each at its threshold),
        `exact_match` (the images whose classes are all right) and `loss` (mean binary cross-entropy in nats).

        Classes that no image has are left out of `map` and `f1`. RegardError if there is no image.
        """
        if not self.names:
            raise RegardError(f"evaluation: there is no image that can be read ({len(self.skipped)} were skipped)")
        occurring = [figures for figures in self.per_class() if figures.images]
        sound = self.logits.isfinite().all(1)
        return {
            "map": _mean([figures.ap for figures in occurring if figures.ap is not None]),
            "f1": _mean([figures.f1 for figures in occurring]),
            "exact_match": ((self.predicted == self.labels).all(1) & sound).double().mean().item(),
            "loss": F.binary_cross_entropy_with_logits(self.logits.double(), self.labels.double()).item(),
        }

    def confusion(self) -> Int[Tensor, "num_classes 2 2"]:
        """For each class, images by truth (row: without it, with it) and prediction (column), as scikit-learn's
        multilabel_confusion_matrix."""
        truth, predicted = self.labels.bool(), self.predicted.bool()
        cells = [[(truth == row) & (predicted == column) for column in (False, True)] for row in (False, True)]
        return torch.stack([torch.stack([cell.sum(0) for cell in row]) for row in cells]).permute(2, 0, 1)

    def per_class(self) -> list[LabelFigures]:
        from sklearn.metrics import average_precision_score  # it takes over a second to import

        scores = self.logits.nan_to_num(nan=LOWEST, posinf=LOWEST, neginf=LOWEST).numpy()
        found = []
        for index, ((_, wrong), (missed, right)) in enumerate(self.confusion().tolist()):
            images = missed + right
            ap = float(average_precision_score(self.labels[:, index].numpy(), scores[:, index])) if images else None
            found.append(
                LabelFigures(
                    self.class_names[index],
                    precision=right / max(right + wrong, 1),
                    recall=right / max(images, 1),
                    f1=2 * right / max(2 * right + wrong + missed, 1),
                    images=images,
                    ap=ap,
                    threshold=self.thresholds[index],
                )
            )
        return found

    def details(self) -> dict[str, Any]:
        """`per_class`: the figures of each class."""
        return {"per_class": [vars(figures) for figures in self.per_class()]}

    def mistakes(self) -> list[int]:
        """The indices of images with a class too many or too few, the one of the surest error first.

        That is the image whose least likely true class, or likeliest wrong one, is furthest on the wrong side.
        """
        probabilities, wrong = self.probabilities, self.predicted != self.labels
        errors = torch.where(wrong, (probabilities - self.labels).abs(), 0.0).amax(1)
        found = wrong.any(1).nonzero().flatten()
        return found[errors[found].argsort(descending=True, stable=True)].tolist()


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else float("nan")
