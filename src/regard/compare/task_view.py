"""What the report asks of a task: how to speak of its samples, and a section on each contender."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable
from unicodedata import category

import torch

from regard.compare.contender import Contender
from regard.recipes import Recipe


@runtime_checkable
class TaskView(Protocol):
    """A task as the report shows it, over the data of one comparison. Each task has one, in a file of its name."""

    template: str
    """The file with the part of the page that shows one of `section`."""
    unit: str
    """What is counted: images, pairs."""
    timed: str
    """Of what the time of inference is: "an image"."""
    counted: str
    """Of what the operations are: "an image"."""
    about: str
    """A sentence on what the main metric is."""
    loss: str
    """What the training loss is called, with its unit where it has one."""

    @property
    def part(self) -> str:
        """What the main metric is measured on: "held-out"."""

    @property
    def num_held_out(self) -> int | None:
        """Samples that a proportion is of; None where they are not counted."""

    @property
    def trained_on(self) -> str:
        """Ends "was trained on"."""

    @property
    def tested_on(self) -> str:
        """Ends "and tested on"."""

    def facts(self) -> Sequence[tuple[str, str]]:
        """What there is to know of the data: (name, value)."""

    def section(self, contender: Contender) -> Any:
        """What the template shows of a contender's first run."""


def device_of(recipe: Recipe) -> str:
    """Where what is evaluated anew runs."""
    return "cuda" if torch.cuda.is_available() and recipe.train.device == "auto" else "cpu"


def split_words(recipe: Recipe, *, own: bool) -> str:
    """Where the held-out part comes from; `own` says that the data bring it."""
    return "split that the data bring" if own else f"split drawn from seed {recipe.data.split_seed}"


def short_name(name: str) -> str:
    """Without the folders."""
    return Path(name).name


def printable(text: str) -> str:
    """Text that a page can hold: a control character, which an untrained model may well write, becomes a mark."""
    return "".join(letter if letter in "\n\t" or category(letter) != "Cc" else "\ufffd" for letter in text)
