"""Sequence to sequence: an encoder reads a text, and a decoder writes another."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from regard.data import PAD, Issue, PairBatch, TextPairs, TrainingOrder, create_tokenizer, open_pairs, training_pairs
from regard.errors import RegardError
from regard.models import RecurrentSeq2Seq, Transformer, TransformerConfig, build, config_values
from regard.recipes import Seq2SeqRecipe
from regard.tasks.seq2seq.metrics import PairEvaluation
from regard.tasks.seq2seq.predictor import Translator
from regard.tasks.task import training_order

# A translation may be this many tokens longer than the longest target in a sample of the training data.
SPARE_TOKENS = 8
SAMPLE = 2000


class Seq2SeqTask:
    """Pairs of texts with one vocabulary for both. The constructor reads the data and makes the tokenizer."""

    unit = "pairs"
    main_metric = "exact_match"
    features_first = False
    larger_is_better = True
    progress: Any = None

    def __init__(self, recipe: Seq2SeqRecipe) -> None:
        self.recipe = recipe
        data = recipe.data
        self.data: TextPairs = open_pairs(
            data.address,
            val_fraction=data.val_fraction,
            split_seed=data.split_seed,
            on_bad_line=data.on_bad_line,
        )
        train = self.data.train
        # At random, since every n-th pair may be of one language.
        drawn = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))[:SAMPLE].tolist()
        sample = [train.pair(i) for i in sorted(drawn)]
        texts = (text for pair in sample for text in pair)
        self.tokenizer = create_tokenizer(data.tokenizer, data.vocab_size, texts)
        size = self.tokenizer.vocab_size
        self.config = recipe.model.config(src_vocab=size, tgt_vocab=size)
        sources, targets = zip(*sample, strict=True)
        self._longest_source = max(len(self.tokenizer.encode(text)) for text in sources)
        self._longest_target = max(len(self.tokenizer.encode(text)) for text in targets)
        self._max_new_tokens = self._longest_target + SPARE_TOKENS
        if isinstance(self.config, TransformerConfig) and self.config.max_tokens is not None:
            self._max_new_tokens = min(self._max_new_tokens, self.config.max_tokens)  # as far as positions reach

    @property
    def skipped(self) -> tuple[str, ...]:
        return (*self.data.train.skipped, *self.data.val.skipped)

    def check(self) -> Sequence[Issue]:
        """No issues beyond those that opening the data raises."""
        return ()

    def build_model(self) -> nn.Module:
        model = build(self.config)
        if isinstance(model, Transformer):
            model.encoder.gradient_checkpointing = self.recipe.train.gradient_checkpointing
            model.decoder.gradient_checkpointing = self.recipe.train.gradient_checkpointing
        return model

    def whole(self, model: nn.Module) -> nn.Module:
        return model

    def order(self, *, rank: int, world_size: int) -> TrainingOrder:
        """The pairs of each step, from the first step on."""
        return training_order(self.recipe, len(self.data.train), rank=rank, world_size=world_size)

    def training_loader(self, order: TrainingOrder) -> Iterable[PairBatch]:
        """Endless batches."""
        return training_pairs(self.data.train, self.tokenizer, order, num_workers=self.recipe.data.num_workers)

    def weight(self, batch: PairBatch) -> int:
        """The number of tokens that are predicted."""
        return int((batch.target[:, 1:] != PAD).sum())

    def loss(self, model: nn.Module, batch: PairBatch) -> Float[Tensor, ""]:
        """Mean cross-entropy of the target's tokens, each predicted from those before it, with label smoothing."""
        logits = model(batch.source, batch.target[:, :-1], source_mask=batch.source_mask)
        return F.cross_entropy(
            logits.flatten(0, 1),
            batch.target[:, 1:].flatten(),
            ignore_index=PAD,
            label_smoothing=self.recipe.train.label_smoothing,
        )

    def predictor(self, model: nn.Module) -> Translator:
        return Translator(model, self.tokenizer, self._max_new_tokens)

    def evaluate(self, model: nn.Module, *, rank: int, world_size: int) -> PairEvaluation:
        """The evaluation of this process's shard of the held-out pairs."""
        was_training = model.training
        shard = self.predictor(model).evaluate(
            self.data.val,
            bleu_tokenize=self.data.bleu_tokenize,
            num_workers=self.recipe.data.num_workers,
            rank=rank,
            world_size=world_size,
        )
        model.train(was_training)
        return shard

    def metrics(self, shards: Sequence[PairEvaluation]) -> dict[str, float]:
        """`exact_match`, `bleu`, `perplexity` and `loss` over the shards of all processes."""
        return PairEvaluation.joined(shards).metrics()

    def details(self, shards: Sequence[PairEvaluation]) -> dict[str, Any]:
        return {}

    def select(self, model: nn.Module) -> float:
        raise RegardError("data.selection is for tasks with images")

    def finish(self, model: nn.Module, tell: Callable[[str], object]) -> dict[str, Any]:
        return {}

    def flops(self, model: nn.Module) -> int:
        """For the longest pair."""
        if not isinstance(model, Transformer | RecurrentSeq2Seq):
            return 0
        return model.flops(self._longest_source, self._longest_target + 1)

    def metadata(self) -> dict[str, Any]:
        """All that prediction needs beside the weights, so that it needs no data set."""
        return {
            "task": "seq2seq",
            "model": {"name": self.recipe.model.name, "config": config_values(self.config)},
            "tokenizer": self.tokenizer.to_dict(),
            "max_new_tokens": self._max_new_tokens,
            "groups": list(self.data.groups),
        }
