"""Batches of token ids, for sequence to sequence and for the next token.

As for images, order and content are functions of (seed, epoch, sample), whatever the workers and processes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Bool, Int64
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from regard.data.order import TrainingOrder, seed_for
from regard.data.text.pairs import PairSource
from regard.data.text.tokenizers import BOS, EOS, PAD, Tokenizer
from regard.errors import RegardError


@dataclass
class PairBatch:
    """Sources without special tokens; targets as BOS, tokens, EOS. Both are padded with PAD at their ends.

    source_mask: True for tokens, False for padding; None where no source is padded. `skipped` is always empty; it is
    here because batches of images have one.
    """

    source: Int64[Tensor, "batch source_tokens"]
    source_mask: Bool[Tensor, "batch source_tokens"] | None
    target: Int64[Tensor, "batch target_tokens"]
    names: list[str]
    skipped: list[str]

    def __len__(self) -> int:
        return len(self.names)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> "PairBatch":
        """The same batch with its tensors on `device`."""
        source, target = (tokens.to(device, non_blocking=non_blocking) for tokens in (self.source, self.target))
        mask = None if self.source_mask is None else self.source_mask.to(device, non_blocking=non_blocking)
        return PairBatch(source, mask, target, self.names, self.skipped)

    def pin_memory(self) -> "PairBatch":
        """The same batch in page-locked memory; a DataLoader asks for it."""
        mask = None if self.source_mask is None else self.source_mask.pin_memory()
        return PairBatch(self.source.pin_memory(), mask, self.target.pin_memory(), self.names, self.skipped)


@dataclass
class WindowBatch:
    """Windows of context + 1 tokens: all but the last are seen, all but the first are to be predicted."""

    tokens: Int64[Tensor, "batch window"]
    names: list[str]
    skipped: list[str]

    def __len__(self) -> int:
        return len(self.names)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> "WindowBatch":
        """The same batch with its tensors on `device`."""
        return WindowBatch(self.tokens.to(device, non_blocking=non_blocking), self.names, self.skipped)

    def pin_memory(self) -> "WindowBatch":
        """The same batch in page-locked memory; a DataLoader asks for it."""
        return WindowBatch(self.tokens.pin_memory(), self.names, self.skipped)


def pair_batch(pairs: Sequence[tuple[str, str]], tokenizer: Tokenizer, names: Sequence[str]) -> PairBatch:
    """Encode pairs of texts and join them. Raises RegardError for text that is not UTF-8 and for an empty source."""
    sources = [tokenizer.encode(source) for source, _ in pairs]
    targets = [[BOS, *tokenizer.encode(target), EOS] for _, target in pairs]
    for name, tokens in zip(names, sources, strict=True):
        if not tokens:
            raise RegardError(f"{name}: the source is empty")
    source = _padded(sources)
    lengths = torch.tensor([len(tokens) for tokens in sources])
    mask = torch.arange(source.shape[1]) < lengths[:, None]
    return PairBatch(source, None if bool(mask.all()) else mask, _padded(targets), list(names), [])


def _padded(sequences: Sequence[Sequence[int]]) -> Int64[Tensor, "batch tokens"]:
    longest = max(map(len, sequences))
    return torch.tensor([[*tokens, *[PAD] * (longest - len(tokens))] for tokens in sequences], dtype=torch.int64)


# What a dataset yields for one pair: (source, target) and its name.
_NamedPair = tuple[tuple[str, str], str]


class _Pairs(Dataset[_NamedPair]):
    """Pairs by (epoch, index). Nothing about them changes from epoch to epoch."""

    def __init__(self, source: PairSource) -> None:
        self.source = source

    def __getitem__(self, key: tuple[int, int]) -> _NamedPair:
        _, index = key
        return self.source.pair(index), self.source.name(index)


def _collate_pairs(items: list[_NamedPair], tokenizer: Tokenizer) -> PairBatch:
    return pair_batch([pair for pair, _ in items], tokenizer, [name for _, name in items])


def training_pairs(
    source: PairSource, tokenizer: Tokenizer, order: TrainingOrder, num_workers: int
) -> DataLoader[_NamedPair]:
    """`PairBatch`es without end, as `order` says."""
    return _pair_loader(source, tokenizer, order, num_workers)


class _ByLength(Sampler[list[tuple[int, int]]]):
    """Every `world_size`-th pair in the order of their sources' lengths, `batch_size` at a time."""

    def __init__(self, source: PairSource, batch_size: int, rank: int, world_size: int) -> None:
        lengths = [tuple(len(text.encode(errors="replace")) for text in source.pair(i)) for i in range(len(source))]
        mine = sorted(range(len(source)), key=lengths.__getitem__)[rank::world_size]
        self.batches = [mine[first : first + batch_size] for first in range(0, len(mine), batch_size)]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for batch in self.batches:
            yield [(0, index) for index in batch]


