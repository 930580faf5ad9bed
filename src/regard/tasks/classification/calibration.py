"""From which probability on an image has a class, where it may have several.

Measured on images that are held out of training for this, and of which no reported figure comes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from regard.data import ImageSource, Selected, split_label_sets
from regard.data.images.doubles import doubles
from regard.data.images.folder import FolderImages
from regard.data.images.labels import classes_of
from regard.errors import RegardError, shown
from regard.tasks.thresholds import best_threshold

if TYPE_CHECKING:
    from regard.tasks.classification.multi_label import MultiLabelEvaluation

DEFAULT = 0.5  # where nothing was measured
# From fewer labels nothing is measured; a class with fewer takes the threshold of all classes together.
LEAST_LABELS, LEAST_OF_A_CLASS = 20, 10


@dataclass(frozen=True)
class LabelThresholds:
    """The least probability of each class, and how it was found."""

    class_names: tuple[str, ...]
    thresholds: tuple[float, ...]
    """Of each class, the probability of the largest F1; `threshold` for a class of too few images."""
    threshold: float
    """That of all classes together."""
    pooled: tuple[str, ...]
    """The classes that have `threshold`."""
    images: int
    """How many it was measured on; or would have been, and were too few."""
    source: str
    """"measured" or "default"."""

    @classmethod
    def default(cls, class_names: tuple[str, ...], images: int = 0) -> "LabelThresholds":
        return cls(class_names, (DEFAULT,) * len(class_names), DEFAULT, class_names, images, "default")

    def __str__(self) -> str:
        if self.source == "default":
            return f"probability {DEFAULT:g} by default: too few images were held out of training to measure it on"
        low, high = min(self.thresholds), max(self.thresholds)
        what = f"probability {low:.2f}" if low == high else f"probabilities of {low:.2f} to {high:.2f} by class"
        rare = f"; {len(self.pooled)} of {len(self.class_names)} classes, in fewer than {LEAST_OF_A_CLASS}, take "
        rare = f"{rare}{self.threshold:.2f}" if self.pooled else ""
        return f"{what}, measured on {self.images:,} images that were held out of training{rare}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as metadata.json holds them; thresholds by the names of the classes."""
        return {
            "thresholds": dict(zip(self.class_names, self.thresholds, strict=True)),
            "threshold": self.threshold,
            "pooled": list(self.pooled),
            "images": self.images,
            "source": self.source,
        }

    @classmethod
    def from_dict(cls, values: object, class_names: tuple[str, ...], where: str) -> "LabelThresholds":
        """The inverse of `to_dict`. RegardError, which begins with `where`, for anything else."""
        wanted = {"thresholds", "threshold", "pooled", "images", "source"}
        if not isinstance(values, Mapping) or not wanted <= values.keys():
            raise RegardError(f"{where}: calibration must be a table with {', '.join(sorted(wanted))}")
        by_name, pooled, images = values["thresholds"], values["pooled"], values["images"]
        if not isinstance(by_name, Mapping) or set(by_name) != set(class_names):
            raise RegardError(
                f"{where}: calibration.thresholds must have a number for each class, got {shown(by_name)}"
            )
        for name, number in (*by_name.items(), ("threshold", values["threshold"])):
            if type(number) not in (int, float) or not 0 <= number <= 1:
                raise RegardError(f"{where}: calibration: {shown(name)} must be from 0 to 1, got {shown(number)}")
        if not isinstance(pooled, list) or not set(map(str, pooled)) <= set(class_names):
            raise RegardError(f"{where}: calibration.pooled must be names of classes, got {shown(pooled)}")
        if type(images) is not int or images < 0:
            raise RegardError(f"{where}: calibration.images must be a whole number, got {shown(images)}")
        if values["source"] not in ("measured", "default"):
            raise RegardError(f"{where}: calibration.source must be measured or default, got {shown(values['source'])}")
        thresholds = tuple(float(by_name[name]) for name in class_names)
        return cls(class_names, thresholds, float(values["threshold"]), tuple(pooled), images, values["source"])


def measured_thresholds(found: "MultiLabelEvaluation") -> LabelThresholds:
    """Of each class the probability of the largest F1 on the images of an evaluation; the default for too few."""
    probabilities, has_it = found.probabilities.numpy(), found.labels.numpy() == 1
    number = int(has_it.sum())
    if number < LEAST_LABELS or found.not_finite:
        return LabelThresholds.default(found.class_names, len(found.names))
    together = best_threshold(probabilities.ravel(), has_it.ravel(), number, DEFAULT)
    thresholds, pooled = [], []
    for index, name in enumerate(found.class_names):
        own = int(has_it[:, index].sum())
        if own < LEAST_OF_A_CLASS:
            pooled.append(name)
            thresholds.append(together)
        else:
            thresholds.append(best_threshold(probabilities[:, index], has_it[:, index], own, together))
    return LabelThresholds(found.class_names, tuple(thresholds), together, tuple(pooled), len(found.names), "measured")


def taken_out(source: ImageSource, fraction: float, seed: int, where: str) -> tuple[ImageSource, ImageSource]:
    """(what is trained on, what is held out of it), with each class on both sides wherever that can be.

    Files of the same bytes go together. RegardError where no image can be held out.
    """
    sets = [classes_of(label) for label in source.labels]
    groups = doubles(source.paths) if isinstance(source, FolderImages) else []
    kept, held = split_label_sets(sets, fraction=fraction, seed=seed, where=where, groups=groups)
    return Selected(source, kept), Selected(source, held)


def held_for_thresholds(
    source: ImageSource, fraction: float, seed: int, where: str
) -> tuple[ImageSource, ImageSource | None, int]:
    """The same, or (`source`, None) where it would hold too few labels to measure anything on; and its images."""
    try:
        kept, held = taken_out(source, fraction, seed, where)
    except RegardError:  # each image has a class that no other has, or no fraction is asked for
        return source, None, 0
    return (kept, held, len(held)) if enough_labels(held) else (source, None, len(held))


def enough_labels(source: ImageSource) -> bool:
    return sum(len(classes_of(label)) for label in source.labels) >= LEAST_LABELS
