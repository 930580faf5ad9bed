"""What every trained model in use has: a device, a way out of a run's metadata, and one answer for one input."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, TypeVar

import torch
from torch import nn

from regard.data import Tokenizer, tokenizer_from_dict
from regard.errors import RegardError, shown

Item = TypeVar("Item")
Own = TypeVar("Own", bound="Predictor")


class Predictor(ABC):
    """A trained model with all that it needs to answer. Called with one input it gives one answer, with many a list."""

    model_name: str | None = None
    """The preset that the model was made from, where that is known."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model.eval()

    @classmethod
    @abstractmethod
    def from_metadata(cls, model: nn.Module, metadata: Mapping[str, Any], where: str) -> "Predictor":
        """Takes from a run's metadata.json what the model needs. RegardError, which begins with `where`."""

    @abstractmethod
    def __call__(self, inputs: Any, /) -> Any:
        """One input -> one answer; a list, tuple or generator of inputs -> a list of answers."""

    @abstractmethod
    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """Measures the model on data of its task (a source of images, objects or pairs; a text); each task's own."""

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def to(self: Own, device: str | torch.device) -> Own:
        """Moves the model to a device, and returns the predictor."""
        self.model.to(device)
        return self


def many(inputs: Any, wanted: str) -> Iterable[Any]:
    """The inputs themselves. RegardError unless they are several; it begins with `wanted`, what one input is."""
    if not isinstance(inputs, Iterable) or isinstance(inputs, Mapping | bytes):
        raise RegardError(f"{wanted}, or a list of them, not a {type(inputs).__name__}")
    return inputs


def batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of `size` items; the last one may be shorter. A generator is read one batch at a time."""
    if size < 1:
        raise RegardError(f"batch_size is {size}; it must be at least 1")
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def tokenizer_of(metadata: Mapping[str, Any], where: str, *vocabularies: str) -> Tokenizer:
    """The tokenizer of a run's metadata.json. RegardError unless the model's `vocabularies` have as many tokens."""
    tokenizer = tokenizer_from_dict(metadata["tokenizer"], where)
    for key in vocabularies:
        wanted = metadata["model"]["config"].get(key)
        if wanted != tokenizer.vocab_size:
            raise RegardError(
                f"{where}: the tokenizer has {tokenizer.vocab_size:,} tokens, and the model's {key} is {shown(wanted)}"
            )
    return tokenizer


def require_text(text: object, name: str) -> str:
    """The text itself. RegardError, which begins with `name`, for anything but a str."""
    if not isinstance(text, str):
        raise RegardError(f"{name} must be a str, not a {type(text).__name__}")
    return text
