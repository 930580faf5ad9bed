"""Another library's names as data: which tensors go where, in both directions."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from regard.errors import RegardError, first_few

# What a field of a template stands for.
FIELDS = {"n": r"\d+", "m": r"\d+", "w": "weight|bias", "stack": "encoder|decoder", "rest": ".+"}

State = dict[str, Tensor]
Tensors = Sequence[Tensor]


class Change(NamedTuple):
    """How the tensors of a rule are changed on their way in, and on their way out again."""

    inward: Callable[[Tensors], Tensors]
    outward: Callable[[Tensors], Tensors]


def _joined(parts: Tensors) -> Tensors:
    return [torch.cat(list(parts))]


def _thirds(whole: Tensors) -> Tensors:
    return [part.contiguous() for part in whole[0].chunk(3)]


AS_IS = Change(lambda tensors: tensors, lambda tensors: tensors)
FUSED = Change(_joined, _thirds)
SPLIT = Change(_thirds, _joined)


class Rule(NamedTuple):
    """Names there, names here, and what is changed between them.

    A name is a template with `FIELDS` in braces: each at most once, and the same ones on both sides. The part in
    brackets is optional. A rule without names here drops the tensor.
    """

    theirs: str | tuple[str, ...]
    ours: str | tuple[str, ...]
    change: Change = AS_IS


def fused(q: str, k: str, v: str, ours: str) -> Rule:
    """Three matrices for queries, keys and values there, one matrix here."""
    return Rule((q, k, v), ours, FUSED)


class StateChange(NamedTuple):
    """A change of a whole state dict under our names, such as rows that are added to the table of positions."""

    inward: Callable[[State, int | None], State]
    """Applied to a state that came in, with the model's number of patches if that is known."""
    outward: Callable[[State], State]
    """Applied to a state before it goes out."""


UNCHANGED = StateChange(lambda state, patches: state, lambda state: state)


@dataclass(frozen=True)
class Names:
    """One library's names for one kind of model."""

    what: str
    rules: tuple[Rule, ...]
    change: StateChange = UNCHANGED
    made: Mapping[str, Callable[[State], Tensor]] = field(default_factory=dict)
    """Tensors that only they have: a template of the name, and what makes the tensor from our state."""
    full: Callable[[State], bool] = lambda state: False
    """Whether the optional parts in brackets are written when this state of ours goes out."""

    def inward(self, state: Mapping[str, Tensor], patches: int | None = None) -> tuple[State, list[str]]:
        """The state under our names, and the names in it that have no place here."""
        rules = [(_tuple(r.theirs), _tuple(r.ours), r.change.inward) for r in self.rules]
        found, unexpected = _translated(state, rules)
        return (found if unexpected else self.change.inward(found, patches)), unexpected

    def ours(self, name: str) -> tuple[str, ...]:
        """Our names that one of their names goes to, alone or with others; none where it has no place here."""
        ways = [(_tuple(r.theirs), _tuple(r.ours), r.change.inward) for r in self.rules]
        place = _place(name, ways)
        return () if place is None else tuple(_filled(to, dict(place[2]), full=False) for to in ways[place[0]][1])

    def has(self, name: str) -> bool:
        """Whether a name of ours has a place there."""
        return _place(name, [(_tuple(r.ours), (), r.change.outward) for r in self.rules if r.ours]) is not None

    def outward(self, state: Mapping[str, Tensor]) -> tuple[State, list[str]]:
        """Our state under their names, and our names that have no place there."""
        ours = self.change.outward(dict(state))
        full = self.full(ours)
        rules = [(_tuple(r.ours), _tuple(r.theirs), r.change.outward) for r in self.rules if r.ours]
        found, unexpected = _translated(ours, rules, full=full)
        try:
            made = {} if unexpected else {_filled(name, {}, full): make(ours) for name, make in self.made.items()}
        except KeyError as error:
            return found, [f"a state without {error.args[0]}"]
        return {**found, **made}, unexpected


def renamed(state: Mapping[str, Tensor], names: Names) -> State:
    """A state dict under our names. RegardError lists the names that have no place here."""
    found, unexpected = names.inward(state)
    if unexpected:
        raise RegardError(f"not a state dict of {names.what}: it has {first_few(unexpected, 6)}")
    return found


_Way = tuple[tuple[str, ...], tuple[str, ...], Callable[[Tensors], Tensors]]


def _translated(state: Mapping[str, Tensor], ways: list[_Way], *, full: bool = False) -> tuple[State, list[str]]:
    groups: dict[tuple[int, tuple[tuple[str, str], ...]], dict[int, str]] = {}
    unexpected = []
    for name in state:
        place = _place(name, ways)
        if place is None:
            unexpected.append(name)
        else:
            number, member, fields = place
            groups.setdefault((number, fields), {})[member] = name
    found: State = {}
    for (number, fields), members in groups.items():
        sources, targets, change = ways[number]
        if len(members) < len(sources):
            unexpected += [f"{name} without its other parts" for name in members.values()]
            continue
        parts = [state[members[member]] for member in range(len(sources))]
        try:
            pairs = list(zip(targets, change(parts) if targets else (), strict=True))
        except (RuntimeError, IndexError, ValueError):  # of a number of axes or a size that the change is not for
            unexpected += [f"{name} {tuple(state[name].shape)}" for name in members.values()]
            continue
        for target, tensor in pairs:
            found[_filled(target, dict(fields), full)] = tensor.clone(memory_format=torch.contiguous_format)
    return found, unexpected


def _place(name: str, ways: list[_Way]) -> tuple[int, int, tuple[tuple[str, str], ...]] | None:
    for number, (sources, _, _) in enumerate(ways):
        for member, template in enumerate(sources):
            match = _pattern(template).fullmatch(name)
            if match:
                return number, member, tuple(sorted(match.groupdict().items()))
    return None


@lru_cache(maxsize=4096)
def _pattern(template: str) -> re.Pattern[str]:
    pattern = re.escape(template).replace(r"\[", "(?:").replace(r"\]", ")?")
    for name, values in FIELDS.items():
        pattern = pattern.replace(rf"\{{{name}\}}", f"(?P<{name}>{values})")
    return re.compile(pattern)


def _filled(template: str, fields: Mapping[str, str], full: bool) -> str:
    chosen = re.sub(r"[\[\]]", "", template) if full else re.sub(r"\[[^\]]*\]", "", template)
    return chosen.format(**fields)


def _tuple(names: str | tuple[str, ...]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else names
