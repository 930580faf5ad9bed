"""A trained language model in use."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Int64
from torch import Tensor, nn

from regard.data import PAD, Tokenizer, seed_for, tokenizer_from_dict
from regard.errors import RegardError
from regard.models.decoding import greedy, sample
from regard.tasks.next_token.metrics import TextEvaluation


class Writer:
    """A language model with its tokenizer: it goes on with a text, and says how probable a text is."""

    def __init__(self, model: nn.Module, tokenizer: Tokenizer) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer
        context = getattr(model, "context", None)
        if not isinstance(context, int):
            raise RegardError(f"{type(model).__name__} is no language model: it has no context")
        self.context = context

    @classmethod
    def from_metadata(cls, model: nn.Module, metadata: Mapping[str, Any], where: str) -> "Writer":
        """With what a run's metadata.json keeps."""
        return cls(model, tokenizer_from_dict(metadata["tokenizer"], where))

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

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
        """What the model writes after `prompt`: drawn from `seed`, or with temperature 0 the likeliest token each time.

        It ends after `max_new_tokens`, or where the context is full. Raises RegardError for an empty prompt, or one
        that leaves no room in the context.
        """
        tokens = self.tokenizer.encode(prompt)
        room = self.context - len(tokens)
        if not tokens:
            raise RegardError("prompt: is empty; give the model something to go on with")
        if room < 1:
            raise RegardError(
                f"prompt: {len(tokens)} tokens are too many; the context holds {self.context}, so at most "
                f"{self.context - 1} leave room for an answer"
            )
        if max_new_tokens is not None and max_new_tokens > room:
            raise RegardError(
                f"prompt of {len(tokens)} tokens and {max_new_tokens} new ones are more than the context of "
                f"{self.context}; ask for at most {room}"
            )
        model: Any = self.model
        start = torch.tensor([tokens], device=self.device)
        count = room if max_new_tokens is None else max_new_tokens
        if temperature == 0:
            written = greedy(model.step, start, eos=None, pad=PAD, max_new_tokens=count)
        else:
            written = sample(
                model.step,
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
        """How probable the model holds a text, or this process's share of it.

        Windows of the context's length overlap by half, and each scores its second half (the first scores all of
        itself): a token is predicted from at least half a context. A line break stands before the text.
        """
        tokens = torch.tensor([*self.tokenizer.encode("\n"), *self.tokenizer.encode(text)])
        if len(tokens) < 2:
            raise RegardError("evaluation: the text is empty")
        nats, num_tokens = 0.0, 0
        for inputs, labels in self._windows(tokens, batch_size, rank, world_size):
            logits = self.model(inputs.to(self.device))
            nats += F.cross_entropy(
                logits.double().flatten(0, 1), labels.to(self.device).flatten(), ignore_index=PAD, reduction="sum"
            ).item()
            num_tokens += int((labels != PAD).sum())
        return TextEvaluation(nats, num_tokens, len(text.encode()))

    def _windows(
        self, tokens: Int64[Tensor, " tokens"], batch_size: int, rank: int, world_size: int
    ) -> Iterator[tuple[Int64[Tensor, "batch window"], Int64[Tensor, "batch window"]]]:
        """Batches of inputs, and labels which are PAD where another window scores, or the text is over."""
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
