"""What a recipe may say: every value has one home here, and one default."""

from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Interval, Le, Lt
from pydantic import (
    BaseModel,
    ConfigDict,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from regard.models import ViTConfig, configure

Fraction = Annotated[float, Interval(ge=0, le=1)]
OpenFraction = Annotated[float, Gt(0), Lt(1)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class ModelSection(BaseModel):
    """A preset's `name`; every other key replaces a value of its configuration. The number of classes is the data's."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str

    @model_validator(mode="after")
    def _names_a_model(self) -> "ModelSection":
        self.config(num_classes=1)
        return self

    def config(self, num_classes: int) -> ViTConfig:
        return configure(self.name, {**(self.model_extra or {}), "num_classes": num_classes})


class DataSection(Section):
    address: str
    """What to train on: `digits`, `folder:PATH`, `torchvision:NAME`."""
    val_fraction: OpenFraction = 0.25
    """Share held out where the data bring no split of their own."""
    split_seed: NonNegativeInt = 0
    """Draws that split; apart from `seed`, so that runs over seeds are held to the same images."""
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


class AugmentSection(Section):
    shift: NonNegativeInt = 0
    """Pixels of the resized image, at most, up, down, left or right."""
    flip: bool = False
    """Left and right exchanged, for every second image."""
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


class TrainSection(Section):
    epochs: PositiveInt | None = None
    max_steps: PositiveInt | None = None
    max_minutes: PositiveFloat | None = None
    """The budgets: whichever comes first ends the run, and the schedule runs on the furthest spent."""
    batch_size: PositiveInt = 128
    """Images of an optimiser's step, over all processes and all of `accumulate`."""
    accumulate: PositiveInt = 1
    """Pieces in which each process works through its share of a batch."""
    lr: PositiveFloat = 1e-3
    weight_decay: NonNegativeFloat = 0.05
    """On the matrices of linear maps, convolutions and recurrent layers; nothing else decays."""
    betas: tuple[OpenFraction, OpenFraction] = (0.9, 0.999)
    warmup: Fraction = 0.05
    """Share of the budget in which the learning rate rises linearly; then it falls as a cosine."""
    final_lr: Fraction = 0.0
    """Where the cosine ends, as a share of `lr`."""
    clip_grad: NonNegativeFloat = 1.0
    """Largest norm of the gradient; 0 is off."""
    label_smoothing: Annotated[float, Ge(0), Lt(1)] = 0.0
    ema_decay: Annotated[float, Ge(0), Lt(1)] = 0.0
    """Weights are averaged with this decay, and the average is what is evaluated and kept as the model; 0 is off."""
    precision: Literal["fp32", "bf16"] = "fp32"
    gradient_checkpointing: bool = False
    device: Literal["auto", "cpu"] = "auto"
    evaluate_every: PositiveInt = 1
    """Epochs between two evaluations; there is always one at the end."""
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
    at_least: float
    minutes: PositiveFloat
    """On two processor cores."""


class Recipe(Section):
    title: str = ""
    task: Literal["classification"] = "classification"
    seed: NonNegativeInt = 0
    """Draws the weights, the order of the images and the augmentation."""
    claim: Claim | None = None
    model: ModelSection
    data: DataSection
    augment: AugmentSection = AugmentSection()
    train: TrainSection

    def to_dict(self) -> dict[str, Any]:
        """As TOML takes it: nothing that is None. The claim is left behind, since overrides may have undone it."""
        return self.model_dump(mode="json", exclude_none=True, exclude={"claim"})
