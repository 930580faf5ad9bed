"""Names of contenders: `conv`, `attention@weights=RUN`, `attention@copy`, `conv@labels=0.1`.

The part before the first @ says what it is. `weights=RUN` begins from weights, of whatever `model.weights` takes, and
comes last, since a path may hold an @. The others are for proofs. A copy is the same under another name, from other
seeds: from the same ones it would be the same run to the bit. `labels=0.1` exchanges a tenth of its training labels at
random, so that it ought to be worse.
"""

import os
import re
from dataclasses import dataclass

from regard.errors import RegardError
from regard.files import expanded
from regard.weights import AUTO, LOCAL, PREFIX, chosen_pretrained

_COPY = re.compile(r"copy([1-9][0-9]{0,2})?")
COPY_SEEDS = 1_000_003
"""How far the seeds of a copy are from those of the original."""


@dataclass(frozen=True)
class Alias:
    base: str
    """A mixer or a preset."""
    copy: int = 0
    """0: the original; `@copy` is 1."""
    labels: float = 0.0
    """Fraction of the training labels that are exchanged."""
    weights: str = ""
    """What it begins from: a run, a file, or a name of the catalogue."""

    @classmethod
    def of(cls, name: str) -> "Alias":
        """RegardError for what is none of these, and for weights= of nothing."""
        head, begins, weights = name.partition("@weights=")
        if begins and not weights.strip():
            raise RegardError(
                f"{name}: after weights= comes what it begins from: a run, a file, or a name of the catalogue"
            )
        base, *parts = head.split("@")
        copy, labels = 0, 0.0
        for part in parts:
            if (found := _COPY.fullmatch(part)) and not copy:
                copy = int(found[1] or 1)
            elif part.startswith("labels=") and not labels:
                labels = _fraction(name, part.removeprefix("labels="))
            else:
                raise RegardError(
                    f"{name}: after @ comes copy (the same under another name; copy2, copy3, ...), labels=0.1 (a tenth "
                    f"of the training labels exchanged) or, last, weights=RUN (begins from it), each once; got {part!r}"
                )
        return cls(base, copy, labels, weights.strip())


def place_of(source: str) -> str:
    """Weights wherever a training starts: a path from its root on, and any other name as it is."""
    if source.startswith(PREFIX) or source == AUTO or chosen_pretrained(source) is not None:
        return source
    local = LOCAL if source.startswith(LOCAL) else ""
    return local + os.path.normpath(expanded(source.removeprefix(LOCAL)).absolute())


def _fraction(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value <= 1:
        raise RegardError(f"{name}: labels={text}: it is a fraction, above 0 and at most 1")
    return value
