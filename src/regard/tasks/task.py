"""What the training loop asks of a task."""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from regard.data import Issue, TrainingOrder
from regard.recipes import Recipe


@runtime_checkable
class Task(Protocol):
    """A batch has `names` and `skipped` (both lists of what samples are called), a length, and `to(device)`."""

    unit: str
    """What a sample is: images, sequences."""
    main_metric: str
    """The one that decides which weights are the best."""
    larger_is_better: bool

    def __init__(self, recipe: Recipe) -> None:
        """Opens the data."""

    @property
    def recipe(self) -> Recipe: ...

    @property
    def skipped(self) -> tuple[str, ...]:
        """The data that were left out at opening, since they could not be read."""

    def check(self) -> Sequence[Issue]:
        """What is wrong with the data, before anything is trained: errors stop a run, warnings are told."""

    def build_model(self) -> nn.Module: ...

    def order(self, *, rank: int, world_size: int) -> TrainingOrder:
        """Which samples each step takes; RegardError where the batch size cannot be cut into parts."""

    def training_loader(self, order: TrainingOrder) -> Iterable[Any]:
        """Batches for ever."""

    def weight(self, batch: Any) -> int:
        """Over how many images or tokens the batch's loss is the mean: so much it counts in the loss of a step."""

    def loss(self, model: nn.Module, batch: Any) -> Tensor: ...

    def evaluate(self, model: nn.Module, *, rank: int, world_size: int) -> Any:
        """This process's share of an evaluation: something that can be pickled, with a `skipped` as batches have."""

    def metrics(self, shares: Sequence[Any]) -> dict[str, float]: ...

    def flops(self, model: nn.Module) -> int:
        """Operations for one sample, by formula."""

    def metadata(self) -> dict[str, Any]: ...


def training_order(recipe: Recipe, num_samples: int, *, rank: int, world_size: int) -> TrainingOrder:
    """The order in which a recipe goes through so many samples."""
    train = recipe.train
    return TrainingOrder(
        num_samples,
        train.batch_size,
        recipe.seed,
        rank=rank,
        world_size=world_size,
        accumulate=train.accumulate,
    )
