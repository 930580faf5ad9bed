"""The recipe of detection."""

from typing import Annotated, Literal

from annotated_types import Interval
from pydantic import Field, PositiveFloat, model_validator

from regard.models import DETRConfig, DNDETRConfig
from regard.recipes.recipe import Recipe
from regard.recipes.sections import (
    Count,
    Fraction,
    ImageAugmentSection,
    ImageDataSection,
    ImageModelSection,
    Pixels,
    TrainSection,
)

Factor = Annotated[float, Interval(ge=0.01, le=100)]


class DetectionModelSection(ImageModelSection):
    pretrained_backbone: bool | str = Field(default=False, exclude_if=lambda value: not value)
    """Starts the backbone from weights of ImageNet, the hub's or those of an entry of the catalogue, and keeps its
    first stage as it is. `auto`: those of the catalogue for `backbone` that are at hand, as with `weights`."""
    pretrained_backbone_hash: str | None = Field(default=None, exclude_if=lambda value: not value)
    """SHA-256 of the file that `pretrained_backbone` names, likewise."""

    def config(self, **of_the_data: int) -> DETRConfig | DNDETRConfig:
        config = super().config(**of_the_data)
        if not isinstance(config, DETRConfig | DNDETRConfig):
            raise self.not_for("detection", DETRConfig, DNDETRConfig)
        return config


class DetectionDataSection(ImageDataSection):
    on_bad_annotation: Literal["stop", "skip"] = "stop"
    """What happens at a box, label, annotation file or entry that cannot be used: an error, or it is left out and
    counted."""
    train_annotations: str | None = None
    """COCO's JSON for training, where it is not PATH/annotations/instances_train[2017].json."""
    train_images: str | None = None
    """The folder that its file names start from, where it is not PATH/train[2017]."""
    val_annotations: str | None = None
    val_images: str | None = None
    shortest: Pixels = 800
    """Pixels of an image's shorter side in evaluation, and in training without `augment.scales`."""
    longest: Pixels = 1333
    """The most pixels of its longer side."""
    enlarge: bool = True
    """Whether data whose images are all smaller than `shortest` and `longest` are enlarged to these sizes.

    If not, the largest sides of the training images take the place of the two."""
    first: Count | None = None
    """Train on only the first N images."""
    validate_on: Literal["val", "train"] = "val"
    """`train` evaluates on the images that are trained on, to see whether a model can learn them at all."""
    group_by_aspect: bool = False
    """Batches of wide images and batches of tall ones, so that less is padding."""
    cache: bool = True
    """Decoded images are kept in memory if all of them fit."""

    @model_validator(mode="after")
    def _in_order(self) -> "DetectionDataSection":
        if self.shortest > self.longest:
            raise ValueError(f"data.shortest is {self.shortest}; it must be at most data.longest, {self.longest}")
        return self


class DetectionAugmentSection(ImageAugmentSection):
    scales: tuple[Pixels, ...] = ()
    """Shorter sides, one of which is drawn for each image; `data.shortest` unless given."""
    crop: bool = False
    """DETR's random crop, with its boxes, of every second image."""
    colour: Fraction = 0.0
    """Strength of random brightness, contrast, saturation and hue; 0 is off."""
    scale_jitter: tuple[Factor, Factor] = (1.0, 1.0)
    """Least and greatest factor by which an image is enlarged or reduced on a canvas of its size.

    In epoch e this happens to a fraction e / 20 of the images, and from the twentieth epoch on to all."""
    mosaic: Fraction = 0.0
    """Fraction of those images that are made of four images instead."""

    @property
    def varies(self) -> bool:
        """Whether whole images are made anew, from one or from four."""
        return self.mosaic > 0 or self.scale_jitter != (1.0, 1.0)

    @model_validator(mode="after")
    def _in_order(self) -> "DetectionAugmentSection":
        if self.scale_jitter[0] > self.scale_jitter[1]:
            raise ValueError(f"augment.scale_jitter is {list(self.scale_jitter)}; the least comes first")
        return self


class DetectionTrainSection(TrainSection):
    backbone_lr: PositiveFloat | None = None
    """Learning rate of the convolutional backbone, with the same schedule; `lr` unless given."""


class DetectionRecipe(Recipe):
    task: Literal["detection"]
    model: DetectionModelSection
    data: DetectionDataSection
    augment: DetectionAugmentSection = DetectionAugmentSection()
    train: DetectionTrainSection
