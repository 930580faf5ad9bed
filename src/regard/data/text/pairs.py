"""What sequence-to-sequence data becomes: numbered pairs of texts; and `pairs:PATH`, your own."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from regard.data.order import seed_for
from regard.errors import RegardError, first_of
from regard.files import expanded
from regard.reading import read_bytes

LAYOUT = "expected lines of SOURCE<TAB>TARGET, in a file or in PATH/train.tsv and PATH/val.tsv"

LARGEST_FILE = 4 * 2**30  # bytes; a file is read whole

# What an unreadable line does: end the opening with an error, or be left out and listed in `skipped`.
OnBadLine = Literal["stop", "skip"]


class PairSource(ABC):
    """Pairs of texts, a source and its target, that are read one at a time.

    `skipped` names the lines that were left out because they cannot be read, each with the reason.
    """

    skipped: tuple[str, ...] = ()

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def pair(self, index: int) -> tuple[str, str]:
        """Pair `index`: (source, target)."""

    @abstractmethod
    def name(self, index: int) -> str:
        """What to call pair `index` in a message: `FILE:LINE`, or `numbers[nl:512]`."""

    @abstractmethod
    def group(self, index: int) -> str:
        """What pair `index` is counted with, such as its language; "" where there are no groups."""


@dataclass(frozen=True)
class TextPairs:
    """Pairs to train on and to validate on. `bleu_tokenize` is how BLEU cuts the targets: into words or characters.

    `has_val` is True where the data have a validation split of their own, and False where `val` was drawn by seed.
    """

    address: str
    train: PairSource
    val: PairSource
    groups: tuple[str, ...]
    bleu_tokenize: Literal["13a", "char"]
    has_val: bool = False

    @property
    def whole(self) -> PairSource:
        """All pairs, those to train on first."""
        return JoinedPairs((self.train, self.val))


class JoinedPairs(PairSource):
    """Several sources, one after another."""

    def __init__(self, sources: Sequence[PairSource]) -> None:
        self.places = [(source, index) for source in sources for index in range(len(source))]
        self.skipped = tuple(name for source in sources for name in source.skipped)

    def __len__(self) -> int:
        return len(self.places)

    def pair(self, index: int) -> tuple[str, str]:
        source, inner = self.places[index]
        return source.pair(inner)

    def name(self, index: int) -> str:
        source, inner = self.places[index]
        return source.name(inner)

    def group(self, index: int) -> str:
        source, inner = self.places[index]
        return source.group(inner)


class SelectedPairs(PairSource):
    """Some pairs of another source, in the order of `indices`; they keep their names."""

    def __init__(self, source: PairSource, indices: Sequence[int]) -> None:
        self.source = source
        self.indices = tuple(indices)

    def __len__(self) -> int:
        return len(self.indices)

    def pair(self, index: int) -> tuple[str, str]:
        return self.source.pair(self.indices[index])

    def name(self, index: int) -> str:
        return self.source.name(self.indices[index])

    def group(self, index: int) -> str:
        return self.source.group(self.indices[index])


class LinePairs(PairSource):
    """The pairs of a file's lines; `lines` are their numbers, from 1."""

    def __init__(
        self, path: Path, pairs: Sequence[tuple[str, str]], lines: Sequence[int], skipped: tuple[str, ...] = ()
    ) -> None:
        self.path = path
        self.pairs = tuple(pairs)
        self.lines = tuple(lines)
        self.skipped = skipped

    def __len__(self) -> int:
        return len(self.pairs)

    def pair(self, index: int) -> tuple[str, str]:
        return self.pairs[index]

    def name(self, index: int) -> str:
        return f"{self.path}:{self.lines[index]}"

    def group(self, index: int) -> str:
        return ""

    def selected(self, indices: Sequence[int], skipped: tuple[str, ...]) -> "LinePairs":
        """Some of the pairs; they keep their names."""
        return LinePairs(self.path, [self.pairs[i] for i in indices], [self.lines[i] for i in indices], skipped)


