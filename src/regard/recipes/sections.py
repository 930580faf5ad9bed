"""What the recipes of all tasks have in common: every key has one home, and one default."""

import operator
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Interval, Le, Lt, MaxLen, MinLen
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    model_validator,
)

from regard.models import PRESETS, ModelConfig, configure

# Bounds that no sensible value comes near: beyond them numbers overflow, and processes or memory run out.
Count = Annotated[int, Interval(gt=0, lt=2**63)]
Pixels = Annotated[int, Interval(gt=0, le=65_535)]
Fraction = Annotated[float, Interval(ge=0, le=1)]
OpenFraction = Annotated[float, Gt(0), Lt(1)]


def _require_device(name: str) -> str:
    kind, colon, index = name.partition(":")
    if kind not in ("auto", "cpu", "cuda", "mps") or (colon and not (kind == "cuda" and index.isdecimal())):
        raise ValueError(f"train.device is {name!r}; it is one of auto, cpu, cuda, cuda:0 (or another number) and mps")
    return name


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)


class ModelSection(BaseModel):
    """A preset's `name`; each key that is not listed here replaces a value of the preset's configuration.

    The number of classes and the size of the vocabulary come from the data.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str

    @model_validator(mode="after")
    def _names_a_model(self) -> "ModelSection":
        self.config()
        return self

    def config(self, **of_the_data: int) -> ModelConfig:
        """The configuration. `of_the_data` is what only the data know: `num_classes`, or the sizes of vocabularies.

        Raises RegardError for an unknown name, key or value, and for a model of another task.
        """
        return configure(self.name, {**(self.model_extra or {}), **of_the_data})

    def not_for(self, task: str, *able: type) -> ValueError:
        """The error for a model that `task` cannot train; it lists the presets whose configuration is one of `able`."""
        names = ", ".join(name for name, config in PRESETS.items() if isinstance(config, able))
        return ValueError(f"model.name: {self.name} is no model for {task}; those that are: {names}")


class ImageModelSection(ModelSection):
    """A model of images may start from weights."""

    # These keys are written only where they are set: most models start from no such weights.
    weights: str | None = Field(default=None, exclude_if=operator.not_)
    """The weights to start from, in any known format: a file, a run folder, a name of the catalogue, or
    hf-hub:OWNER/NAME. A classifier's mixers may differ from those of the file where they share projections.
    `auto`: those of the catalogue for `name` that are at hand; a run keeps their name and hash in its recipe.

    A name of the catalogue also gives mean, deviation, interpolation and crop where `data` gives none; for a classifier
    so does a run."""
    weights_hash: str | None = Field(default=None, exclude_if=operator.not_)
    """SHA-256 of the file that `weights` names, or that lies in the run. Another file under this name is an error."""
    reset_head: bool = Field(default=False, exclude_if=operator.not_)
    """Takes all of `weights` but the classes, which are learned anew."""

    @model_validator(mode="after")
    def _resets_a_head(self) -> "ImageModelSection":
        if self.reset_head and self.weights is None:
            raise ValueError("model.reset_head is about model.weights, which is not given")
        if self.weights_hash and self.weights is None:
            raise ValueError("model.weights_hash is about model.weights, which is not given")
        return self


class DataSection(Section):
    address: str
    """What to train on: `digits`, `folder:PATH`, `coco:PATH`, `numbers`, ... (see `regard data list`)."""
    val_fraction: OpenFraction = 0.25
    """Fraction held out where the data bring no split of their own."""
    split_seed: Annotated[int, Interval(ge=0, lt=2**32)] = 0
    """Draws that split. It is apart from `seed`, so that runs over seeds are evaluated on the same images."""
    on_bad_image: Literal["stop", "skip"] = "stop"
    root: str | None = None
    """Where torchvision's data sets are kept, unless in the user's cache folder."""
    num_workers: Annotated[int, Interval(ge=0, le=1024)] = 0
    """Processes that read samples beside the training; 0 reads in the training process. A training takes at most four
    for each core of the machine, or 8."""


class ImageDataSection(DataSection):
    mean: Annotated[tuple[Annotated[float, Interval(ge=-1e3, le=1e3)], ...], MaxLen(4)] | None = None
    """Mean of each channel in [0, 1], which is subtracted. Classification measures it on the training images unless
    it is given; detection takes ImageNet's."""
    std: Annotated[tuple[Annotated[float, Interval(ge=1e-6, le=1e3)], ...], MaxLen(4)] | None = None
    """Standard deviation of each channel, likewise."""
    strict: bool = False
    """Whether held-out files that are trained on too, in a split that the data bring, are an error or a warning."""
    leave_out: str | None = Field(default=None, exclude_if=operator.not_)
    """A file with the names of images, one a line, that are taken out of both parts after these are drawn; `regard data
    check --leave-out FILE` writes one."""
    max_megapixels: Annotated[float, Interval(gt=0, le=1e6)] = 64.0
    """An image with more pixels is not decoded: it counts as one that cannot be read."""
    selection: Annotated[float, Interval(ge=0, le=0.5)] = Field(default=0.0, exclude_if=operator.not_)
    """Fraction of the training images that is held out of training to decide on it, as `train.patience` does."""
    cache: bool = True
    """Images are decoded once, brought near the size that the model sees, and kept in memory if all of them fit."""


