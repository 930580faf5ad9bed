"""The recipe of pre-training: images teach a model before anybody has named a class."""

import operator
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from annotated_types import Interval, MultipleOf
from pydantic import Field, NonNegativeFloat, PositiveFloat, model_validator

from regard.models import SASAResNetConfig, ViTConfig, mixers_that_need_all
from regard.recipes.classification import ClassificationModelSection
from regard.recipes.recipe import Recipe, changed, is_default
from regard.recipes.sections import (
    Count,
    FeaturesSection,
    Fraction,
    ImageAugmentSection,
    ModelSection,
    OpenFraction,
    Pixels,
    Section,
    TrainSection,
    WholeImagesSection,
)

SELF = "self"
DINOV2 = "dinov2_"  # with which the names of all sizes of DINOv2 begin


class PretrainingModelSection(ModelSection):
    def config(self, **of_the_data: int) -> ViTConfig | SASAResNetConfig:
        config = super().config(**of_the_data)
        if not isinstance(config, ViTConfig | SASAResNetConfig):
            raise self.not_for("pretraining", ViTConfig, SASAResNetConfig)
        return config


class PretrainingAugmentSection(ImageAugmentSection):
    crop_scale: Annotated[float, Interval(ge=1e-4, le=1)] = 1.0
    """Smallest fraction of the area that a view of an image shows; 1 shows the whole image."""
    rotation: Annotated[float, Interval(ge=0, le=180)] = 0.0
    """Degrees by which a view is turned, at most, to either side."""
    colour: Fraction = 0.0
    """Strength of random changes of brightness, contrast and saturation in what the student sees. A teacher sees the
    colours as they are."""


class PretrainSection(Section):
    method: Literal["distill", "mae", "simmim"] = "distill"
    """What the images teach. `distill`: to see what a frozen teacher sees in them. `mae`: to draw hidden patches from
    the visible ones alone (He et al. 2022); `simmim`: the same with mask tokens, for every mixer (Xie et al. 2022)."""
    teacher: str | None = Field(default=None, exclude_if=lambda value: value is None)
    """Of `distill`: a name of the catalogue, a run of one's own, whose classes are learned too, or `self`: the moving
    average of the model itself. `auto`, which holds unless given, is DINOv2 as it is at hand."""
    teacher_hash: str | None = Field(default=None, exclude_if=operator.not_)
    """SHA-256 of the file behind `teacher`. Another file under this name is an error."""
    teacher_size: Pixels | None = Field(default=None, exclude_if=lambda value: value is None)
    """Height and width in pixels of what the teacher sees: 224, or a run's own, unless given."""
    teacher_block: Count | None = Field(default=None, exclude_if=lambda value: value is None)
    """Of a ViT that teaches, the block after which its features are taken, from 1; the last one, with the norm behind
    it, unless given. Of things that the teacher never saw, those in the middle tell more."""
    start: str | None = Field(default=None, exclude_if=operator.not_)
    """Weights to begin from, as `model.weights` of a classifier: a run, a file or a name of the catalogue."""
    start_hash: str | None = Field(default=None, exclude_if=operator.not_)
    """SHA-256 of the file behind `start`, likewise."""
    pooled_weight: NonNegativeFloat = 1.0
    """Of the loss of the pooled features (of DINOv2: the class token), in the loss of distillation."""
    pixels_weight: NonNegativeFloat = 1.0
    """Of the loss of the patches' features."""
    logits_weight: NonNegativeFloat = 0.1
    """Of the loss of the classes, where the teacher has some. At first it is some ten times as large as the others."""
    temperature: PositiveFloat = 2.0
    """By which both models' logits are divided there (Hinton et al. 2015)."""
    mask_ratio: OpenFraction | None = Field(default=None, exclude_if=lambda value: value is None)
    """Fraction of the patches that is hidden: 0.75 for `mae`, 0.6 for others, unless given."""
    normalised_patches: bool = True
    """Whether `mae` draws each patch with a mean of 0 and a deviation of 1."""
    decoder_dim: Annotated[int, Interval(ge=32, le=65_536), MultipleOf(32)] = 128
    """Width of the decoder of `mae`."""
    decoder_depth: Annotated[int, Interval(ge=0, le=64)] = 2
    momentum: Annotated[float, Interval(ge=0, lt=1)] = 0.999
    """Of the moving average that `teacher = "self"` learns from."""

    @property
    def fraction_hidden(self) -> float:
        return self.mask_ratio or (0.75 if self.method == "mae" else 0.6)

    @property
    def has_teacher(self) -> bool:
        """Whether there is another model to learn from."""
        return self.method == "distill" and self.teacher != SELF

    @model_validator(mode="after")
    def _fits_together(self) -> "PretrainSection":
        if self.method != "distill" and self.teacher is not None:
            raise ValueError(f"pretrain.teacher: {self.method} learns from the images alone; distill has a teacher")
        for key, of in (("teacher_hash", "teacher"), ("start_hash", "start")):
            if getattr(self, key) and not getattr(self, of):
                raise ValueError(f"pretrain.{key} is about pretrain.{of}, which is not given")
        for key in ("teacher_size", "teacher_block"):
            if getattr(self, key) is not None and not self.has_teacher:
                raise ValueError(f"pretrain.{key}: there is no teacher")
        return self


