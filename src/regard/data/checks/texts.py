"""Checks of pairs of texts and of running text."""

from collections.abc import Sequence
from dataclasses import dataclass

from regard.data.checks.issue import Issue, unreadable
from regard.data.text.corpus import TextData, paragraphs
from regard.data.text.numbers import NumberPairs
from regard.data.text.pairs import OnBadLine, PairSource, TextPairs


@dataclass(frozen=True)
class PairSummary:
    """How many pairs there are, and the groups (languages) they are of."""

    num_train: int
    num_val: int
    groups: tuple[str, ...]

    def __str__(self) -> str:
        groups = f", of {len(self.groups)} groups ({', '.join(self.groups)})" if self.groups else ""
        return f"{self.num_train} pairs to train on, {self.num_val} held out{groups}"


@dataclass(frozen=True)
class TextSummary:
    """How much text there is, in characters."""

    num_train: int
    num_val: int

    def __str__(self) -> str:
        return f"{self.num_train} characters to train on, {self.num_val} held out"


def check_opened_pairs(pairs: TextPairs, *, on_bad_line: OnBadLine = "stop") -> tuple[list[Issue], PairSummary]:
    """Read all pairs of a set that is open.

    Each unreadable line is an error, and under `on_bad_line` "skip" a warning; a source with several targets, and a
    pair in both splits, are warnings. Numbers are made by rule: they are only counted.
    """
    summary = PairSummary(len(pairs.train), len(pairs.val), pairs.groups)
    if isinstance(pairs.train, NumberPairs):
        return [], summary
    skipped = (*pairs.train.skipped, *pairs.val.skipped)
    return _unreadable(skipped, "lines", on_bad_line) + _several_targets(pairs.train) + _in_both_splits(pairs), summary


def _unreadable(skipped: Sequence[str], things: str, on_bad_line: OnBadLine) -> list[Issue]:
    if on_bad_line == "skip":
        return unreadable(skipped, things, "left out", "warning")
    return unreadable(skipped, things, f"--set data.on_bad_line=skip leaves such {things} out")


def _several_targets(train: PairSource) -> list[Issue]:
    """One issue, with the first pair whose source stands in an earlier one with another target."""
    first: dict[str, tuple[str, int]] = {}
    pairs = []
    for index in range(len(train)):
        source, target = train.pair(index)
        original, earlier = first.setdefault(source, (target, index))
        if original != target:
            pairs.append((index, earlier))
    return _first_of(pairs, "the same source as {}, with another target", train, train)


def _in_both_splits(pairs: TextPairs) -> list[Issue]:
    """One issue, with the first held-out pair that is also trained on."""
    first: dict[tuple[str, str], int] = {}
    for index in range(len(pairs.train)):
        first.setdefault(pairs.train.pair(index), index)
    shared = [(i, first[pairs.val.pair(i)]) for i in range(len(pairs.val)) if pairs.val.pair(i) in first]
    return _first_of(shared, "held out, and the same as {}, which is trained on", pairs.val, pairs.train)


def _first_of(pairs: list[tuple[int, int]], what: str, source: PairSource, other: PairSource) -> list[Issue]:
    """One warning for pairs (index in `source`, index in `other`), with the first of them; none without pairs."""
    if not pairs:
        return []
    index, original = pairs[0]
    what = what.format(other.name(original))
    return [Issue("warning", f"{len(pairs)} pairs, this one first: {what}", source.name(index))]


def check_opened_text(text: TextData, *, on_bad_line: OnBadLine = "stop") -> tuple[list[Issue], TextSummary]:
    """A file that cannot be read is an error, under "skip" a warning; held-out text that is trained on is a warning."""
    issues = _unreadable(text.skipped, "files", on_bad_line) + _repeated_paragraphs(text)
    return issues, TextSummary(len(text.train), len(text.val))


def _repeated_paragraphs(text: TextData) -> list[Issue]:
    trained_on = {_words(paragraph) for paragraph in paragraphs(text.train)}
    held_out = [_words(paragraph) for paragraph in paragraphs(text.val)]
    repeated = [words for words in held_out if words in trained_on]
    if not repeated:
        return []
    shown = repeated[0] if len(repeated[0]) <= 60 else repeated[0][:57] + "..."
    what = f"{len(repeated)} of {len(held_out)} held-out paragraphs are also trained on, this one first: {shown}"
    return [Issue("warning", what, text.address)]


def _words(paragraph: str) -> str:
    return " ".join(paragraph.split())
