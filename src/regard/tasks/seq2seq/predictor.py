"""A trained sequence-to-sequence model in use."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, overload

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from regard.data import BOS, EOS, PAD, PairSource, Tokenizer, evaluation_pairs, pair_batch
from regard.errors import RegardError, shown
from regard.models.decoding import Generated, beam_search, greedy
from regard.tasks.predictor import Predictor, batched, many, require_count, require_number, require_text, tokenizer_of
from regard.tasks.seq2seq.metrics import PairEvaluation
from regard.tasks.seq2seq.result import Alignment, Translation


class Translator(Predictor):
    """A model with its tokenizer, text in, text out: `translator("vier").text`."""

    def __init__(self, model: nn.Module, tokenizer: Tokenizer, max_new_tokens: int) -> None:
        super().__init__(model)
        self.tokenizer = tokenizer
        self.max_new_tokens = max_new_tokens

    @classmethod
    def from_metadata(cls, model: nn.Module, metadata: Mapping[str, Any], where: str) -> "Translator":
        """From a run's metadata.json. RegardError for a tokenizer that cannot be read."""
        tokenizer = tokenizer_of(metadata, where, "src_vocab", "tgt_vocab")
        most = metadata["max_new_tokens"]
        if type(most) is not int or not 1 <= most <= 1_000_000:
            raise RegardError(f"{where}: max_new_tokens must be 1 to 1,000,000, got {shown(most)}")
        return cls(model, tokenizer, most)

    @overload
    def predict(  # type: ignore[overload-overlap]  # a str is iterable as well
        self, texts: str, *, batch_size: int = 256, beam_size: int = 1, length_penalty: float = 0.6
    ) -> Translation: ...
    @overload
    def predict(
        self, texts: Iterable[str], *, batch_size: int = 256, beam_size: int = 1, length_penalty: float = 0.6
    ) -> list[Translation]: ...

    def predict(
        self, texts: str | Iterable[str], *, batch_size: int = 256, beam_size: int = 1, length_penalty: float = 0.6
    ) -> Translation | list[Translation]:
        """One text -> its translation; a list, tuple or generator of texts -> a list of translations.

        The decoder takes the most probable token each time, or searches with `beam_size` hypotheses.
        Raises RegardError for an empty text, or one that is longer than the model's positions reach.
        """
        if isinstance(texts, str):
            return self._predict([texts], batch_size, beam_size, length_penalty)[0]
        return self._predict(list(many(texts, "predict: give a str")), batch_size, beam_size, length_penalty)

    __call__ = predict

    def _predict(
        self, texts: Sequence[Any], batch_size: int, beam_size: int, length_penalty: float
    ) -> list[Translation]:
        """In batches of texts of similar length."""
        require_count("beam_size", beam_size)
        require_number("length_penalty", length_penalty)
        for number, text in enumerate(texts):
            name = f"predict: text {number + 1} of {len(texts)}"
            if not require_text(text, name):
                raise RegardError(f"{name} is empty")
        translations: list[Translation | None] = [None] * len(texts)
        by_length = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        for chosen in batched(by_length, batch_size):
            batch = pair_batch([(texts[i], "") for i in chosen], self.tokenizer, [str(i) for i in chosen])
            found = self._write(batch.source, batch.source_mask, beam_size, length_penalty)
            for i, tokens, log_prob in zip(chosen, found.tokens.tolist(), found.log_probs.tolist(), strict=True):
                translations[i] = Translation(texts[i], self.tokenizer.decode(tokens), log_prob)
        return [translation for translation in translations if translation is not None]

    @torch.inference_mode()
    def evaluate(
        self,
        pairs: PairSource,
        *,
        bleu_tokenize: str = "13a",
        batch_size: int = 256,
        num_workers: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> PairEvaluation:
        """Texts for all sources, or for the shard of process `rank`, and the cross-entropy of the references."""
        require_count("batch_size", batch_size)
        loader = evaluation_pairs(
            pairs, self.tokenizer, batch_size, rank=rank, world_size=world_size, num_workers=num_workers
        )
        texts: list[str] = []
        names: list[str] = []
        nats, num_tokens = 0.0, 0
        for batch in loader:
            batch = batch.to(self.device)
            logits = self.model(batch.source, batch.target[:, :-1], source_mask=batch.source_mask)
            labels = batch.target[:, 1:]
            nats += F.cross_entropy(
                logits.double().flatten(0, 1), labels.flatten(), ignore_index=PAD, reduction="sum"
            ).item()
            num_tokens += int((labels != PAD).sum())
            written = self._write(batch.source, batch.source_mask, beam_size=1, length_penalty=0.0)
            texts += [self.tokenizer.decode(tokens) for tokens in written.tokens.tolist()]
            names += batch.names
        known = {pairs.name(i): i for i in range(len(pairs))}
        chosen = [known[name] for name in names]
        sources, references = zip(*(pairs.pair(i) for i in chosen), strict=True) if chosen else ((), ())
        groups = tuple(pairs.group(i) for i in chosen)
        return PairEvaluation(sources, references, tuple(texts), groups, tuple(names), nats, num_tokens, bleu_tokenize)

    @torch.inference_mode()
    def alignment(self, text: str, *, beam_size: int = 1, length_penalty: float = 0.6) -> tuple[Translation, Alignment]:
        """The translation of a text, as in `predict`, and the cross-attention between the tokens of both."""
        answer = self.predict(text, beam_size=beam_size, length_penalty=length_penalty)
        batch = pair_batch([(text, answer.text)], self.tokenizer, [""]).to(self.device)
        model: Any = self.model
        weights = model.cross_attention(batch.source, batch.target[:, :-1])[0].float().cpu()
        written = (*self._pieces(batch.target[0, 1:-1]), "end")
        return answer, Alignment(tuple(self._pieces(batch.source[0])), written, weights)

    @torch.inference_mode()
    def _write(self, source: Tensor, mask: Tensor | None, beam_size: int, length_penalty: float) -> Generated:
        model: Any = self.model
        step = self._checked(model.step)
        state = model.start(source.to(self.device), source_mask=None if mask is None else mask.to(self.device))
        prompt = torch.full((len(source), 1), BOS, device=self.device)
        if beam_size == 1:
            return greedy(step, prompt, state, eos=EOS, pad=PAD, max_new_tokens=self.max_new_tokens)
        return beam_search(
            step,
            prompt,
            state,
            beam_size=beam_size,
            length_penalty=length_penalty,
            eos=EOS,
            pad=PAD,
            max_new_tokens=self.max_new_tokens,
        )

    def _pieces(self, tokens: Tensor) -> list[str]:
        """The text of each token. If several tokens make one letter, the first gets the letter, the others nothing."""
        ids, pieces = tokens.tolist(), []
        first = 0
        for end in range(1, len(ids) + 1):
            text, rest = self.tokenizer.decode(ids[first:end]), self.tokenizer.decode(ids[end:])
            if text + rest == self.tokenizer.decode(ids[first:]):  # else the cut goes through a letter
                pieces += [text, *[""] * (end - first - 1)]
                first = end
        return pieces
