"""What a classifier says about one image."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape


@dataclass(frozen=True)
class Prediction:
    """All classes of one image, the most probable first."""

    name: str
    """The image's path, or a name such as images[3]."""
    class_names: tuple[str, ...]
    probabilities: tuple[float, ...]
    """They sum to 1; or, where an image may have several classes, each stands for itself."""
    thresholds: tuple[float, ...] | None = None
    """Where an image may have several classes: from which probability on it has each."""

    @property
    def label(self) -> str:
        """The most probable class."""
        return self.class_names[0]

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes of the image: the most probable one; or those, perhaps none, whose probability is high enough."""
        if self.thresholds is None:
            return self.class_names[:1]
        rows = zip(self.class_names, self.probabilities, self.thresholds, strict=True)
        return tuple(name for name, probability, least in rows if probability >= least)

    @property
    def score(self) -> float:
        return self.probabilities[0]

    def top(self, count: int | None = None) -> list[tuple[str, float]]:
        """The `count` most probable classes, or all, with their probabilities."""
        return list(zip(self.class_names[:count], self.probabilities[:count], strict=True))

    def probabilities_of(self, class_names: Sequence[str]) -> list[float]:
        return [dict(self.top())[name] for name in class_names]

    def _repr_html_(self) -> str:
        """A notebook shows the five most probable classes; where an image may have several, its own are marked."""
        chosen = self.labels if self.thresholds is not None else ()
        rows = "".join(
            f"<tr><td>{'✓ ' if label in chosen else ''}{escape(label)}</td><td>{score:.1%}</td></tr>"
            for label, score in self.top(5)
        )
        return f"<table><caption>{escape(self.name)}</caption>{rows}</table>"
