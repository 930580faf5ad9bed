"""What a recipe is, whatever its task, and what a shipped one claims to reach."""

from typing import Annotated, Any, Literal

from annotated_types import Interval
from pydantic import BaseModel, PositiveFloat, model_validator

from regard.recipes.sections import AugmentSection, DataSection, FeaturesSection, ModelSection, Section, TrainSection

TaskName = Literal["classification", "detection", "pretraining", "seq2seq", "next-token"]


class Claim(Section):
    """What a shipped recipe is meant to reach; the benchmarks check it."""

    command: str
    metric: str
    at_least: float | None = None
    at_most: float | None = None
    """The one where more is better, the other where less is."""
    minutes: PositiveFloat
    """On two processor cores."""

    @model_validator(mode="after")
    def _says_one_thing(self) -> "Claim":
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError("claim: needs one of at_least and at_most")
        return self

    def kept_by(self, found: float) -> bool:
        return found >= self.at_least if self.at_least is not None else found <= (self.at_most or 0.0)

    def __str__(self) -> str:
        bound = f"≥ {self.at_least:g}" if self.at_least is not None else f"≤ {self.at_most:g}"
        return f"{self.metric} {bound} in {self.minutes:g} min"


class Recipe(Section):
    """The keys of every task. Each task has a class of its own, with its own sections."""

    title: str = ""
    task: TaskName
    seed: Annotated[int, Interval(ge=0, lt=2**63)] = 0
    """Draws the weights, the order of the data and the augmentation."""
    claim: Claim | None = None
    otherwise: str | None = None
    """A recipe that does not need the weights which this one starts from; the error names it where they are missing."""
    model: ModelSection
    data: DataSection
    augment: AugmentSection = AugmentSection()
    train: TrainSection

    def to_dict(self) -> dict[str, Any]:
        """As TOML takes it: nothing that is None. The claim is left out, since overrides may have undone it."""
        return self.model_dump(mode="json", exclude_none=True, exclude={"claim"})


def is_default(features: FeaturesSection) -> bool:
    """Whether the section is left out of a written recipe: older ones have none."""
    return features == FeaturesSection()


def require_frozen(features: FeaturesSection, freeze: str | int) -> None:
    """ValueError for features that nobody computes."""
    if freeze != "backbone" and changed(features):
        raise ValueError(
            f"features.{changed(features)[0]}: features are kept of a frozen backbone; set model.freeze to backbone"
        )


def changed(section: BaseModel) -> list[str]:
    """The keys of a section that have another value than their default."""
    fields = type(section).model_fields
    return [
        name for name, field in fields.items() if not field.is_required() and getattr(section, name) != field.default
    ]
