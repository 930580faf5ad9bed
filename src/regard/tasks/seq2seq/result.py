"""What a translator writes, and what it looked at."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Translation:
    """What was written for a source, and the logarithm of its probability."""

    source: str
    text: str
    log_prob: float


@dataclass(frozen=True)
class Alignment:
    """What each written token took from each token of the source."""

    source: tuple[str, ...]
    target: tuple[str, ...]
    weights: Float[Tensor, "layers heads target_tokens source_tokens"]
