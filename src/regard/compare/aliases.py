"""Names of contenders: `conv`, `attention@copy`, `conv@labels=0.1`, where the part before the first @ says what it is.

The others are for proofs. A copy is the same under another name, from other seeds: from the same ones it would be the
same run to the bit. `labels=0.1` exchanges a tenth of its training labels at random, so that it ought to be worse.
"""

import re
from dataclasses import dataclass

from regard.errors import RegardError

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

    @classmethod
    def of(cls, name: str) -> "Alias":
        """RegardError for what is known neither as a copy nor as labels."""
        base, *parts = name.split("@")
        copy, labels = 0, 0.0
        for part in parts:
            if (found := _COPY.fullmatch(part)) and not copy:
                copy = int(found[1] or 1)
            elif part.startswith("labels=") and not labels:
                labels = _fraction(name, part.removeprefix("labels="))
            else:
                raise RegardError(
                    f"{name}: after @ comes copy (the same under another name; copy2, copy3, ...) or labels=0.1 "
                    f"(a tenth of the training labels exchanged), each once; got {part!r}"
                )
        return cls(base, copy, labels)


def _fraction(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value <= 1:
        raise RegardError(f"{name}: labels={text}: it is a fraction, above 0 and at most 1")
    return value
