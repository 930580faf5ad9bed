"""The recipe of classification."""

import operator
from typing import Annotated, Any, Literal

from annotated_types import Gt, Interval, Le
from pydantic import AfterValidator, Field, NonNegativeFloat, model_validator

from regard.models import SASAResNetConfig, ViTConfig
from regard.recipes.recipe import Recipe, changed, is_default, require_frozen
from regard.recipes.sections import (
    Count,
    FeaturesSection,
    Fraction,
    ImageAugmentSection,
    ImageModelSection,
    ImageTrainSection,
    Section,
    WholeImagesSection,
    with_selection,
)


def _require_alpha(value: float) -> float:
    if value and not 1e-3 <= value <= 1e3:
        raise ValueError(f"an alpha is 0 (off), or 0.001 to 1000, got {value:g}")
    return value


# The parameter of a beta distribution: with less, its draws are no numbers.
MixingAlpha = Annotated[NonNegativeFloat, AfterValidator(_require_alpha)]


class ClassificationModelSection(ImageModelSection):
    freeze: Literal["none", "backbone"] | Count = Field(default="none", exclude_if=lambda value: value == "none")
    """`backbone`: only the head learns, and the features of all images are computed once and kept. A number N: the
    first N blocks of a ViT, or stages of a SASA-ResNet, stay as they are, and all before them."""

    def config(self, **of_the_data: int) -> ViTConfig | SASAResNetConfig:
        config = super().config(**of_the_data)
        if not isinstance(config, ViTConfig | SASAResNetConfig):
            raise self.not_for("classification", ViTConfig, SASAResNetConfig)
        return config


class ClassificationDataSection(WholeImagesSection):
    sampling: Literal["uniform", "balanced"] = Field(default="uniform", exclude_if=lambda value: value == "uniform")
    """`balanced`: an epoch has as many images of each class, those of rare classes several times, some of others not at
    all. Of an image with several labels the rarest counts. With train.class_weights too, rare classes count twice."""
    shuffled_labels: Fraction = Field(default=0.0, exclude_if=operator.not_)
    """Fraction of the training images that exchange their labels: a proof that a comparison finds what is worse."""
    per_class: Count | None = Field(default=None, exclude_if=operator.not_)
    """Trains on so many images of each class alone, or all of a class that has fewer; what is held out stays. They are
    drawn before `selection` is taken out of them."""
    per_class_seed: Annotated[int, Interval(ge=0, lt=2**32)] = Field(default=0, exclude_if=operator.not_)
    """Draws them. It is apart from `seed` and `split_seed`, so that draws differ while the rest stays the same."""

    @model_validator(mode="after")
    def _draws_some(self) -> "ClassificationDataSection":
        if self.per_class_seed and self.per_class is None:
            raise ValueError("data.per_class_seed is about data.per_class, which is not given")
        return self


class ClassificationAugmentSection(ImageAugmentSection):
    shift: Annotated[int, Interval(ge=0, le=65_535)] = 0
    """Pixels of the resized image, at most, up, down, left or right."""
    crop_scale: Annotated[float, Interval(ge=1e-4, le=1)] = 1.0
    """Smallest fraction of the area that a random resized crop keeps; 1 is off."""
    rotation: Annotated[float, Interval(ge=0, le=180)] = 0.0
    """Degrees by which the image, or its random part, is turned, at most, to either side; corners are mirrored."""
    colour: Fraction = 0.0
    """Strength of random changes of brightness, contrast and saturation."""
    rand_augment: Annotated[int, Interval(ge=0, le=14)] = 0
    """RandAugment's number of operations, of the 14 that there are; 0 is off."""
    rand_augment_magnitude: Annotated[int, Interval(ge=0, le=30)] = 9
    erase: Fraction = 0.0
    """Probability of erasing a rectangle."""
    mixup: MixingAlpha = 0.0
    """Mixup's alpha; 0 is off. With cutmix too, each batch gets one of them."""
    cutmix: MixingAlpha = 0.0


class ClassificationTrainSection(ImageTrainSection):
    loss: Literal["cross_entropy", "focal"] = "cross_entropy"
    """`focal`: images that are classified well count less, by (1 - p)^focal_gamma; probabilities come out less sure."""
    focal_gamma: Annotated[float, Gt(0), Le(10)] = 2.0
    class_weights: Literal["none", "balanced"] = "none"
    """`balanced`: the loss of an image counts by images / (classes · images of its class); with several labels, that of
    each class by how rare its presence, or its absence, is."""
    layer_decay: Annotated[float, Gt(0), Le(1)] = 1.0
    """The learning rate of a ViT's block, divided by the learning rate of the block after it.

    The patch embedding counts as the block before the first."""
    solve_head: bool = False
    """The head begins as logistic regression on the features of all training images, the least loss that a linear head
    has on them. The steps come after it: of the head alone with `model.freeze`, else of all."""


class ClassificationEvaluateSection(Section):
    calibration: Annotated[float, Interval(ge=0, le=0.5)] = 0.1
    """Fraction of the training images of a multi-label set that is held out of training, to choose each class's
    threshold on it; with too few labels in it, all images are trained on, and the threshold is 0.5."""


class ClassificationRecipe(Recipe):
    task: Literal["classification"] = "classification"
    model: ClassificationModelSection
    data: ClassificationDataSection
    augment: ClassificationAugmentSection = ClassificationAugmentSection()
    train: ClassificationTrainSection
    evaluate: ClassificationEvaluateSection = Field(
        default=ClassificationEvaluateSection(), exclude_if=lambda value: value == ClassificationEvaluateSection()
    )
    features: FeaturesSection = Field(default=FeaturesSection(), exclude_if=is_default)

    @model_validator(mode="before")
    @classmethod
    def _selects(cls, values: Any) -> Any:
        return with_selection(values)

    @model_validator(mode="after")
    def _fits_together(self) -> "ClassificationRecipe":
        if not isinstance(self.model.config(), ViTConfig):
            for key, is_set in (
                ("model.freeze", self.model.freeze == "backbone"),
                ("train.layer_decay", self.train.layer_decay != 1),
            ):
                if is_set:
                    raise ValueError(f"{key} is for a ViT that classifies; {self.model.name} is none")
        has_two_heads = getattr(self.model.config(), "pool", "") == "distilled"
        if self.train.solve_head and has_two_heads:
            raise ValueError("train.solve_head is for a model with one head")
        if self.train.solve_head and self.model.freeze == "backbone":
            for key, is_set, instead in (
                ("train.loss", self.train.loss != "cross_entropy", "its loss is cross-entropy"),
                ("data.sampling", self.data.sampling != "uniform", "train.class_weights = balanced is the way there"),
            ):
                if is_set:
                    raise ValueError(f"{key}: train.solve_head solves for all images at once; {instead}")
        if self.train.focal_gamma != 2.0 and self.train.loss != "focal":
            raise ValueError(f"train.focal_gamma is for train.loss = focal; it is {self.train.loss}")
        if self.model.freeze == "backbone" and changed(self.augment):
            name = changed(self.augment)[0]
            raise ValueError(f"augment.{name}: with model.freeze features are computed once, and cannot be augmented")
        require_frozen(self.features, self.model.freeze)
        if self.features.views != 1:
            raise ValueError(f"features.views is {self.features.views}; of classification it is 1")
        return self