def evaluation_pairs(
    source: PairSource,
    tokenizer: Tokenizer,
    batch_size: int,
    rank: int = 0,
    world_size: int = 1,
    num_workers: int = 0,
) -> DataLoader[_NamedPair]:
    """`PairBatch`es of each pair once over all processes, the shortest sources first, so that little is padded.

    Processes may get different numbers of batches; their results are gathered after the last one.
    """
    return _pair_loader(source, tokenizer, _ByLength(source, batch_size, rank, world_size), num_workers)


def _pair_loader(
    source: PairSource, tokenizer: Tokenizer, order: Sampler[list[tuple[int, int]]], num_workers: int
) -> DataLoader[_NamedPair]:
    return DataLoader(
        _Pairs(source),
        batch_sampler=order,
        num_workers=num_workers,
        collate_fn=partial(_collate_pairs, tokenizer=tokenizer),
        pin_memory=torch.cuda.is_available(),
        persistent_workers=num_workers > 0,
        generator=torch.Generator(),  # a loader draws a number when it starts: not from the global generator
    )


def num_windows(num_tokens: int, context: int) -> int:
    """The number of windows, of context + 1 tokens each, in an epoch.

    It is the number that fits even where the first window begins at token context − 1, and at least 1. Raises
    RegardError for a text shorter than context + 1 tokens.
    """
    if context < 1:
        raise RegardError(f"context is {context}; it must be at least 1")
    if num_tokens < context + 1:
        longest = f"the context may be at most {num_tokens - 1}" if num_tokens > 1 else "two tokens are needed at least"
        raise RegardError(f"a text of {num_tokens} tokens is too short for a context of {context}; {longest}")
    return max((num_tokens - context) // context, 1)


class TrainingWindows(Dataset[tuple[Tensor, str]]):
    """Windows by (epoch, index): context + 1 tokens from number index · context + shift(seed, epoch) on.

    The shift is drawn from 0 to what the windows leave over, so that they are cut elsewhere in every epoch, and every
    token is trained on in some. Raises RegardError for a text shorter than context + 1 tokens.
    """

    def __init__(self, tokens: Int64[Tensor, " tokens"], context: int, seed: int) -> None:
        self.tokens = tokens
        self.context = context
        self.seed = seed
        self._left_over = len(tokens) - 1 - num_windows(len(tokens), context) * context

    def __len__(self) -> int:
        return num_windows(len(self.tokens), self.context)

    def shift(self, epoch: int) -> int:
        """Where the first window of an epoch begins."""
        return seed_for(self.seed, epoch) % (self._left_over + 1)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, str]:
        epoch, index = key
        first = index * self.context + self.shift(epoch)
        return self.tokens[first : first + self.context + 1], f"text[{first}]"


def _collate_windows(items: list[tuple[Tensor, str]]) -> WindowBatch:
    return WindowBatch(torch.stack([tokens for tokens, _ in items]), [name for _, name in items], [])


def training_windows(
    tokens: Int64[Tensor, " tokens"], context: int, order: TrainingOrder, num_workers: int
) -> DataLoader[tuple[Tensor, str]]:
    """`WindowBatch`es without end, as `order`, which must count `num_windows(len(tokens), context)`, says."""
    windows = TrainingWindows(tokens, context, order.seed)
    if order.num_samples != len(windows):
        raise RegardError(f"the order counts {order.num_samples} samples; the text has {len(windows)} windows")
    return DataLoader(
        windows,
        batch_sampler=order,
        num_workers=num_workers,
        collate_fn=_collate_windows,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),
    )
