"""What a classifier says about one image."""

from dataclasses import dataclass
from html import escape


@dataclass(frozen=True)
class Prediction:
    """All classes of one image, the most probable first."""

    name: str
    """The image's path, or a name such as images[3]."""
    class_names: tuple[str, ...]
    probabilities: tuple[float, ...]

    @property
    def label(self) -> str:
        return self.class_names[0]

    @property
    def score(self) -> float:
        return self.probabilities[0]

    def top(self, count: int) -> list[tuple[str, float]]:
        return list(zip(self.class_names[:count], self.probabilities[:count], strict=True))

    def _repr_html_(self) -> str:
        """A notebook shows the five most probable classes."""
        rows = "".join(f"<tr><td>{escape(label)}</td><td>{score:.1%}</td></tr>" for label, score in self.top(5))
        return f"<table><caption>{escape(self.name)}</caption>{rows}</table>"
