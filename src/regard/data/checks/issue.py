"""What a check of data reports."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Issue:
    """What is wrong, and where: an image, a line, a class, the address. An error spoils a training or evaluation."""

    severity: Literal["error", "warning"]
    what: str
    where: str
