"""Text to token ids and back. Every tokenizer begins with the same three special tokens, which no text contains."""

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from regard.errors import RegardError, one_line, shown, unknown

PAD = 0
BOS = 1
EOS = 2
NUM_SPECIALS = 3
NUM_BYTES = 256

TokenizerKind = Literal["bytes", "bpe"]
TOKENIZERS: dict[TokenizerKind, str] = {
    "bytes": "one token a byte of UTF-8",
    "bpe": "byte-pair encoding: frequent sequences of bytes become one token",
}

# Their names hold a letter that byte-level BPE never writes, so that no text can be merged into one of them.
_SPECIAL_NAMES = ("⟨pad⟩", "⟨bos⟩", "⟨eos⟩")


class Tokenizer(ABC):
    """Text as token ids in 0 .. vocab_size − 1, of which the first three are padding, beginning and end."""

    vocab_size: int

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """The ids of a text, without special tokens. Raises RegardError for text that is not UTF-8."""

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; special tokens give nothing, bytes that are not UTF-8 the replacement character.

        Raises RegardError for an id outside the vocabulary.
        """

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """What `tokenizer_from_dict` reads; it can be written as JSON."""

    def _without_specials(self, ids: Sequence[int]) -> list[int]:
        for token in ids:
            if not 0 <= token < self.vocab_size:
                raise RegardError(f"token id {token} is outside the vocabulary of {self.vocab_size}")
        return [token for token in ids if token >= NUM_SPECIALS]


class ByteTokenizer(Tokenizer):
    """Byte b of the text's UTF-8 is token b + 3."""

    vocab_size = NUM_SPECIALS + NUM_BYTES

    def encode(self, text: str) -> list[int]:
        return [byte + NUM_SPECIALS for byte in utf8(text)]

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(token - NUM_SPECIALS for token in self._without_specials(ids)).decode(errors="replace")

    def to_dict(self) -> dict[str, Any]:
        return {"kind": "bytes"}


class BPETokenizer(Tokenizer):
    """Byte-pair encoding over bytes (Sennrich et al. 2016; over bytes as in Radford et al. 2019, section 2.2).

    json: a tokenizer of the `tokenizers` package whose first ids are the three special tokens.
    """

    def __init__(self, json: str) -> None:
        import tokenizers

        self._tokenizer = tokenizers.Tokenizer.from_str(json)
        first = tuple(self._tokenizer.id_to_token(token) for token in range(NUM_SPECIALS))
        if first != _SPECIAL_NAMES:
            raise RegardError(f"a tokenizer must begin with the tokens {' '.join(_SPECIAL_NAMES)}; got {first}")
        self.vocab_size = self._tokenizer.get_vocab_size()

    @classmethod
    def trained(cls, texts: Iterable[str], vocab_size: int) -> "BPETokenizer":
        """Learn merges until there are `vocab_size` tokens, or until nothing is left in `texts` that comes twice.

        Raises RegardError if `vocab_size` is too small for the special tokens and all bytes.
        """
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

        if vocab_size < NUM_SPECIALS + NUM_BYTES:
            raise RegardError(
                f"vocab_size is {vocab_size}; a bpe tokenizer needs at least {NUM_SPECIALS + NUM_BYTES}: "
                f"{NUM_SPECIALS} special tokens and {NUM_BYTES} bytes"
            )
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            min_frequency=2,
            special_tokens=list(_SPECIAL_NAMES),
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        with _one_thread():
            tokenizer.train_from_iterator((utf8(text).decode() for text in texts), trainer)
        values = json.loads(tokenizer.to_str())
        # The special tokens stay in the vocabulary, but nobody looks for their names in a text.
        values["added_tokens"] = []
        return cls(json.dumps(values))

    def encode(self, text: str) -> list[int]:
        utf8(text)
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode(self._without_specials(ids))

    def to_dict(self) -> dict[str, Any]:
        return {"kind": "bpe", "json": json.loads(self._tokenizer.to_str())}


def create_tokenizer(kind: TokenizerKind, vocab_size: int, texts: Iterable[str]) -> Tokenizer:
    """A tokenizer of a kind of `TOKENIZERS`. `vocab_size` and `texts`, to learn from, are for "bpe" alone."""
    if kind == "bytes":
        return ByteTokenizer()
    if kind == "bpe":
        return BPETokenizer.trained(texts, vocab_size)
    raise unknown("tokenizer", kind, TOKENIZERS)


def tokenizer_from_dict(values: Any, where: str) -> Tokenizer:
    """The tokenizer that `to_dict` wrote; `where`, such as a file's name, begins the message of an error."""
    kind = values.get("kind") if isinstance(values, Mapping) else None
    if kind == "bytes":
        return ByteTokenizer()
    if kind != "bpe":
        raise unknown("tokenizer", kind if isinstance(kind, str) else shown(kind), TOKENIZERS, where)
    try:
        _require_bytes_bpe(values["json"])
        return BPETokenizer(json.dumps(values["json"]))
    except Exception as error:  # the package raises nothing more special than this
        raise RegardError(f"{where}: not a tokenizer of the tokenizers package: {one_line(error)}") from error


def _require_bytes_bpe(values: Any) -> None:
    """ValueError unless these are the parts that `BPETokenizer.trained` writes: others could pad to any length."""
    kinds = {"model": "BPE", "pre_tokenizer": "ByteLevel", "decoder": "ByteLevel"}
    for key, kind in kinds.items():
        if values[key]["type"] != kind:
            raise ValueError(f"its {key} is not of the kind {kind}")
    for key in ("normalizer", "post_processor", "truncation", "padding", "added_tokens"):
        if values.get(key):
            raise ValueError(f"it has a {key}")


def utf8(text: str) -> bytes:
    """A text's bytes. Raises RegardError for lone surrogates: so an argument that is not UTF-8 reaches Python."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        shown = text if len(text) <= 40 else text[:37] + "..."
        raise RegardError(f"the text {shown!a} is not UTF-8 (its character number {error.start + 1})") from error


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keep the package to one thread: after it has used several, every forked worker prints a warning."""
    name = "TOKENIZERS_PARALLELISM"
    before = os.environ.get(name)
    os.environ[name] = before or "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
