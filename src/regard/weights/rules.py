"""Another library's names as data: which tensors go where, in both directions."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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
    """What becomes of the tensors of a rule on their way in, and on their way out again."""

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

    A name is a template with `FIELDS` in braces, each at most once, the same ones on both sides; what stands in
    brackets may be missing. A rule without names here drops what has no use.
    """

    theirs: str | tuple[str, ...]
    ours: str | tuple[str, ...]
    change: Change = AS_IS


def fused(q: str, k: str, v: str, ours: str) -> Rule:
    """Queries, keys and values apart there, one matrix here."""
    return Rule((q, k, v), ours, FUSED)


def _same(state: State, patches: int | None) -> State:
    return state


@dataclass(frozen=True)
class Names:
    """One library's names of one kind of model.

    `after` mends a state that has come in (it knows how many patches the model has, where there is one), `before` one
    that is to go out: what is no matter of a tensor by itself, such as which tokens have positions. `made` are tensors
    that only they have.
    """

    what: str
    rules: tuple[Rule, ...]
    after: Callable[[State, int | None], State] = _same
    before: Callable[[State, int | None], State] = _same
    made: Callable[[State], State] = lambda state: {}
    full: Callable[[State], bool] = lambda state: False
    """Whether what stands in brackets is written, for a state of ours that is to go out."""

    def inward(self, state: Mapping[str, Tensor], patches: int | None = None) -> tuple[State, list[str]]:
        """The state under our names, and those of its names that have no place."""
        found, strange = _translated(state, [(_tuple(r.theirs), _tuple(r.ours), r.change.inward) for r in self.rules])
        return (found if strange else self.after(found, patches)), strange

    def outward(self, state: Mapping[str, Tensor], patches: int | None = None) -> tuple[State, list[str]]:
        """Our state under theirs, and those of our names that have no place."""
        mended = self.before(dict(state), patches)
        rules = [(_tuple(r.ours), _tuple(r.theirs), r.change.outward) for r in self.rules if r.ours]
        found, strange = _translated(mended, rules, full=self.full(mended))
        return {**found, **({} if strange else self.made(mended))}, strange


def renamed(state: Mapping[str, Tensor], names: Names) -> State:
    """A state dict under the names here. RegardError lists what has no place."""
    found, strange = names.inward(state)
    if strange:
        raise RegardError(f"not a state dict of {names.what}: it has {first_few(strange, 6)}")
    return found


_Way = tuple[tuple[str, ...], tuple[str, ...], Callable[[Tensors], Tensors]]


def _translated(state: Mapping[str, Tensor], ways: list[_Way], *, full: bool = False) -> tuple[State, list[str]]:
    groups: dict[tuple[int, tuple[tuple[str, str], ...]], dict[int, str]] = {}
    strange = []
    for name in state:
        place = _place(name, ways)
        if place is None:
            strange.append(name)
        else:
            number, member, fields = place
            groups.setdefault((number, fields), {})[member] = name
    found: State = {}
    for (number, fields), members in groups.items():
        sources, targets, change = ways[number]
        if len(members) < len(sources):
            strange += [f"{name} without its other parts" for name in members.values()]
            continue
        tensors = change([state[members[member]] for member in range(len(sources))]) if targets else ()
        for target, tensor in zip(targets, tensors, strict=True):
            found[_filled(target, dict(fields), full)] = tensor.clone(memory_format=torch.contiguous_format)
    return found, strange


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
    for field, values in FIELDS.items():
        pattern = pattern.replace(rf"\{{{field}\}}", f"(?P<{field}>{values})")
    return re.compile(pattern)


def _filled(template: str, fields: Mapping[str, str], full: bool) -> str:
    chosen = re.sub(r"[\[\]]", "", template) if full else re.sub(r"\[[^\]]*\]", "", template)
    return chosen.format(**fields)


def _tuple(names: str | tuple[str, ...]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else names
