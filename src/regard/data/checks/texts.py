"""Checks of pairs of texts and of running text."""

from dataclasses import dataclass

from regard.data.checks.issue import Issue
from regard.data.text.corpus import TextData, paragraphs
from regard.data.text.numbers import NumberPairs
from regard.data.text.pairs import PairSource, TextPairs


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


def check_opened_pairs(pairs: TextPairs) -> tuple[list[Issue], PairSummary]:
    """Read all pairs of a set that is open.

    Each unreadable line is an error; a source with several targets, and a pair in both splits, are warnings. Numbers
    are made by rule: they are only counted.
    """
    summary = PairSummary(len(pairs.train), len(pairs.val), pairs.groups)
    if isinstance(pairs.train, NumberPairs):
        return [], summary
    skipped = (*pairs.train.skipped, *pairs.val.skipped)
    unreadable = [Issue("error", *reversed(message.split(": ", 1))) for message in skipped]
    return unreadable + _several_targets(pairs.train) + _in_both_parts(pairs), summary


def _several_targets(train: PairSource) -> list[Issue]:
    """One issue, with the first pair whose source stands in an earlier one with another target."""
    first: dict[str, tuple[str, int]] = {}
    found = []
    for index in range(len(train)):
        source, target = train.pair(index)
        original, earlier = first.setdefault(source, (target, index))
        if original != target:
            found.append((index, earlier))
    what = "the same source as {}, with another target"
    return _first_of(found, what, train, train)


def _in_both_parts(pairs: TextPairs) -> list[Issue]:
    """One issue, with the first held-out pair that is also trained on."""
    first: dict[tuple[str, str], int] = {}
    for index in range(len(pairs.train)):
        first.setdefault(pairs.train.pair(index), index)
    found = [(i, first[pairs.val.pair(i)]) for i in range(len(pairs.val)) if pairs.val.pair(i) in first]
    return _first_of(found, "held out, and the same as {}, which is trained on", pairs.val, pairs.train)


def _first_of(found: list[tuple[int, int]], what: str, source: PairSource, other: PairSource) -> list[Issue]:
    if not found:
        return []
    index, original = found[0]
    told = what.format(other.name(original))
    return [Issue("warning", f"{len(found)} pairs, this one first: {told}", source.name(index))]


def check_opened_text(text: TextData) -> tuple[list[Issue], TextSummary]:
    """Held-out paragraphs that are also trained on are a warning."""
    return _repeated_paragraphs(text), TextSummary(len(text.train), len(text.val))


def _repeated_paragraphs(text: TextData) -> list[Issue]:
    trained_on = {_words(paragraph) for paragraph in paragraphs(text.train)}
    held_out = [_words(paragraph) for paragraph in paragraphs(text.val)]
    found = [words for words in held_out if words in trained_on]
    if not found:
        return []
    shown = found[0] if len(found[0]) <= 60 else found[0][:57] + "..."
    what = f"{len(found)} of {len(held_out)} held-out paragraphs are also trained on, this one first: {shown}"
    return [Issue("warning", what, text.address)]


def _words(paragraph: str) -> str:
    return " ".join(paragraph.split())