class PretrainingRecipe(Recipe):
    task: Literal["pretraining"]
    model: PretrainingModelSection
    data: WholeImagesSection
    augment: PretrainingAugmentSection = PretrainingAugmentSection()
    train: TrainSection
    pretrain: PretrainSection = PretrainSection()
    features: FeaturesSection = Field(default=FeaturesSection(), exclude_if=is_default)

    @model_validator(mode="after")
    def _fits_together(self) -> "PretrainingRecipe":
        config, options = self.model.config(), self.pretrain
        if not options.has_teacher and not isinstance(config, ViTConfig):
            raise ValueError(f"pretrain.method: {options.method} is for a ViT; {self.model.name} is none")
        if options.method == "mae" and isinstance(config, ViTConfig) and (unable := mixers_that_need_all(config)):
            raise ValueError(
                f"pretrain.method: mae leaves tokens out, and the mixer {unable[0]} needs all of them; simmim serves "
                "every mixer"
            )
        if not options.has_teacher and changed(self.features):
            raise ValueError(f"features.{changed(self.features)[0]}: only a teacher's features are kept")
        if self.data.selection:
            raise ValueError("data.selection: nothing is decided in pre-training, so no images are held out for it")
        if self.train.label_smoothing:
            raise ValueError("train.label_smoothing: there are no labels in pre-training")
        return self


# What a model learns without labels has its own budget, and no use for other weights and classes.
_NOT_TAKEN = ("epochs", "max_steps", "max_minutes", "label_smoothing", "evaluate_every", "evaluate_every_steps")
MINUTES = 10.0


def as_pretraining(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a classification recipe as those of a pre-training of its model, on its data, for ten minutes.

    What has a meaning there alone is left out: classes, labels, weights, mixup and the like.
    """
    kinds: dict[str, type[Section]] = {
        "data": WholeImagesSection,
        "augment": PretrainingAugmentSection,
        "train": TrainSection,
    }
    found: dict[str, Any] = {"task": "pretraining", "seed": values.get("seed", 0)}
    model = values.get("model", {})
    if isinstance(model, Mapping):
        left_out = (*ClassificationModelSection.model_fields, "num_classes")
        model = {key: value for key, value in model.items() if key == "name" or key not in left_out}
    found["model"] = model
    for name, kind in kinds.items():
        section = values.get(name, {})
        if isinstance(section, Mapping):
            known = [key for key in section if key in kind.model_fields and key not in (*_NOT_TAKEN, "selection")]
            section = {key: section[key] for key in known}
        found[name] = section
    if isinstance(found["train"], dict):
        found["train"] |= {"max_minutes": MINUTES}
    return {**found, **{key: values[key] for key in ("pretrain", "features") if key in values}}


def put_another_teacher(values: dict[str, Any], overrides: Mapping[str, Any]) -> None:
    """Takes out of a file's values what was meant for its own teacher, where overrides name another one, or none."""
    method, teacher = overrides.get("pretrain.method"), overrides.get("pretrain.teacher")
    section = values.get("pretrain")
    has_none = method in ("mae", "simmim") or teacher == SELF
    if not isinstance(section, dict) or (teacher is None and not has_none):
        return
    if has_none:
        section.pop("teacher", None)
        values.pop("features", None)
    if has_none or not str(teacher).startswith(DINOV2):
        for key in ("teacher_hash", "teacher_size", "teacher_block"):
            section.pop(key, None)