class WholeImagesSection(ImageDataSection):
    """Images without boxes: how each gets the model's size, and the columns of csv:PATH."""

    interpolation: Literal["bilinear", "bicubic", "nearest"] | None = None
    """That of a classifier's `model.weights` unless given, where they say it; else bilinear."""
    crop_fraction: Annotated[float, Gt(0), Le(1)] | None = None
    """Evaluation keeps this fraction of the shorter side, from the centre: that of a classifier's `model.weights`
    unless given, where they say it; else 1."""
    resize: Literal["crop", "squash", "letterbox"] = Field(default="crop", exclude_if=lambda value: value == "crop")
    """How an image of another aspect gets the model's size: its middle is cut out; or all of it is kept, with its
    aspect changed or between bars of the mean colour."""
    on_bad_annotation: Literal["stop", "skip"] = Field(default="stop", exclude_if=lambda value: value == "stop")
    """What happens at a row of csv:PATH that cannot be used (a file that is not there, no label, a file with different
    labels in two rows): an error, or it is left out and counted."""
    file_column: str = Field(default="file", exclude_if=lambda value: value == "file")
    """Of csv:PATH: the column with the images' paths, which start from the CSV file's folder."""
    label_column: str = Field(default="label", exclude_if=lambda value: value == "label")
    part_column: str | None = None
    """The column that says train, val or test; `split` or `part` where there is one, and "" for none."""
    label_separator: Annotated[str, MinLen(1)] = Field(default=";", exclude_if=lambda value: value == ";")
    """What stands between several labels of an image."""
    multi_label: bool | None = None
    """Whether an image may have several labels, or none; unless given, it may where the separator stands in a label."""
    image_folder: str | None = None
    """The folder that paths start from, where it is not the CSV file's own."""

    @model_validator(mode="after")
    def _crops_or_not(self) -> "WholeImagesSection":
        if self.resize != "crop" and self.crop_fraction not in (None, 1):
            raise ValueError(f"data.crop_fraction is for data.resize = crop; {self.resize} keeps the whole image")
        return self


class TextDataSection(DataSection):
    on_bad_line: Literal["stop", "skip"] = "stop"
    """What happens at a line of a pairs file, or a file of texts, that cannot be read: an error, or it is left out."""
    tokenizer: Literal["bytes", "bpe"] = "bytes"
    """Text as its bytes, or as the tokens of a byte-level BPE that is trained on the training text."""
    vocab_size: Annotated[int, Interval(ge=260, le=2**20)] = 1024
    """Tokens of the BPE."""


