"""The state dict among all that a training saves: under which entry, and behind which beginning of its names.

    {"model": ..., "model_ema": {"n_averaged": ..., "module.cls_token": ..., ...}, "optimizer": ..., "epoch": 9}

Every table of tensors in a file, without every beginning that its names share, is a candidate. The one whose names fit
the model best is taken; of equals the averaged weights, as timm does, and then in the order of `ENTRIES`.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from regard.errors import RegardError, first_few
from regard.weights.files import read_contents
from regard.weights.formats.known import FORMATS, REGARD
from regard.weights.rules import State

# What trainings call a state dict, the likelier first: timm, Lightning, DETR, torchvision, DeepSpeed, DINO, I-JEPA, ...
ENTRIES = (
    "state_dict",
    "model",
    "model_state_dict",
    "module",
    "net",
    "network",
    "weights",
    "params",
    "teacher",
    "student",
)
# Parts of a name that mark an average over the training: state_dict_ema, ema_model, a teacher, I-JEPA's target_encoder.
_AVERAGED = re.compile(r"(^|[._/])(ema|averaged|swa|teacher|target_encoder)([._/]|$)")
_NUMBER = re.compile(r"(?<![a-zA-Z])\d+")
# Tables of tensors lie at most so deep in a file, and names begin with at most so many parts.
_DEEPEST, _MOST_PARTS, _MOST_TABLES = 4, 5, 1000


Entry = tuple[str, ...]


class Chosen(NamedTuple):
    """A state dict, and what was passed over on the way to it."""

    state: State
    notes: list[str]


class _Candidate(NamedTuple):
    entry: Entry
    """Path to the table, ("ema", "module"); empty for the file itself."""
    prefix: str
    fitting: int
    """How many of its names have a place in the model, or in a known format."""


def choose(
    found: object,
    where: object,
    wanted: Mapping[str, Tensor] | None = None,
    *,
    format: str | None = None,
    use_ema: bool = True,
) -> Chosen:
    """The state dict in what a file holds, for a model whose own state is `wanted`; and notes on the choice.

    use_ema: of two that fit alike, the averaged one. RegardError if there is none, for names that are no text, and for
    tensors without plain numbers: sparse, nested, quantized, on the meta device, or larger than what is stored of them.
    """
    tables = dict(_tables(found))
    if not tables:
        raise RegardError(f"{where}: holds no state dict: {_said(found)}")
    places = {_generic(name) for name in wanted or ()}
    best = max(
        (one for entry, table in tables.items() for one in _candidates(entry, list(table), places, format)),
        key=lambda one: (one.fitting, *_rank(one, use_ema), -len(one.prefix)),
    )
    table = tables[best.entry]
    taken = {name: tensor for name, tensor in table.items() if name.startswith(best.prefix)}
    for name, tensor in taken.items():
        _require_plain(name, tensor, where)
    notes = list(_notes(best, found, tables, [name for name in table if name not in taken]))
    return Chosen({name.removeprefix(best.prefix): _bare(tensor) for name, tensor in taken.items()}, notes)


def _tables(found: object, entry: Entry = (), seen: set[int] | None = None) -> Iterator[tuple[Entry, State]]:
    """The tables in a file that hold tensors, by their paths, and their tensors. An optimiser's are none."""
    seen = set() if seen is None else seen
    if not isinstance(found, Mapping) or id(found) in seen or len(seen) > _MOST_TABLES or len(entry) > _DEEPEST:
        return
    seen.add(id(found))
    tensors = {key: value for key, value in found.items() if isinstance(key, str) and isinstance(value, Tensor)}
    if tensors:
        yield entry, tensors
    for key, value in found.items():
        if isinstance(key, str) and not key.startswith("optim"):
            yield from _tables(value, (*entry, key), seen)


def _candidates(entry: Entry, names: list[str], places: set[str], format: str | None) -> Iterator[_Candidate]:
    """A table as it is, and without each beginning of its names behind which at least half of the names fit."""
    alike = Counter(map(_generic, names))
    examples = {_generic(name): name for name in names}
    for prefix in dict.fromkeys(("", *(beginning for name in names for beginning in _beginnings(name)))):
        rest = {
            examples[generic].removeprefix(prefix): count
            for generic, count in alike.items()
            if generic.startswith(prefix)
        }
        fitting = max(_fitting(rest, places, kind) for kind in _kinds(format))
        if not prefix or 2 * fitting >= sum(rest.values()):
            yield _Candidate(entry, prefix, fitting)
        if fitting == len(names):
            return


