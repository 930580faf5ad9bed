"""The recipe of detection."""

from typing import Annotated, Any, Literal

from annotated_types import Interval
from pydantic import Field, PositiveFloat, model_validator

from regard.models import DETRConfig, DNDETRConfig, vit_stride
from regard.recipes.recipe import Recipe, changed, is_default, require_frozen
from regard.recipes.sections import (
    Count,
    FeaturesSection,
    Fraction,
    ImageAugmentSection,
    ImageDataSection,
    ImageModelSection,
    ImageTrainSection,
    OpenFraction,
    Pixels,
    Section,
    with_selection,
)

Factor = Annotated[float, Interval(ge=0.01, le=100)]


class DetectionModelSection(ImageModelSection):
    pretrained_backbone: bool | str = Field(default=False, exclude_if=lambda value: not value)
    """Starts the backbone from weights of ImageNet, the hub's, those of an entry of the catalogue or of a run of
    whole images (a pre-training), and keeps its first stage as it is. `auto`: those of the catalogue for `backbone`
    that are at hand, as with `weights`."""
    pretrained_backbone_hash: str | None = Field(default=None, exclude_if=lambda value: not value)
    """SHA-256 of the file that `pretrained_backbone` names, likewise."""

    freeze: Literal["none", "backbone"] | Count = Field(default="none", exclude_if=lambda value: value == "none")
    """`backbone`: it stays as it is, and its feature maps of all images are computed once and kept. A number N: the
    first N blocks of a ViT, or stages of a convolutional network, stay as they are, and all before them."""
    learn_blocks: Count | None = None
    """How many of the last blocks of a backbone that is a ViT learn; all of it unless given."""

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
    divisor: Annotated[int, Interval(ge=1, le=1024)] = Field(default=1, exclude_if=lambda value: value == 1)
    """Both sides are rounded to a multiple of it, so that patches tile the image."""
    enlarge: bool = True
    """Whether data whose images are all smaller than `shortest` and `longest` are enlarged to these sizes.

    If not, the largest sides of the training images take the place of the two."""
    first: Count | None = None
    """Train on only the first N images."""
    validate_on: Literal["val", "train"] = "val"
    """`train` evaluates on the images that are trained on, to see whether a model can learn them at all."""
    group_by_aspect: bool = False
    """Batches of wide images and batches of tall ones, so that less is padding."""

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


class DetectionTrainSection(ImageTrainSection):
    backbone_lr: PositiveFloat | None = None
    """Learning rate of the convolutional backbone, with the same schedule; `lr` unless given."""


# What can change a view of an image whose features are computed once.
_OF_VIEWS = ("flip", "scale_jitter", "colour")


class EvaluateSection(Section):
    """What is done with the boxes of the trained model."""

    nms: Literal["auto", "off"] | OpenFraction = "off"
    """Non-maximum suppression: the IoU above which a box is left out for a more certain one of its class; `off`: none
    is. `auto` measures at the end of the training whether it helps, and at which IoU."""
    calibration: Fraction = 0.0
    """Fraction of the training images that is held out of training to measure that, and the least score of each class;
    0.1 unless `nms` is off. With fewer than 50 objects in it, all images are trained on, and nothing is measured."""

    @model_validator(mode="before")
    @classmethod
    def _measures(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("nms", "off") != "off":
            return {"calibration": 0.1, **values}
        return values

    @model_validator(mode="after")
    def _leaves_some(self) -> "EvaluateSection":
        if self.calibration > 0.5:
            raise ValueError(f"evaluate.calibration is {self.calibration:g}; at most half of the images are held out")
        return self


class DetectionRecipe(Recipe):
    task: Literal["detection"]
    model: DetectionModelSection
    data: DetectionDataSection
    augment: DetectionAugmentSection = DetectionAugmentSection()
    train: DetectionTrainSection
    evaluate: EvaluateSection = EvaluateSection()
    features: FeaturesSection = Field(default=FeaturesSection(), exclude_if=is_default)

    @model_validator(mode="before")
    @classmethod
    def _selects(cls, values: Any) -> Any:
        return with_selection(values)

    @model_validator(mode="after")
    def _fits_together(self) -> "DetectionRecipe":
        model, config = self.model, self.model.config()
        if model.freeze == "backbone" and not isinstance(config, DNDETRConfig):
            raise ValueError(
                f"model.freeze is for a DN-DETR; {model.name} is none; a number freezes so many stages of its backbone"
            )
        if model.freeze != "none" and model.weights is None and not model.pretrained_backbone:
            raise ValueError(
                "model.freeze: a frozen backbone needs weights: model.pretrained_backbone or model.weights"
            )
        if model.freeze == "backbone":
            for name in changed(self.augment):
                if name not in _OF_VIEWS:
                    raise ValueError(
                        f"augment.{name}: with model.freeze features are computed once; {', '.join(_OF_VIEWS)} change "
                        "what they are computed of"
                    )
            if self.train.backbone_lr is not None:
                raise ValueError("train.backbone_lr: with model.freeze the backbone does not learn")
        if model.learn_blocks is not None:
            if model.freeze == "backbone":
                raise ValueError("model.learn_blocks: with model.freeze no block of the backbone learns")
            if model.freeze != "none":
                raise ValueError("model.learn_blocks and model.freeze both say which blocks learn; leave out one")
            if vit_stride(config.backbone) is None:
                raise ValueError(f"model.learn_blocks is for a backbone that is a ViT; {config.backbone} is none")
        require_frozen(self.features, model.freeze)
        return self
