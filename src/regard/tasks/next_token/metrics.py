"""How good a language model is."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from regard.tasks.seq2seq.metrics import bits_per_byte, perplexity


@dataclass(frozen=True)
class TextEvaluation:
    """How probable a model held a text."""

    nats: float
    """Cross-entropy of all its tokens."""
    num_tokens: int
    num_bytes: int
    skipped: tuple[str, ...] = ()

    @classmethod
    def joined(cls, shares: Sequence["TextEvaluation"]) -> "TextEvaluation":
        """The shares of several processes as one; each knows the bytes of the whole."""
        nats = math.fsum(share.nats for share in shares)
        return cls(nats, sum(share.num_tokens for share in shares), shares[0].num_bytes)

    def metrics(self) -> dict[str, float]:
        """`bits_per_byte`, `perplexity` (of a token) and `loss` (mean cross-entropy of a token in nats)."""
        return {
            "bits_per_byte": bits_per_byte(self.nats, self.num_bytes),
            "perplexity": perplexity(self.nats, self.num_tokens),
            "loss": self.nats / self.num_tokens,
        }
