"""What an explanation is of: the score of a class; or, of a model without a head, how like its features stay."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from regard.errors import NOT_FINITE, RegardError, unknown

ClassChoice = int | str | None


@dataclass(frozen=True)
class Target:
    """The score of one class for each image; without a head, the cosine with the features of the whole image."""

    labels: tuple[int, ...]
    """The class of each image; empty for a model without a head."""
    name: str
    """What a picture says it is of."""
    reference: Float[Tensor, "batch features"] | None = None
    """The features of the whole images, of a model without a head."""
    multi_label: bool = False

    def score(self, output: Float[Tensor, "batch outputs"]) -> Float[Tensor, " batch"]:
        """What is differentiated: the class's logit, or the cosine."""
        if self.reference is not None:
            return F.cosine_similarity(output, self.reference.expand_as(output), dim=1)
        labels = self.labels * len(output) if len(self.labels) == 1 else self.labels
        return output[range(len(output)), list(labels)]

    def measure(self, output: Float[Tensor, "batch outputs"]) -> Float[Tensor, " batch"]:
        """What curves show: the class's probability, or the cosine."""
        if self.reference is not None:
            return self.score(output)
        return self.score(output.sigmoid() if self.multi_label else output.softmax(1))

    @property
    def measured(self) -> str:
        """The name of what curves show."""
        return "cosine with the whole image's features" if self.reference is not None else f"probability of {self.name}"


def target_of(
    model: nn.Module,
    output: Float[Tensor, "batch outputs"],
    target: ClassChoice = None,
    *,
    class_names: Sequence[str] = (),
    multi_label: bool = False,
) -> Target:
    """The target for images whose output is known: a class by number or name; unless given, each image's likeliest.

    RegardError for a class that is not there, for any class of a model without a head, and for numbers that are not
    finite.
    """
    if not isinstance(output, Tensor) or output.ndim != 2:
        raise RegardError(f"explain: a {type(model).__name__} does not give a row of scores for each image")
    if not bool(output.isfinite().all()):
        raise RegardError(f"explain: {NOT_FINITE}")
    if getattr(model, "num_classes", None) == 0:
        if target is not None:
            raise RegardError(f"target {target!r}: the model has no head, and so no classes; leave the target out")
        return Target((), "no class: the model has no head", output.detach())
    count = output.shape[1]
    names = tuple(class_names) if len(class_names) == count else tuple(map(str, range(count)))
    if target is None:
        labels = tuple(output.argmax(1).tolist())
    elif isinstance(target, str) and target in names:
        labels = (names.index(target),)
    elif isinstance(target, str) and not target.lstrip("-").isdigit():
        raise unknown("class", target, names, where="target")
    elif not 0 <= int(target) < count:
        raise RegardError(f"target {target} is not there: the model has {count} classes, 0 to {count - 1}")
    else:
        labels = (int(target),)
    shown = names[labels[0]] if len(set(labels)) == 1 else "each image's likeliest class"
    return Target(labels, shown, multi_label=multi_label)
