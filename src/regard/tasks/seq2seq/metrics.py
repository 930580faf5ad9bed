"""How good a sequence-to-sequence model is."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from regard.errors import RegardError
from regard.tasks.text_metrics import perplexity


def exact_match(predictions: Sequence[str], references: Sequence[str]) -> float:
    """The fraction of predictions that equal their reference."""
    pairs = list(zip(predictions, references, strict=True))
    return sum(ours == theirs for ours, theirs in pairs) / len(pairs)


def bleu(predictions: Sequence[str], references: Sequence[str], *, tokenize: str = "13a") -> float:
    """BLEU of a corpus in [0, 100] (Papineni et al. 2002), as sacrebleu computes it.

    `tokenize` is sacrebleu's: "13a" for words, "char" for short texts.
    """
    from sacrebleu import corpus_bleu

    return float(corpus_bleu(list(predictions), [list(references)], tokenize=tokenize).score)


@dataclass(frozen=True)
class GroupFigures:
    """The figures of one group of pairs, such as a language."""

    name: str
    exact_match: float
    pairs: int


@dataclass(frozen=True)
class PairEvaluation:
    """The model's text for each source beside the reference, and the cross-entropy of the references."""

    sources: tuple[str, ...]
    references: tuple[str, ...]
    predictions: tuple[str, ...]
    groups: tuple[str, ...]
    names: tuple[str, ...]
    nats: float
    """Cross-entropy of all references, each with its end token."""
    num_tokens: int
    bleu_tokenize: str
    skipped: tuple[str, ...] = ()

    @property
    def not_finite(self) -> tuple[str, ...]:
        """Says that the model gave the references no finite probability: the figures say nothing."""
        return () if math.isfinite(self.nats) else ("the references",)

    @classmethod
    def joined(cls, shards: Sequence["PairEvaluation"]) -> "PairEvaluation":
        """The shards of several processes as one."""

        def all_of(field: str) -> tuple[str, ...]:
            return tuple(value for shard in shards for value in getattr(shard, field))

        return cls(
            all_of("sources"),
            all_of("references"),
            all_of("predictions"),
            all_of("groups"),
            all_of("names"),
            math.fsum(shard.nats for shard in shards),
            sum(shard.num_tokens for shard in shards),
            shards[0].bleu_tokenize,
            all_of("skipped"),
        )

    def metrics(self) -> dict[str, float]:
        """`exact_match`, `bleu`, `perplexity` (of a token) and `loss` (mean cross-entropy of a token in nats)."""
        if not self.names:
            raise RegardError("evaluation: there is no pair")
        return {
            "exact_match": exact_match(self.predictions, self.references),
            "bleu": bleu(self.predictions, self.references, tokenize=self.bleu_tokenize),
            "perplexity": perplexity(self.nats, self.num_tokens),
            "loss": self.nats / self.num_tokens,
        }

    def per_group(self) -> list[GroupFigures]:
        """Exact match of each group, in the order of their names."""
        figures = []
        for group in sorted(set(self.groups)):
            chosen = [i for i, name in enumerate(self.groups) if name == group]
            right = exact_match([self.predictions[i] for i in chosen], [self.references[i] for i in chosen])
            figures.append(GroupFigures(group, right, len(chosen)))
        return figures

    def mistakes(self) -> list[int]:
        """The indices of the pairs whose text is not the reference."""
        return [i for i, text in enumerate(self.predictions) if text != self.references[i]]
