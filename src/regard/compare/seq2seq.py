"""Sequence to sequence in the report: exact match per group, errors, and the decoder's cross-attention."""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from regard.compare.contender import Contender
from regard.compare.task_view import device_of, printable, short_name, split_words
from regard.data import PairSource
from regard.draw.svg import inline_svg
from regard.errors import RegardError
from regard.explain import alignment_figure
from regard.tasks import GroupFigures, PairEvaluation, Seq2SeqTask, Translator
from regard.training import Run, load_predictor

NUM_MISTAKES = 15
# At most so many letters of the source whose cross-attention is shown: more would make the picture too wide.
LONGEST_SHOWN = 40
# At most so many letters of a text in the table of errors.
LONGEST_TEXT = 160


@dataclass(frozen=True)
class Mistake:
    """A held-out pair, and what was written for it."""

    name: str
    group: str
    source: str
    written: list[tuple[str, bool]]
    """The text in pieces, each with whether it differs from the target there."""
    target: str


@dataclass(frozen=True)
class Section:
    name: str
    seed: int
    seeds: int
    num_pairs: int
    num_mistakes: int
    bleu: float
    perplexity: float
    groups: list[GroupFigures]
    """Empty if the data have no groups."""
    mistakes: list[Mistake]
    shown: Mistake
    shown_is_right: bool
    alignment: str
    """SVG."""


class Seq2SeqView:
    """Pairs of texts."""

    template = "seq2seq.html.j2"
    unit = "pairs"
    split = "held-out"
    loss = "training loss (nats)"
    timed = "a pair, its target given"
    counted = "a pair, the longest"
    about = (
        "Exact match is the fraction of held-out pairs that the final weights write without an error, always taking "
        "the most probable token."
    )

    def __init__(self, task: Seq2SeqTask) -> None:
        self.task = task
        self.data = task.data

    @property
    def num_held_out(self) -> int:
        return len(self.data.val)

    @property
    def trained_on(self) -> str:
        return f"{len(self.data.train)} pairs of {self.data.address}"

    @property
    def tested_on(self) -> str:
        return f"{len(self.data.val)} pairs that it had not seen"

    def facts(self) -> list[tuple[str, str]]:
        data, recipe = self.data, self.task.recipe
        groups = [("Groups", ", ".join(data.groups))] if data.groups else []
        return [
            ("Data", data.address),
            (
                "Pairs",
                f"{len(data.train)} for training, {len(data.val)} held out; {split_words(recipe, own=data.has_val)}",
            ),
            *groups,
            ("Tokens", f"{recipe.data.tokenizer}, a vocabulary of {self.task.tokenizer.vocab_size}"),
        ]

    def section(self, contender: Contender) -> Section:
        run = Run.open(contender.runs[0])
        data, recipe = self.data, self.task.recipe
        translator = load_predictor(run.path, device=device_of(recipe))
        if not isinstance(translator, Translator):
            raise RegardError(f"{run.path}: its metadata.json and its recipe.toml are of different tasks")
        found = translator.evaluate(data.val, bleu_tokenize=data.bleu_tokenize, num_workers=recipe.data.num_workers)
        figures, mistakes = found.metrics(), found.mistakes()
        shown = found.names.index(data.val.name(_representative_pair(data.val)))
        answer, seen = translator.alignment(found.sources[shown])
        read, wrote = ([printable(token) for token in tokens] for tokens in (seen.source, seen.target))
        picture = alignment_figure(read, wrote, seen.weights)
        return Section(
            name=contender.name,
            seed=run.recipe().seed,
            seeds=len(contender.runs),
            num_pairs=len(found.names),
            num_mistakes=len(mistakes),
            bleu=figures["bleu"],
            perplexity=figures["perplexity"],
            groups=found.per_group() if any(found.groups) else [],
            mistakes=[_pair(found, index) for index in _spread(mistakes, NUM_MISTAKES)],
            shown=_pair(found, shown, written=answer.text),
            shown_is_right=answer.text == found.references[shown],
            alignment=inline_svg(picture),
        )


def _pair(found: PairEvaluation, index: int, written: str | None = None) -> Mistake:
    text = found.predictions[index] if written is None else written
    return Mistake(
        short_name(found.names[index]),
        found.groups[index],
        _cut(found.sources[index]),
        _differences(_cut(text), _cut(found.references[index])),
        _cut(found.references[index]),
    )


def _differences(written: str, target: str) -> list[tuple[str, bool]]:
    """The pieces of `written`, each with whether it differs from the target there."""
    steps = SequenceMatcher(None, target, written, autojunk=False).get_opcodes()
    return [(written[start:end], kind != "equal") for kind, _, _, start, end in steps if start < end]


def _representative_pair(pairs: PairSource) -> int:
    """The pair of median length among those short enough for a picture; if there are none, the shortest pair."""
    lengths = [len(pairs.pair(index)[0].encode(errors="replace")) for index in range(len(pairs))]
    order = sorted(range(len(pairs)), key=lengths.__getitem__)
    short = [index for index in order if lengths[index] <= LONGEST_SHOWN]
    return short[len(short) // 2] if short else order[0]


def _spread(items: Sequence[int], count: int) -> list[int]:
    """At most `count` items, evenly from first to last: an evaluation goes from short sources to long ones."""
    if len(items) <= count:
        return list(items)
    return [items[number * (len(items) - 1) // (count - 1)] for number in range(count)]


def _cut(text: str) -> str:
    text = printable(text)
    return text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 1] + "…"
