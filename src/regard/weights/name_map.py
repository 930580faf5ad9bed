"""Another library's names as data: which tensor goes where."""

import re
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from regard.errors import RegardError


class Split(NamedTuple):
    """A fused matrix whose three parts (queries, keys, values) have names of their own here."""

    q: str
    k: str
    v: str


class Part(NamedTuple):
    """A matrix that is part `number` (0 queries, 1 keys, 2 values) of a fused one here."""

    place: str
    number: int


# A pattern of their names -> the place here, in which \1, \2, ... are the pattern's groups; None for what has no use.
NameMap = Mapping[str, str | Split | Part | None]


def renamed(state: Mapping[str, Tensor], names: NameMap, what: str) -> dict[str, Tensor]:
    """A state dict under the names here. RegardError lists what no pattern fits; `what` says whose names they are."""
    found: dict[str, Tensor] = {}
    parts: dict[str, dict[int, Tensor]] = {}
    strange = []
    for name, tensor in state.items():
        match, place = _first(names, name)
        if match is None:
            strange.append(name)
        elif isinstance(place, str):
            found[match.expand(place)] = tensor.clone()
        elif isinstance(place, Split):
            for one, piece in zip(place, tensor.chunk(3), strict=True):
                found[match.expand(one)] = piece.clone()
        elif place is not None:
            parts.setdefault(match.expand(place.place), {})[place.number] = tensor
    if strange:
        more = f" and {len(strange) - 6} more" if len(strange) > 6 else ""
        raise RegardError(f"not a state dict of {what}: it has {', '.join(strange[:6])}{more}")
    for name, pieces in parts.items():
        if len(pieces) < 3:
            raise RegardError(f"not a state dict of {what}: it lacks a part of {name}")
        found[name] = torch.cat([pieces[number] for number in range(3)])
    return found


def _first(names: NameMap, name: str) -> tuple[re.Match[str] | None, str | Split | Part | None]:
    for pattern, place in names.items():
        match = re.fullmatch(pattern, name)
        if match:
            return match, place
    return None, None
