"""What a translator writes, and what each token of it attended to."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Translation:
    """The model's text for a source, and the logarithm of its probability."""

    source: str
    text: str
    log_prob: float


@dataclass(frozen=True)
class Alignment:
    """Cross-attention: how much each written token took from each token of the source."""

    source: tuple[str, ...]
    target: tuple[str, ...]
    weights: Float[Tensor, "layers heads target_tokens source_tokens"]
