"""How good a language model is."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from regard.tasks.text_metrics import bits_per_byte, perplexity


@dataclass(frozen=True)
class TextEvaluation:
    """The cross-entropy that a model gives a text, and what it is divided by."""

    nats: float
    """Cross-entropy of all its tokens."""
    num_tokens: int
    num_bytes: int
    skipped: tuple[str, ...] = ()
    windows: tuple[float, ...] = ()
    """The nats of each window, which add up to all."""

    @property
    def not_finite(self) -> tuple[str, ...]:
        """Says that the model gave the text no finite probability: the figures say nothing."""
        return () if math.isfinite(self.nats) else ("the text",)

    @classmethod
    def joined(cls, shards: Sequence["TextEvaluation"]) -> "TextEvaluation":
        """The shards of several processes as one; each has the number of bytes of the whole text."""
        nats = math.fsum(shard.nats for shard in shards)
        windows = tuple(nats for shard in shards for nats in shard.windows)
        return cls(nats, sum(shard.num_tokens for shard in shards), shards[0].num_bytes, windows=windows)

    def metrics(self) -> dict[str, float]:
        """`bits_per_byte`, `perplexity` (of a token) and `loss` (mean cross-entropy of a token in nats)."""
        return {
            "bits_per_byte": bits_per_byte(self.nats, self.num_bytes),
            "perplexity": perplexity(self.nats, self.num_tokens),
            "loss": self.nats / self.num_tokens,
        }