class FeaturesSection(Section):
    """The features of a frozen backbone, which are computed once and kept (`model.freeze = "backbone"`).

    Those of the held-out images are always in fp32, so that a run's own evaluation is what prediction gives."""

    folder: str | None = None
    """Where they are kept, for all runs; `features` in the user's cache folder unless given."""
    max_gb: Annotated[float, Interval(gt=0, le=1e6)] = 10.0
    """The most that this folder may hold, in GB of 2^30 bytes. What was not used for the longest time leaves first."""
    dtype: Literal["fp16", "fp32"] = "fp16"
    """In which the features of training images are kept."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """In which they are computed; `auto` is bf16 where the processor or GPU has instructions for it."""
    views: Annotated[int, Interval(ge=1, le=1000)] = 1
    """How many views of each training image are computed (detection)."""
    max_views: Annotated[int, Interval(ge=1, le=10**9)] | None = None
    """The most views of all training images together: of many images each has fewer, and at least one."""

    views_a_minute: Annotated[int, Interval(ge=1, le=10**9)] | None = None
    """The most views of all training images together for each minute of `train.max_minutes`: a shorter training
    computes fewer, so that time is left to learn from them."""

    def within(self, minutes: float | int | None) -> "FeaturesSection":
        """The section with the views that a training of so many minutes has."""
        if self.views_a_minute is None or minutes is None:
            return self
        most = max(round(self.views_a_minute * minutes), 1)
        return self.model_copy(update={"max_views": min(most, self.max_views or most)})

    def views_of_each(self, images: int) -> int:
        """The number of views of each of so many training images."""
        return self.views if self.max_views is None else min(self.views, max(self.max_views // images, 1))


class AugmentSection(Section):
    """The sequences have no augmentation; classification and detection each have their own."""


class ImageAugmentSection(AugmentSection):
    flip: bool = False
    """Exchanges left and right in every second image; with boxes, where the data allow it (digits do not)."""


class TrainSection(Section):
    epochs: Count | None = None
    max_steps: Count | None = None
    max_minutes: PositiveFloat | None = None
    """The budgets. The one that is spent first ends the run; the schedule follows the one that is spent furthest."""
    batch_size: Count = 128
    """Images (or sequences) in one step of the optimiser, over all processes and micro-batches."""
    accumulate: Count = 1
    """Micro-batches into which each process divides its shard of a batch."""
    lr: PositiveFloat = 1e-3
    schedule: Literal["cosine", "transformer"] = "cosine"
    """A linear rise and half a cosine over the budget; or the Transformer's (Vaswani et al. 2017, eq. 3) times `lr`."""
    warmup_steps: Count = 4000
    """Steps in which the Transformer's schedule rises."""
    weight_decay: NonNegativeFloat = 0.05
    """On the matrices of linear maps, convolutions and recurrent layers; nothing else decays."""
    betas: tuple[OpenFraction, OpenFraction] = (0.9, 0.999)
    warmup: Fraction = 0.05
    """Fraction of the budget in which the cosine schedule rises linearly."""
    final_lr: Fraction = 0.0
    """Where the cosine ends, as a fraction of `lr`."""
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
    device: Annotated[str, AfterValidator(_require_device)] = "auto"
    """`auto` is the accelerator that torch finds, or the processor; `cpu`, `cuda`, `cuda:1`, `mps` ask for one."""
    evaluate_every: Count | None = None
    """Epochs between two evaluations; there is always one at the end. Unless given, there is one after each epoch
    that leaves evaluations at most a fifth of the time."""
    evaluate_every_steps: Count | None = None
    """Steps between two evaluations, in the place of epochs."""
    save_every_steps: Count | None = None
    """Steps between two states to resume from; the end of each epoch unless given."""

    @model_validator(mode="after")
    def _has_a_budget(self) -> "TrainSection":
        if self.epochs is None and self.max_steps is None and self.max_minutes is None:
            raise ValueError("no budget: set train.epochs, train.max_steps or train.max_minutes")
        return self


class ImageTrainSection(TrainSection):
    patience: Count | None = None
    """After so many evaluations without a gain the training ends. It is measured on the images of `data.selection`, a
    tenth of the training images unless given: never on those that are reported."""


def with_selection(values: Any) -> Any:
    """A recipe's values, with images for `train.patience` where it has none."""
    if not isinstance(values, dict) or not isinstance(values.get("train"), dict):
        return values
    if values["train"].get("patience") is None or not isinstance(values.get("data"), dict):
        return values
    return {**values, "data": {"selection": 0.1, **values["data"]}}
