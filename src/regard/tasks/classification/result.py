"""What a classifier says of one image."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Prediction:
    """One image's answer: the classes, most probable first."""

    name: str
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
