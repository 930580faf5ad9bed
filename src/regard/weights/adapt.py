"""Fits weights to a model of another size: resamples positions, sums or repeats channels, leaves heads as they are."""

import re
from collections.abc import Mapping
from math import isqrt
from typing import Literal

import torch
from torch import Tensor, nn

from regard.errors import RegardError
from regard.layers import LearnedPositions
from regard.ops import resample_positions
from regard.weights.rules import State

# Tensors that only one kind of mixer has (performer's features, local's offsets): other mixers' weights lack them.
OF_ONE_MIXER = (".projection", ".rel_rows", ".rel_cols")
# Tensors with a row for each class: in ViTs, in DETR, and in DN-DETR, which has a head in each layer.
_HEAD = re.compile(r"(head|head_dist|label_head|proposed_labels|label_embedding|decoder\.label_heads\.\d+)\.")

Classes = Literal["adapt", "keep", "reset"]


def adapt(
    found: Mapping[str, Tensor],
    model: nn.Module,
    where: str,
    *,
    classes: Classes = "adapt",
    grid: tuple[int, int] | None = None,
) -> tuple[State, list[str]]:
    """`found`, a state under our names, made to fit the model as far as possible; and notes on what was changed.

    classes: "adapt" leaves the model's head as it is if the file has another number of classes, or no head; "reset"
    always leaves it as it is; with "keep", another number of classes is a RegardError. grid: (height, width) in patches
    of the images that the weights were trained on; a square unless given.
    """
    wanted = model.state_dict()
    state = _counters(_mixers(dict(found), wanted), wanted)
    state, resampled = _positions(state, model, grid)
    state, summed = _channels(state, model)
    state, dropped = _classes(state, wanted, where, classes)
    return state, [*resampled, *summed, *dropped]


def _mixers(found: State, wanted: Mapping[str, Tensor]) -> State:
    """Mixers that share projections take each other's weights; what only the model's mixer has stays as it is."""
    found = {name: tensor for name, tensor in found.items() if name in wanted or not name.endswith(OF_ONE_MIXER)}
    own = {name: wanted[name] for name in wanted if name.endswith(OF_ONE_MIXER) and name not in found}
    return found | own


def _counters(found: State, wanted: Mapping[str, Tensor]) -> State:
    """A frozen norm has no counter of batches; a norm that learns starts its counter again."""
    found = {name: tensor for name, tensor in found.items() if name in wanted or not _is_counter(name)}
    return found | {name: tensor for name, tensor in wanted.items() if _is_counter(name) and name not in found}


def _is_counter(name: str) -> bool:
    return name.endswith(".num_batches_tracked")


def _positions(found: State, model: nn.Module, grid: tuple[int, int] | None) -> tuple[State, list[str]]:
    notes = []
    for name, place in _tables(model):
        if name not in found or found[name].ndim != 3 or found[name].shape[2:] != place.table.shape[2:]:
            continue
        new = (place.grid.height, place.grid.width)
        patches = found[name].shape[1] - place.grid.prefix
        old = grid or (isqrt(max(patches, 0)),) * 2
        if old == new or old[0] * old[1] != patches or (grid is None and patches == new[0] * new[1]):
            continue  # it fits, or the grid of its patches is not known
        prefix, antialias = place.grid.prefix, place.antialias
        found = {**found, name: resample_positions(found[name], old, new, prefix=prefix, antialias=antialias)}
        notes.append(f"{name}: resampled from {old[0]} × {old[1]} to {new[0]} × {new[1]} patches")
    return found, notes


def _tables(model: nn.Module) -> list[tuple[str, LearnedPositions]]:
    return [(f"{name}.table", part) for name, part in model.named_modules() if isinstance(part, LearnedPositions)]


def _channels(found: State, model: nn.Module) -> tuple[State, list[str]]:
    """The first convolution for another number of channels: weights are summed for one, else repeated and scaled."""
    name = _first_convolution(model)
    wanted = model.state_dict().get(name, torch.empty(0))
    given = found.get(name, wanted)
    if given.ndim != 4 or given.shape[1] == wanted.shape[1] or given.shape[0] != wanted.shape[0]:
        return found, []
    old, new = given.shape[1], wanted.shape[1]
    if new == 1:
        changed, how = given.sum(1, keepdim=True), "summed"
    else:
        # new / old copies of each channel, scaled by old / new: the same image in all channels gives the same output.
        changed, how = given.repeat(1, -(-new // old), 1, 1)[:, :new] * (old / new), "repeated"
    return {**found, name: changed}, [f"{name}: {how} from {old} to {new} channels"]


def _first_convolution(model: nn.Module) -> str:
    for name, part in model.named_modules():
        if isinstance(part, nn.Conv2d):
            return f"{name}.weight"
    return ""


def _classes(found: State, wanted: Mapping[str, Tensor], where: str, classes: Classes) -> tuple[State, list[str]]:
    notes = []
    heads = [match[0] for match in map(_HEAD.match, (*wanted, *found)) if match]
    for head in dict.fromkeys(heads):
        theirs = {name: tensor for name, tensor in found.items() if name.startswith(head)}
        ours = {name: tensor for name, tensor in wanted.items() if name.startswith(head)}
        rows = [len(next(iter(some.values()))) if some else 0 for some in (theirs, ours)]
        if classes == "reset":
            reason = "stays as it is, as asked"
        elif not ours:
            reason = "is dropped: the model has no head"
        elif not theirs:
            reason = "stays as it is: the file has no weights for it"
        elif rows[0] != rows[1]:
            numbers = [count - (head == "label_head.") for count in rows]  # without "no object"
            if classes == "keep":
                raise RegardError(
                    f"{where}: was trained on {numbers[0]} classes, the data have {numbers[1]}; "
                    "--set model.reset_head=true loads everything but the head"
                )
            reason = f"is dropped: it has {numbers[0]} classes, the model has {numbers[1]}"
        else:
            continue
        found = {name: tensor for name, tensor in found.items() if name not in theirs} | ours
        notes.append(f"{head[:-1]}: {reason}")
    return found, notes
