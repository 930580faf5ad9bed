"""What every trained model in use has: a device, a way out of a run's metadata, and one answer for one input."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from numbers import Integral, Real
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from regard.data import Tokenizer, tokenizer_from_dict
from regard.errors import NOT_FINITE, RegardError, first_few, shown
from regard.models.decoding import Step

Item = TypeVar("Item")
Own = TypeVar("Own", bound="Predictor")


@runtime_checkable
class Evaluated(Protocol):
    """What an evaluation of any task has: names of what the model gave no finite number for."""

    @property
    def not_finite(self) -> tuple[str, ...]: ...


Measured = TypeVar("Measured", bound=Evaluated)


class Predictor(ABC):
    """A trained model with all that it needs to answer. Called with one input it gives one answer, with many a list."""

    model_name: str | None = None
    """The preset that the model was made from, where that is known."""
    source = ""
    """The run or the name that it was loaded from, which errors name."""

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

    def _checked(self, step: Step) -> Step:
        """A step of decoding that raises RegardError for logits of NaN or +infinity; −infinity rules a token out."""

        def checked(tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
            logits, state = step(tokens, state)
            self._require_finite(["decoding"], [bool((logits < math.inf).all())])
            return logits, state

        return checked

    @property
    def _of_run(self) -> str:
        return f"{self.source}: " if self.source else ""

    def _require_finite(self, names: Sequence[str], sound: Sequence[bool]) -> None:
        """RegardError that names the first input without a finite answer."""
        for name, is_sound in zip(names, sound, strict=True):
            if not is_sound:
                raise RegardError(
                    f"{self._of_run}{name}: {NOT_FINITE}; its weights are spoilt, or too large to compute with"
                )


def with_figures(evaluation: Measured, run: object) -> Measured:
    """An evaluation. RegardError where the model's numbers are not finite, so that there are no figures to tell."""
    if evaluation.not_finite:
        raise RegardError(f"{run}: {NOT_FINITE} to {first_few(evaluation.not_finite)}; there are no figures to tell")
    return evaluation


def many(inputs: Any, wanted: str) -> Iterable[Any]:
    """The inputs themselves. RegardError unless they are several; it begins with `wanted`, what one input is."""
    if not isinstance(inputs, Iterable) or isinstance(inputs, Mapping | bytes):
        raise RegardError(f"{wanted}, or a list of them, not a {type(inputs).__name__}")
    return inputs


def batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of `size` items; the last one may be shorter. A generator is read one batch at a time."""
    require_count("batch_size", size)
    return _batches(iter(items), size)


def _batches(items: Iterator[Item], size: int) -> Iterator[list[Item]]:
    while batch := list(islice(items, size)):
        yield batch


def require_count(name: str, value: object, least: int = 1) -> None:
    """RegardError unless it is an integer of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise RegardError(f"{name} is {shown(value)}; it must be an integer of at least {least}")
    if int(value) < least:
        raise RegardError(f"{name} is {value}; it must be at least {least}")


def require_integer(name: str, value: object) -> None:
    """RegardError unless it is an integer."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise RegardError(f"{name} is {shown(value)}; it must be an integer")


def require_number(name: str, value: object) -> None:
    """RegardError unless it is a number."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise RegardError(f"{name} is {shown(value)}; it must be a number")


def require_fraction(name: str, value: object) -> None:
    """RegardError unless it is a number between 0 and 1."""
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= float(value) <= 1:
        raise RegardError(f"{name} is {shown(value)}; it must be a number between 0 and 1")


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
