"""What the report needs of each task: the words for its samples, and a section on each contender."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch

from regard.compare.contender import Contender
from regard.draw.names import readable
from regard.recipes import Recipe


@runtime_checkable
class TaskView(Protocol):
    """How the report shows one task, on the data of one comparison. Each task has one, in the file of its name."""

    template: str
    """The template of the part of the page that shows a `section`."""
    unit: str
    """The word for its samples: "images", "pairs"."""
    timed: str
    """What the time of inference is measured for: "an image"."""
    counted: str
    """What the operations are counted for: "an image"."""
    about: str
    """A sentence that defines the main metric."""
    loss: str
    """The name of the training loss, with its unit if it has one."""

    @property
    def split(self) -> str:
        """The split that the main metric is measured on: "held-out" or "training"."""

    @property
    def num_held_out(self) -> int | None:
        """How many samples a proportion is of; None if the main metric is no proportion."""

    @property
    def trained_on(self) -> str:
        """The end of the sentence "... was trained on"."""

    @property
    def tested_on(self) -> str:
        """The end of the sentence "... and tested on"."""

    def facts(self) -> Sequence[tuple[str, str]]:
        """Facts about the data: (name, value)."""

    def section(self, contender: Contender) -> Any:
        """What the template shows of a contender: the results of its first run."""


def device_of(recipe: Recipe) -> str:
    """The device of evaluations for the report."""
    return "cuda" if torch.cuda.is_available() and recipe.train.device == "auto" else "cpu"


def split_words(recipe: Recipe, *, own: bool) -> str:
    """Where the held-out split comes from; `own` says that the data set has its own."""
    return "the data set’s own split" if own else f"split drawn from seed {recipe.data.split_seed}"


# An untrained model may write control characters; a page cannot hold them.
printable = readable


def short_name(name: str) -> str:
    """A sample's name without its folders."""
    return Path(name).name
