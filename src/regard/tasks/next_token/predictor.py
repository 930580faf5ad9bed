"""A trained language model in use."""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, overload

import torch
import torch.nn.functional as F
from jaxtyping import Int64
from torch import Tensor, nn

from regard.data import PAD, Tokenizer, seed_for
from regard.errors import RegardError
from regard.models.decoding import greedy, sample
from regard.tasks.next_token.metrics import TextEvaluation
from regard.tasks.predictor import (
    Predictor,
    many,
    require_count,
    require_integer,
    require_number,
    require_text,
    tokenizer_of,
)


class Writer(Predictor):
    """A language model with its tokenizer. It continues a text, and measures how probable a text is."""

    def __init__(self, model: nn.Module, tokenizer: Tokenizer) -> None:
        super().__init__(model)
        self.tokenizer = tokenizer
        context = getattr(model, "context", None)
        if not isinstance(context, int):
            raise RegardError(f"{type(model).__name__} is no language model: it has no context")
        self.context = context

    @classmethod
    def from_metadata(cls, model: nn.Module, metadata: Mapping[str, Any], where: str) -> "Writer":
        """From a run's metadata.json. RegardError for a tokenizer that cannot be read."""
        return cls(model, tokenizer_of(metadata, where, "vocab_size"))

    @overload
    def __call__(self, prompt: str, /, **options: Any) -> str: ...
    @overload
    def __call__(self, prompt: Iterable[str], /, **options: Any) -> list[str]: ...

    def __call__(self, prompt: str | Iterable[str], /, **options: Any) -> str | list[str]:
        """`generate` with its options. Each of several prompts is continued by itself, from the same seed."""
        if isinstance(prompt, str):
            return self.generate(prompt, **options)
        prompts = enumerate(many(prompt, "prompt: give a str"), 1)
        return [self.generate(require_text(one, f"prompt {number}:"), **options) for number, one in prompts]

    @torch.inference_mode()
    def generate(
        self,
        prompt: str,
        *,
        max_new_tokens: int | None = None,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int = 0,
    ) -> str:
        """The text after `prompt`, sampled from `seed`; with temperature 0, the most probable token each time.

        It ends after `max_new_tokens`, or where the context is full. Raises RegardError for an empty prompt, or one
        that leaves no room in the context.
        """
        tokens = self.tokenizer.encode(require_text(prompt, "prompt:"))
        room = self.context - len(tokens)
        if not tokens:
            raise RegardError("prompt: is empty; give the model a text to continue")
        if room < 1:
            raise RegardError(
                f"prompt: {len(tokens)} tokens are too many; the context holds {self.context}, so at most "
                f"{self.context - 1} leave room for an answer"
            )
        require_number("temperature", temperature)
        if top_p is not None:
            require_number("top_p", top_p)
        for name, value in (("top_k", top_k), ("max_new_tokens", max_new_tokens)):
            if value is not None:
                require_integer(name, value)
        if max_new_tokens is not None and max_new_tokens > room:
            raise RegardError(
                f"prompt of {len(tokens)} tokens and {max_new_tokens} new ones are more than the context of "
                f"{self.context}; ask for at most {room}"
            )
        model: Any = self.model
        step = self._checked(model.step)
        start = torch.tensor([tokens], device=self.device)
        count = room if max_new_tokens is None else max_new_tokens
        if temperature == 0:
            written = greedy(step, start, eos=None, pad=PAD, max_new_tokens=count)
        else:
            written = sample(
                step,
                start,
                eos=None,
                pad=PAD,
                max_new_tokens=count,
                temperature=temperature,
                top_k=top_k,
                top_p=top_p,
                generator=torch.Generator(self.device).manual_seed(seed_for(seed)),
            )
        return self.tokenizer.decode(written.tokens[0].tolist())

    @torch.inference_mode()
    def evaluate(self, text: str, *, batch_size: int = 32, rank: int = 0, world_size: int = 1) -> TextEvaluation:
        """The cross-entropy of a text, or of the shard of process `rank`.

        Windows of the context's length overlap by half. The first window scores all its tokens, every other one its
        second half, so that a token is predicted from at least half a context. A line break stands before the text.
        """
        require_count("batch_size", batch_size)
        tokens = torch.tensor([*self.tokenizer.encode("\n"), *self.tokenizer.encode(text)])
        if len(tokens) < 2:
            raise RegardError("evaluation: the text is empty")
        windows: list[float] = []
        num_tokens = 0
        for inputs, labels in self._windows(tokens, batch_size, rank, world_size):
            logits = self.model(inputs.to(self.device))
            losses = F.cross_entropy(
                logits.double().transpose(1, 2), labels.to(self.device), ignore_index=PAD, reduction="none"
            )
            windows += losses.sum(1).tolist()
            num_tokens += int((labels != PAD).sum())
        return TextEvaluation(math.fsum(windows), num_tokens, len(text.encode()), windows=tuple(windows))

    def _windows(
        self, tokens: Int64[Tensor, " tokens"], batch_size: int, rank: int, world_size: int
    ) -> Iterator[tuple[Int64[Tensor, "batch window"], Int64[Tensor, "batch window"]]]:
        """Batches of inputs and labels. A label is PAD where another window scores it, and after the text's end."""
        length, stride = self.context, max(self.context // 2, 1)
        starts = range(0, max(len(tokens) - 1 - (length - stride), 1), stride)
        inputs, labels = [], []
        for number, start in enumerate(starts):
            if number % world_size != rank:
                continue
            window = F.pad(tokens[start : start + length + 1], (0, max(start + length + 1 - len(tokens), 0)), value=PAD)
            label = window[1:].clone()
            if number:
                label[: length - stride] = PAD
            inputs.append(window[:-1])
            labels.append(label)
        for first in range(0, len(inputs), batch_size):
            yield torch.stack(inputs[first : first + batch_size]), torch.stack(labels[first : first + batch_size])