def open_pair_lines(
    path: Path, val_fraction: float | None, split_seed: int, on_bad_line: OnBadLine = "stop"
) -> TextPairs:
    """Open a file, whose sources are split by seed, or a folder that holds train.tsv and val.tsv.

    All pairs of one source fall into the same split. For None, of data that are only evaluated on, nothing is held
    out of a file, and a folder needs no train.tsv. Raises RegardError.
    """
    address = f"pairs:{path}"
    path = expanded(path)
    if path.is_dir():
        wanted = ("val.tsv",) if val_fraction is None else ("train.tsv", "val.tsv")
        absent = [name for name in wanted if not (path / name).is_file()]
        if absent:
            raise RegardError(f"{address}: no {' and no '.join(absent)} in this folder; {LAYOUT}")
        *trained_on, val = (_read(path / name, on_bad_line) for name in wanted)
        train = trained_on[0] if trained_on else val.selected([], ())
    elif path.exists():
        whole = _read(path, on_bad_line)
        if val_fraction is None:
            train, val = whole, whole.selected([], ())
        else:
            train, val = _split(whole, address, val_fraction, split_seed)
    else:
        raise RegardError(f"{address}: no such file or folder; {LAYOUT}")
    return TextPairs(address, train, val, groups=(), bleu_tokenize="13a", has_val=path.is_dir())


def _read(path: Path, on_bad_line: OnBadLine) -> LinePairs:
    pairs, lines, bad = [], [], []
    content = read_bytes(path, most=LARGEST_FILE)
    if not content.strip():
        raise RegardError(f"{path}: is empty; {LAYOUT}")
    offset = 0
    for number, line in enumerate(content.removesuffix(b"\n").split(b"\n"), start=1):
        try:
            pairs.append(_pair(line, offset))
            lines.append(number)
        except RegardError as error:
            bad.append(f"{path}:{number}: {error}")
        offset += len(line) + 1
    if bad and (on_bad_line == "stop" or not pairs):
        way = "" if on_bad_line == "skip" else "; --set data.on_bad_line=skip leaves them out"
        raise RegardError(first_of(bad, "more such lines") + way)
    return LinePairs(path, pairs, lines, tuple(bad))


def _pair(line: bytes, offset: int) -> tuple[str, str]:
    """Source and target of a line that begins at byte `offset` of its file. Raises RegardError without saying where."""
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        raise RegardError(f"is not UTF-8: byte {offset + error.start} of the file") from error
    if offset == 0:
        text = text.removeprefix("\ufeff")  # some editors begin a file with this mark
    source, *rest = text.removesuffix("\r").split("\t")
    if len(rest) != 1:
        tabs = "no tab" if not rest else f"{len(rest)} tabs"
        raise RegardError(f"{tabs}, where one tab separates source and target")
    if not source.strip():
        raise RegardError("the source, before the tab, is empty")
    if not rest[0].strip():
        raise RegardError("the target, behind the tab, is empty")
    return source, rest[0]


def _split(whole: LinePairs, address: str, val_fraction: float, split_seed: int) -> tuple[LinePairs, LinePairs]:
    sources = list(dict.fromkeys(source for source, _ in whole.pairs))
    if len(sources) < 2:
        left_out = f"; left out: {whole.skipped[0]}" if whole.skipped else ""
        raise RegardError(
            f"{address}: two different sources are needed, one to train on and one to validate on{left_out}"
        )
    held_out = {sources[i] for i in held_out_indices(len(sources), val_fraction, split_seed, where=address)}
    splits: tuple[list[int], list[int]] = ([], [])
    for index, (source, _) in enumerate(whole.pairs):
        splits[source in held_out].append(index)
    return whole.selected(splits[0], whole.skipped), whole.selected(splits[1], ())


def held_out_indices(count: int, val_fraction: float, split_seed: int, *, where: str) -> list[int]:
    """Which of `count` (2 or more) items are held out, sorted: `val_fraction` of them, rounded up, but never all.

    Raises RegardError for a fraction outside (0, 1).
    """
    require_fraction(val_fraction, where)
    num_val = min(math.ceil(count * val_fraction), count - 1)
    generator = torch.Generator().manual_seed(seed_for(split_seed))
    chosen: list[int] = torch.randperm(count, generator=generator)[:num_val].sort().values.tolist()
    return chosen


def require_fraction(val_fraction: float, where: str) -> None:
    """Raise RegardError unless 0 < val_fraction < 1."""
    if not 0 < val_fraction < 1:
        raise RegardError(f"{where}: val_fraction is {val_fraction}; it must lie between 0 and 1")
