"""Next-token prediction: a language model of one text."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from regard.data import Issue, TrainingOrder, WindowBatch, create_tokenizer, num_windows, open_text, training_windows
from regard.errors import RegardError
from regard.models import LanguageModel, config_values
from regard.recipes import NextTokenRecipe
from regard.tasks.next_token.metrics import TextEvaluation
from regard.tasks.next_token.predictor import Writer
from regard.tasks.task import training_order


class NextTokenTask:
    """A text, cut into windows of the model's context. The constructor reads it and makes the tokenizer."""

    unit = "windows"
    main_metric = "bits_per_byte"
    features_first = False
    larger_is_better = False
    progress: Any = None

    def __init__(self, recipe: NextTokenRecipe) -> None:
        self.recipe = recipe
        data = recipe.data
        self.data = open_text(data.address, val_fraction=data.val_fraction, on_bad_line=data.on_bad_line)
        self.tokenizer = create_tokenizer(data.tokenizer, data.vocab_size, [self.data.train])
        self.config = recipe.model.config(vocab_size=self.tokenizer.vocab_size)
        self._tokens = torch.tensor(self.tokenizer.encode(self.data.train))

    @property
    def skipped(self) -> tuple[str, ...]:
        return self.data.skipped

    def check(self) -> Sequence[Issue]:
        """No issues beyond those that opening the data raises."""
        return ()

    def build_model(self) -> LanguageModel:
        model = LanguageModel(self.config)
        model.decoder.gradient_checkpointing = self.recipe.train.gradient_checkpointing
        return model

    def whole(self, model: nn.Module) -> nn.Module:
        return model

    def order(self, *, rank: int, world_size: int) -> TrainingOrder:
        """The windows of each step, from the first step on."""
        count = num_windows(len(self._tokens), self.config.context)
        return training_order(self.recipe, count, rank=rank, world_size=world_size)

    def training_loader(self, order: TrainingOrder) -> Iterable[WindowBatch]:
        """Endless batches; in each epoch the windows begin at other places."""
        return training_windows(self._tokens, self.config.context, order, num_workers=self.recipe.data.num_workers)

    def weight(self, batch: WindowBatch) -> int:
        """The number of windows, which all have one length."""
        return len(batch)

    def loss(self, model: nn.Module, batch: WindowBatch) -> Float[Tensor, ""]:
        """Mean cross-entropy of each token, predicted from those before it in the window."""
        logits = model(batch.tokens[:, :-1])
        labels = batch.tokens[:, 1:].flatten()
        return F.cross_entropy(logits.flatten(0, 1), labels, label_smoothing=self.recipe.train.label_smoothing)

    def predictor(self, model: nn.Module) -> Writer:
        return Writer(model, self.tokenizer)

    def evaluate(self, model: nn.Module, *, rank: int, world_size: int) -> TextEvaluation:
        """The evaluation of this process's shard of the held-out text."""
        was_training = model.training
        shard = self.predictor(model).evaluate(self.data.val, rank=rank, world_size=world_size)
        model.train(was_training)
        return shard

    def metrics(self, shards: Sequence[TextEvaluation]) -> dict[str, float]:
        """`bits_per_byte`, `perplexity` and `loss` over the shards of all processes."""
        return TextEvaluation.joined(shards).metrics()

    def details(self, shards: Sequence[TextEvaluation]) -> dict[str, Any]:
        return {}

    def select(self, model: nn.Module) -> float:
        raise RegardError("data.selection is for tasks with images")

    def finish(self, model: nn.Module, tell: Callable[[str], object]) -> dict[str, Any]:
        return {}

    def flops(self, model: nn.Module) -> int:
        """For one window."""
        return model.flops(self.config.context) if isinstance(model, LanguageModel) else 0

    def metadata(self) -> dict[str, Any]:
        """All that generation needs beside the weights, so that it needs no data set."""
        return {
            "task": "next-token",
            "model": {"name": self.recipe.model.name, "config": config_values(self.config)},
            "tokenizer": self.tokenizer.to_dict(),
        }
