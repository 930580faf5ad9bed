"""What a recipe may say: every value has one home here, and one default."""

import operator
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Interval, Le, Lt
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from regard.models import (
    PRESETS,
    DETRConfig,
    DNDETRConfig,
    LanguageModelConfig,
    ModelConfig,
    RecurrentConfig,
    SASAResNetConfig,
    TransformerConfig,
    ViTConfig,
    configure,
)

Fraction = Annotated[float, Interval(ge=0, le=1)]
OpenFraction = Annotated[float, Gt(0), Lt(1)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class ModelSection(BaseModel):
    """A preset's `name` and where its weights come from; every other key replaces a value of its configuration.

    The number of classes and the size of the vocabulary are the data's.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str
    # What is not asked for is not written: most models have no such weights.
    weights: str | None = Field(default=None, exclude_if=operator.not_)
    """What to start from, in any format that is known: a file, a run's folder, a name of the catalogue, or
    hf-hub:OWNER/NAME. A classifier's mixers may be others than the file's, as far as they share projections.

    With a name of the catalogue, its mean, deviation, interpolation and crop are taken where `data` gives none."""
    reset_head: bool = Field(default=False, exclude_if=operator.not_)
    """Takes all of `weights` but the classes, which are learned anew."""
    pretrained_backbone: bool | str = Field(default=False, exclude_if=operator.not_)
    """Starts the backbone from weights of ImageNet, the hub's or those of an entry of the catalogue, and keeps its
    first stage as it is."""
    freeze: Literal["none", "backbone"] = Field(default="none", exclude_if=lambda value: value == "none")
    """`backbone`: the head alone learns, and the features of all images are computed once and kept."""

    @model_validator(mode="after")
    def _names_a_model(self) -> "ModelSection":
        self.config()
        return self

    def config(self, **of_the_data: int) -> ModelConfig:
        """The configuration, with what only the data know: `num_classes`, or the sizes of vocabularies."""
        return configure(self.name, {**(self.model_extra or {}), **of_the_data})


class DataSection(Section):
    address: str
    """What to train on: `digits`, `folder:PATH`, `coco:PATH`, `numbers`, ... (see `regard data list`)."""
    val_fraction: OpenFraction = 0.25
    """Share held out where the data bring no split of their own."""
    split_seed: NonNegativeInt = 0
    """Draws that split; apart from `seed`, so that runs over seeds are held to the same images."""
    tokenizer: Literal["bytes", "bpe"] = "bytes"
    """Text as its bytes, or as the pieces of a byte-level BPE that is trained on the training text."""
    vocab_size: Annotated[int, Ge(260)] = 1024
    """Of the BPE."""
    on_bad_image: Literal["stop", "skip"] = "stop"
    num_workers: NonNegativeInt = 0
    """Processes that read images beside the training; 0 reads in the training process."""
    root: str | None = None
    """Where torchvision's data sets are kept, unless in the user's cache folder."""
    mean: tuple[float, ...] | None = None
    """A channel's mean in [0, 1], taken off before training; measured on the training images unless given."""
    std: tuple[PositiveFloat, ...] | None = None
    """A channel's standard deviation, likewise."""
    interpolation: Literal["bilinear", "bicubic", "nearest"] = "bilinear"
    crop_fraction: Annotated[float, Gt(0), Le(1)] = 1.0
    """Evaluation keeps this share of the shorter side, from the centre."""
    train_annotations: str | None = None
    """COCO's JSON for training, where it is not PATH/annotations/instances_train[2017].json."""
    train_images: str | None = None
    """The folder that its file names start from, where it is not PATH/train[2017]."""
    val_annotations: str | None = None
    val_images: str | None = None
    shortest: PositiveInt = 800
    """Pixels of an image's shorter side in evaluation, and in training without `augment.scales`."""
    longest: PositiveInt = 1333
    """The most that its longer side may come to."""
    enlarge: bool = True
    """Whether images are brought to these sizes that are all smaller; else the largest of them is the measure."""
    first: PositiveInt | None = None
    """Train on so many of the images only."""
    validate_on: Literal["val", "train"] = "val"
    """Evaluate on the images that are trained on instead, to see whether a model can learn them at all."""
    group_by_aspect: bool = False
    """Batches of wide images and batches of tall ones, so that less is padding."""
    cache: bool = True
    """Decoded images are kept in memory where they all fit."""


class AugmentSection(Section):
    """Each task has its own of these; see `AUGMENTATIONS`."""

    shift: NonNegativeInt = 0
    """Pixels of the resized image, at most, up, down, left or right."""
    flip: bool = False
    """Left and right exchanged, for every second image; with boxes, where the data allow it (digits do not)."""
    crop_scale: Annotated[float, Gt(0), Le(1)] = 1.0
    """Smallest share of the area that a random resized crop keeps; 1 is off."""
    rand_augment: NonNegativeInt = 0
    """RandAugment's number of operations; 0 is off."""
    rand_augment_magnitude: Annotated[int, Interval(ge=0, le=30)] = 9
    erase: Fraction = 0.0
    """Probability of erasing a rectangle."""
    mixup: NonNegativeFloat = 0.0
    """Mixup's alpha; 0 is off. With cutmix too, each batch gets one of them."""
    cutmix: NonNegativeFloat = 0.0
    scales: tuple[PositiveInt, ...] = ()
    """Shorter sides, one of which is drawn for each image; `data.shortest` unless given."""
    crop: bool = False
    """DETR's random crop, with its boxes, of every second image."""
    colour: Fraction = 0.0
    """Strength of random brightness, contrast, saturation and hue; 0 is off."""
    scale_jitter: tuple[PositiveFloat, PositiveFloat] = (1.0, 1.0)
    """Factors, the least and the most, by which an image is enlarged or reduced on a canvas of its size: in epoch e,
    a share e / 20 of the images, and from the twentieth on all."""
    mosaic: Fraction = 0.0
    """Of the images that would be enlarged or reduced, the share that are made of four instead."""

    @property
    def varies(self) -> bool:
        """Whether whole images are made anew, alone or of several."""
        return self.mosaic > 0 or self.scale_jitter != (1.0, 1.0)

    @model_validator(mode="after")
    def _in_order(self) -> "AugmentSection":
        if self.scale_jitter[0] > self.scale_jitter[1]:
            raise ValueError(f"augment.scale_jitter is {list(self.scale_jitter)}; the least comes first")
        return self


class TrainSection(Section):
    epochs: PositiveInt | None = None
    max_steps: PositiveInt | None = None
    max_minutes: PositiveFloat | None = None
    """The budgets: whichever comes first ends the run, and the schedule runs on the furthest spent."""
    batch_size: PositiveInt = 128
    """Images (or sequences) of an optimiser's step, over all processes and all of `accumulate`."""
    accumulate: PositiveInt = 1
    """Pieces in which each process works through its share of a batch."""
    lr: PositiveFloat = 1e-3
    backbone_lr: PositiveFloat | None = None
    """Of a model's convolutional backbone, which follows the same schedule; `lr` unless given."""
    schedule: Literal["cosine", "transformer"] = "cosine"
    """A linear rise and half a cosine over the budget; or the Transformer's (Vaswani et al. 2017, eq. 3) times `lr`."""
    warmup_steps: PositiveInt = 4000
    """Steps in which the Transformer's schedule rises."""
    weight_decay: NonNegativeFloat = 0.05
    """On the matrices of linear maps, convolutions and recurrent layers; nothing else decays."""
    betas: tuple[OpenFraction, OpenFraction] = (0.9, 0.999)
    warmup: Fraction = 0.05
    """Share of the budget in which the cosine schedule rises linearly."""
    final_lr: Fraction = 0.0
    """Where the cosine ends, as a share of `lr`."""
    layer_decay: Annotated[float, Gt(0), Le(1)] = 1.0
    """The rate of a ViT's block as a share of that of the block after it; the patches come before the first block."""
    clip_grad: NonNegativeFloat = 1.0
    """Largest norm of the gradient; 0 is off."""
    label_smoothing: Annotated[float, Ge(0), Lt(1)] = 0.0
    ema_decay: Annotated[float, Ge(0), Lt(1)] = 0.0
    """Weights are averaged with this decay, and the average is what is evaluated and kept as the model; 0 is off."""
    precision: Literal["auto", "fp32", "bf16"] = "fp32"
    """`auto` is bf16 where the processor or GPU has instructions for it: without them it is slower by far."""
    gradient_checkpointing: bool = False
    find_nonfinite: bool = False
    """For debugging: name the first layer that sees or makes a NaN or inf. It slows the training."""
    device: Literal["auto", "cpu"] = "auto"
    evaluate_every: PositiveInt = 1
    """Epochs between two evaluations; there is always one at the end."""
    evaluate_every_steps: PositiveInt | None = None
    """Steps between two evaluations, in the place of epochs."""
    save_every_steps: PositiveInt | None = None
    """Steps between two states to resume from; the end of each epoch unless given."""

    @model_validator(mode="after")
    def _has_a_budget(self) -> "TrainSection":
        if self.epochs is None and self.max_steps is None and self.max_minutes is None:
            raise ValueError("no budget: set train.epochs, train.max_steps or train.max_minutes")
        return self


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


TaskName = Literal["classification", "detection", "seq2seq", "next-token"]

# The configurations that a task can train.
_MODELS: dict[TaskName, tuple[type, ...]] = {
    "classification": (ViTConfig, SASAResNetConfig),
    "detection": (DETRConfig, DNDETRConfig),
    "seq2seq": (TransformerConfig, RecurrentConfig),
    "next-token": (LanguageModelConfig,),
}

# The augmentations that a task has; the sequences have none.
AUGMENTATIONS: dict[TaskName, tuple[str, ...]] = {
    "classification": (
        *("shift", "flip", "crop_scale", "rand_augment", "rand_augment_magnitude", "erase"),
        *("mixup", "cutmix"),
    ),
    "detection": ("flip", "scales", "crop", "colour", "scale_jitter", "mosaic"),
}

# Keys that only detection reads, by section; and those that no model of sequences does.
_OF_DETECTION: dict[str, tuple[str, ...]] = {
    "model": ("pretrained_backbone",),
    "data": (
        *("train_annotations", "train_images", "val_annotations", "val_images", "shortest", "longest"),
        *("enlarge", "first", "validate_on", "group_by_aspect", "cache"),
    ),
    "train": ("backbone_lr",),
}
_OF_IMAGES = ("weights", "reset_head")


class Recipe(Section):
    title: str = ""
    task: TaskName = "classification"
    seed: Annotated[int, Interval(ge=0, lt=2**63)] = 0
    """Draws the weights, the order of the data and the augmentation."""
    claim: Claim | None = None
    otherwise: str | None = None
    """A recipe that needs none of the weights which this one begins from; the error names it where they are missing."""
    model: ModelSection
    data: DataSection
    augment: AugmentSection = AugmentSection()
    train: TrainSection

    @model_validator(mode="after")
    def _fits_together(self) -> "Recipe":
        if not isinstance(self.model.config(), _MODELS[self.task]):
            able = ", ".join(name for name, config in PRESETS.items() if isinstance(config, _MODELS[self.task]))
            raise ValueError(f"model.name: {self.model.name} is no model for {self.task}; those that are: {able}")
        taken = AUGMENTATIONS.get(self.task, ())
        for name in _changed(self.augment):
            if name not in taken:
                allowed = f"it takes {', '.join(taken)}" if taken else "it takes none"
                raise ValueError(f"augment.{name} is not for {self.task}; {allowed}")
        if self.task != "detection":
            for section, names in _OF_DETECTION.items():
                for name in _changed(getattr(self, section)):
                    if name in names:
                        raise ValueError(f"{section}.{name} is for detection; {self.task} has no use for it")
        if self.task not in ("classification", "detection"):
            for name in _changed(self.model):
                if name in _OF_IMAGES:
                    raise ValueError(f"model.{name} is for images; {self.task} has no use for it")
        self._require_a_vit()
        if self.data.shortest > self.data.longest:
            raise ValueError(
                f"data.shortest is {self.data.shortest}; it must be at most data.longest, {self.data.longest}"
            )
        if self.model.reset_head and self.model.weights is None:
            raise ValueError("model.reset_head is about model.weights, which is not given")
        return self

    def _require_a_vit(self) -> None:
        """What knows of heads and blocks is for a ViT that classifies; kept features cannot be augmented."""
        is_vit = self.task == "classification" and isinstance(self.model.config(), ViTConfig)
        if self.model.freeze != "none" and not is_vit:
            raise ValueError(f"model.freeze is for a ViT that classifies; {self.model.name} in {self.task} is none")
        if self.train.layer_decay != 1 and not is_vit:
            raise ValueError(
                f"train.layer_decay is for a ViT that classifies; {self.model.name} in {self.task} is none"
            )
        if self.model.freeze != "none" and _changed(self.augment):
            name = _changed(self.augment)[0]
            raise ValueError(f"augment.{name}: with model.freeze features are computed once, and cannot be augmented")

    def to_dict(self) -> dict[str, Any]:
        """As TOML takes it: nothing that is None. The claim is left behind, since overrides may have undone it."""
        return self.model_dump(mode="json", exclude_none=True, exclude={"claim"})


def _changed(section: BaseModel) -> list[str]:
    """The keys of a section that have another value than their default."""
    fields = type(section).model_fields
    return [
        name for name, field in fields.items() if not field.is_required() and getattr(section, name) != field.default
    ]
