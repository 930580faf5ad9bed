"""What the training loop asks of a task."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from regard.data import Issue, TrainingOrder
from regard.recipes import Recipe


@runtime_checkable
class Task(Protocol):
    """A task's batches have `names` and `skipped` (lists of samples' names), a length, and `to(device)`."""

    unit: str
    """What samples are called in the plural: images, pairs, windows."""
    main_metric: str
    """The metric that decides which weights are the best."""
    larger_is_better: bool

    progress: Any
    """The bar that shows what is computed before the first step: `regard.training.Bar`, or None."""

    data: Any
    """What was opened: both parts of it."""

    def __init__(self, recipe: Recipe) -> None:
        """Opens the data."""

    @property
    def recipe(self) -> Recipe: ...

    @property
    def features_first(self) -> bool:
        """Whether `training_loader` computes features before the first batch."""

    @property
    def skipped(self) -> tuple[str, ...]:
        """Names of the samples that could not be read when the data were opened, and were left out."""

    def check(self) -> Sequence[Issue]:
        """Issues of the data, before anything is trained: errors stop a run, warnings are reported."""

    def build_model(self) -> nn.Module:
        """What learns: the model, perhaps without a part that is frozen and whose features are stored."""

    def whole(self, model: nn.Module) -> nn.Module:
        """The model that predicts, with the weights of one that learns."""

    def order(self, *, rank: int, world_size: int) -> TrainingOrder:
        """The samples of each step. RegardError if the processes and micro-batches do not divide the batch size."""

    def training_loader(self, order: TrainingOrder) -> Iterable[Any]:
        """Endless batches."""

    def weight(self, batch: Any) -> int:
        """The number of images or tokens whose mean is the batch's loss: its weight in the loss of a step."""

    def loss(self, model: nn.Module, batch: Any) -> Tensor: ...

    def evaluate(self, model: nn.Module, *, rank: int, world_size: int) -> Any:
        """The evaluation of this process's shard. It can be pickled, and has `skipped` as batches do."""

    def metrics(self, shards: Sequence[Any]) -> dict[str, float]:
        """The metrics over the shards of all processes."""

    def details(self, shards: Sequence[Any]) -> dict[str, Any]:
        """What the summary holds beside the metrics: figures of each class, where there are any."""

    def select(self, model: nn.Module) -> float:
        """The main metric on the images that `data.selection` holds out of training, by which it is decided."""

    def finish(self, model: nn.Module, tell: Callable[[str], object]) -> dict[str, Any]:
        """What is measured on the trained model once, for its metadata; the task's evaluations use it from then on.

        Every process calls it, with the same model. `tell` shows a line. Empty where there is nothing to measure.
        """

    def flops(self, model: nn.Module) -> int:
        """Operations for one sample, by formula; 0 where there is none."""

    def metadata(self) -> dict[str, Any]:
        """All that prediction needs beside the weights, so that it needs no data set."""


def training_order(
    recipe: Recipe, num_samples: int, *, rank: int, world_size: int, weights: Sequence[float] | None = None
) -> TrainingOrder:
    """The order in which a recipe goes through `num_samples` samples, drawn alike or by `weights`."""
    train = recipe.train
    return TrainingOrder(
        num_samples,
        train.batch_size,
        recipe.seed,
        rank=rank,
        world_size=world_size,
        accumulate=train.accumulate,
        weights=weights,
    )