def _fitting(names: Mapping[str, int], places: set[str], kind: str) -> int:
    """How many names have a place in the model; without a model (`places` is empty), in a format.

    A name stands for as many as are alike: those that differ in the number of the layer.
    """
    tables = [table for kind in FORMATS for table in FORMATS[kind]] if kind == REGARD else list(FORMATS[kind])
    if kind == REGARD:
        ours = {name for name in names if (_generic(name) in places if places else any(t.has(name) for t in tables))}
        return sum(names[name] for name in ours)
    return max(
        sum(count for name, count in names.items() if (to := table.ours(name)) and _in_model(to, places))
        for table in tables
    )


def _in_model(ours: tuple[str, ...], places: set[str]) -> bool:
    return not places or any(_generic(name) in places for name in ours)


def _kinds(format: str | None) -> tuple[str, ...]:
    return tuple(FORMATS) if format is None or format not in FORMATS else (format,)


def _generic(name: str) -> str:
    """blocks.11.norm1.bias -> blocks.0.norm1.bias: one name stands for those of all layers."""
    return _NUMBER.sub("0", name)


def _beginnings(name: str) -> list[str]:
    """module.backbone.blocks.0.norm1.bias -> module., module.backbone., module.backbone.blocks."""
    parts = re.split(r"(?<=[./])", name)[:-1][:_MOST_PARTS]
    numbered = next((i for i, part in enumerate(parts) if _NUMBER.search(part)), len(parts))
    return ["".join(parts[: i + 1]) for i in range(numbered)]


def _rank(one: _Candidate, use_ema: bool) -> tuple[bool, int, int]:
    """The greater is taken, where names fit alike."""
    known = -min((ENTRIES.index(part) for part in one.entry[:1] if part in ENTRIES), default=len(ENTRIES))
    averaged = _AVERAGED.search("/".join((*one.entry, one.prefix))) is not None
    return averaged == use_ema, known, -len(one.entry)


def _require_plain(name: str, tensor: Tensor, where: object) -> None:
    kind = (
        "lies on the meta device, without numbers"
        if tensor.is_meta
        else "is nested"
        if tensor.is_nested
        else "is quantized; dequantize it before it is saved"
        if tensor.is_quantized
        else "is sparse; save tensor.to_dense()"
        if tensor.layout != torch.strided
        else f"is a {type(tensor).__name__}, no plain tensor"
        if type(tensor) not in (Tensor, nn.Parameter) and not isinstance(tensor, nn.Buffer)
        else f"claims to be {tuple(tensor.shape)}, more than the file holds"
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes()
        else ""
    )
    if kind:
        raise RegardError(f"{where}: {name[:100]} {kind}")


def _bare(tensor: Tensor) -> Tensor:
    return tensor.detach().resolve_conj().resolve_neg()


def _notes(best: _Candidate, found: object, tables: Mapping[Entry, State], left: list[str]) -> Iterator[str]:
    """In words. A file of {"model": state} alone, as DETR publishes its weights, leaves nothing to choose."""
    assert isinstance(found, Mapping)
    if best.entry and (best.entry != ("model",) or len(found) > 1):
        others = [repr(_path(entry)) if entry else "tensors at its top" for entry in tables if entry != best.entry]
        also = f"; it also holds {first_few(others)}" if others else ""
        yield f"taken from {_path(best.entry)!r} of the file{also}"
    if best.prefix:
        yield f"names are taken without {best.prefix[:100]!r}"
    if left:
        yield f"left out for their names: {first_few([name[:100] for name in left])}"
    table: object = found
    for key in best.entry:
        table = table[key]  # type: ignore[index]
    assert isinstance(table, Mapping)
    strange = [str(key)[:100] for key, value in table.items() if not isinstance(key, str) or not _is_entry(value)]
    if strange:
        yield f"left out, since they are no tensors with a name: {first_few(strange)}"


def _path(entry: Entry) -> str:
    return "/".join(entry)[:100]


def _is_entry(value: object) -> bool:
    return isinstance(value, Tensor) or (isinstance(value, Mapping) and any(True for _ in _tables(value)))


def _said(found: object) -> str:
    """What a file holds instead of a state dict."""
    if not isinstance(found, Mapping):
        return f"it is of the kind {type(found).__name__}"
    named = [key for key in found if isinstance(key, str)]
    if not found:
        return "it is empty"
    if not named:
        return f"its keys are of the kind {type(next(iter(found))).__name__}, not names"
    kinds = [f"{key[:100]} ({type(found[key]).__name__})" for key in named]
    return f'there are no tensors at its top, nor under "model" or another name; it holds {first_few(kinds)}'


def read_weights(file: Path) -> State:
    """The tensors of a file of weights: those of the state dict in it, as it lies there. RegardError as `choose`."""
    return choose(read_contents(file), file).state
