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

from regard.models import (
    PRESETS,
    LanguageModelConfig,
    ModelConfig,
    RecurrentConfig,
    TransformerConfig,
    ViTConfig,
    configure,
)

Fraction = Annotated[float, Interval(ge=0, le=1)]
OpenFraction = Annotated[float, Gt(0), Lt(1)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class ModelSection(BaseModel):
    """A preset's `name`; every other key replaces a value of its configuration.

    The number of classes and the size of the vocabulary are the data's.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str

    @model_validator(mode="after")
    def _names_a_model(self) -> "ModelSection":
        self.config()
        return self

    def config(self, **of_the_data: int) -> ModelConfig:
        """The configuration, with what only the data know: `num_classes`, or the sizes of vocabularies."""
        return configure(self.name, {**(self.model_extra or {}), **of_the_data})


class DataSection(Section):
    address: str
    """What to train on: `digits`, `folder:PATH`, `numbers`, `text:PATH`, ... (see `regard data list`)."""
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
    """Images (or sequences) of an optimiser's step, over all processes and all of `accumulate`."""
    accumulate: PositiveInt = 1
    """Pieces in which each process works through its share of a batch."""
    lr: PositiveFloat = 1e-3
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


# The configurations that a task can train.
_MODELS: dict[str, tuple[type, ...]] = {
    "classification": (ViTConfig,),
    "seq2seq": (TransformerConfig, RecurrentConfig),
    "next-token": (LanguageModelConfig,),
}


class Recipe(Section):
    title: str = ""
    task: Literal["classification", "seq2seq", "next-token"] = "classification"
    seed: Annotated[int, Interval(ge=0, lt=2**63)] = 0
    """Draws the weights, the order of the data and the augmentation."""
    claim: Claim | None = None
    model: ModelSection
    data: DataSection
    augment: AugmentSection = AugmentSection()
    train: TrainSection

    @model_validator(mode="after")
    def _fits_together(self) -> "Recipe":
        if not isinstance(self.model.config(), _MODELS[self.task]):
            able = ", ".join(name for name, config in PRESETS.items() if isinstance(config, _MODELS[self.task]))
            raise ValueError(f"model.name: {self.model.name} is no model for {self.task}; those that are: {able}")
        if self.task != "classification" and self.augment != AugmentSection():
            raise ValueError(f"augment is for images; the task {self.task} takes none of it")
        return self

    def to_dict(self) -> dict[str, Any]:
        """As TOML takes it: nothing that is None. The claim is left behind, since overrides may have undone it."""
        return self.model_dump(mode="json", exclude_none=True, exclude={"claim"})
