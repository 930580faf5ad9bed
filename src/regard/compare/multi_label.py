"""Classification of images with several classes in the report: the figures of each class, and errors."""

from dataclasses import dataclass

from regard.compare.classification import (
    NUM_MISTAKES,
    ClassificationView,
    Evaluated,
    PerClass,
    Picture,
    _mixing_svg,
    per_class_table,
)
from regard.compare.contender import Contender


@dataclass(frozen=True)
class Section:
    name: str
    seed: int
    seeds: int
    num_images: int
    num_mistakes: int
    figures: dict[str, float]
    thresholds: str
    """How they were found."""
    per_class: PerClass
    mistakes: list[Picture]
    shown: Picture
    mixing: str
    """SVG; empty if the model has no token mixers."""


class MultiLabelView(ClassificationView):
    template = "multi_label.html.j2"
    about = (
        "mAP is the mean of the classes\u2019 average precision (over all thresholds) on the held-out images, with the "
        "final weights."
    )

    @property
    def num_held_out(self) -> None:
        return None  # the main metric is no proportion

    def facts(self) -> list[tuple[str, str]]:
        sets = [label for part in (self.data.train, self.data.val) for label in part.labels]
        number = sum(len(label) for label in sets if isinstance(label, tuple)) / max(len(sets), 1)
        return [*super().facts(), ("Labels", f"{number:.2f} of an image, on average")]

    def section(self, contender: Contender) -> Section:
        one = Evaluated.of(contender, self.data.val, self.task.recipe)
        found, mistakes = one.found, one.found.mistakes()
        predicted, truth = found.predicted.tolist(), found.labels.tolist()

        def words(row: list[int]) -> str:
            return ", ".join(name for name, has_it in zip(found.class_names, row, strict=True) if has_it) or "none"

        def picture(index: int) -> Picture:
            return one.picture(index, words(predicted[index]), 0.0, words(truth[index]))

        return Section(
            name=contender.name,
            seed=one.run.recipe().seed,
            seeds=len(contender.runs),
            num_images=len(found.names),
            num_mistakes=len(mistakes),
            figures=found.metrics(),
            thresholds=str(one.classifier.calibration),
            per_class=per_class_table(found.details()["per_class"]),
            mistakes=[picture(index) for index in mistakes[:NUM_MISTAKES]],
            shown=picture(0),
            mixing=_mixing_svg(one.classifier, one.image(0)),
        )
