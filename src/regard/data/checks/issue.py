"""What a check of data reports."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from regard.errors import first_few

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Issue:
    """What is wrong, and where: an image, a line, a class, the address. An error spoils a training or evaluation."""

    severity: Severity
    what: str
    where: str


def issues_of_kind(severity: Severity, what: str, places: Sequence[str]) -> list[Issue]:
    """One issue for all `places` that have the same thing wrong: "98 files ...", and where, with three names at most.

    `what` holds "{count}". No issue without places.
    """
    if not places:
        return []
    return [Issue(severity, what.format(count=len(places)), first_few(places))]
