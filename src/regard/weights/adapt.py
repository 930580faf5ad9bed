"""Fits weights to a model of another size: resamples positions, sums or repeats channels, leaves heads as they are."""

import re
from collections.abc import Mapping
from math import isqrt
from typing import Literal

import torch
from torch import Tensor, nn

from regard.errors import RegardError
from regard.layers import LearnedPositions
from regard.mixers import TokenMLP
from regard.models import ViT
from regard.ops import resample_positions
from regard.weights.prefix_tokens import TABLE, num_prefix
from regard.weights.rules import State

# Tensors that only one kind of mixer has (performer's features, local's offsets): other mixers' weights lack them.
OF_ONE_MIXER = (".projection", ".rel_rows", ".rel_cols")
# Tensors with a row for each class: in ViTs, in DETR, and in DN-DETR, which has a head in each layer.
_HEAD = re.compile(r"(head|head_dist|label_head|proposed_labels|label_embedding|decoder\.label_heads\.\d+)\.")

Classes = Literal["adapt", "keep", "reset"]
Size = tuple[int, int]


class OtherClasses(RegardError):  # noqa: N818 (a caller reads: except OtherClasses)
    """The head is of another number of classes than the model's, which was to keep it."""


def adapt(
    found: Mapping[str, Tensor],
    model: nn.Module,
    where: str,
    *,
    classes: Classes = "adapt",
    grid: Size | None = None,
    likely: Size | None = None,
) -> tuple[State, list[str]]:
    """`found`, a state under our names, made to fit the model as far as possible; and notes on what was changed.

    classes: "adapt" leaves the model's head as it is if the file has another number of classes, or no head; "reset"
    always leaves it as it is; with "keep", another number of classes is an error, OtherClasses. grid: (rows, columns)
    of patches in the images that the weights were trained on, as the caller says; likely: as a file beside the weights
    says, which counts where it has as many patches; else it is a square. RegardError where nothing says it, and for
    matrices over the tokens of another grid.
    """
    wanted = model.state_dict()
    state = _counters(_mixers(dict(found), wanted), wanted)
    _require_same_tokens(state, model, where, grid, likely)
    state, resampled = _positions(state, model, where, grid, likely)
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


def _positions(
    found: State, model: nn.Module, where: str, grid: Size | None, likely: Size | None
) -> tuple[State, list[str]]:
    """Learned positions for the model's grid. Without a word on the grid of the source, it is a square."""
    notes = []
    for name, place in _tables(model):
        new, prefix = (place.grid.height, place.grid.width), place.grid.prefix
        if name not in found or found[name].ndim != 3 or found[name].shape[2:] != place.table.shape[2:]:
            continue
        if num_prefix(found, name.removesuffix(TABLE)) != prefix:  # `require_fit` says what is missing
            continue
        patches = found[name].shape[1] - prefix
        said = _said_grid(patches, f"{where}: {name}", grid, likely)
        old = said or _guessed_grid(patches, f"{where}: {name}", new)
        unsaid = "" if said or patches != new[0] * new[1] else "; grid=(rows, columns) says otherwise"
        if old == new:
            if unsaid and new[0] != new[1]:
                notes.append(f"{name}: taken as {old[0]} × {old[1]} patches, as the model's are{unsaid}")
            continue
        resampled = resample_positions(found[name], old, new, prefix=prefix, antialias=place.antialias)
        found = {**found, name: resampled}
        notes.append(f"{name}: resampled from {old[0]} × {old[1]} to {new[0]} × {new[1]} patches{unsaid}")
    return found, notes


def _said_grid(patches: int, what: str, grid: Size | None, likely: Size | None) -> Size | None:
    """(rows, columns) of the images that `patches` tokens are of: `grid` as asked, or a `likely` one of that number."""
    if grid is not None:
        if grid[0] * grid[1] != patches:
            raise RegardError(f"{what} is for {patches} patches, grid={grid} has {grid[0] * grid[1]}")
        return grid
    return likely if likely is not None and likely[0] * likely[1] == patches else None


def _guessed_grid(patches: int, what: str, new: Size) -> Size:
    """Where nothing says it: the square; where the number is none of a square, the model's own grid if it has as many.

    RegardError for any other number.
    """
    side = isqrt(max(patches, 0))
    if patches > 0 and side * side == patches:
        return side, side
    if patches == new[0] * new[1]:
        return new
    raise RegardError(
        f"{what} is for {patches} patches, which make no square image; say how they lay in the images that it was "
        "trained on: load_weights(..., grid=(rows, columns))"
    )


def _require_same_tokens(found: State, model: nn.Module, where: str, grid: Size | None, likely: Size | None) -> None:
    """RegardError for matrices over tokens (MLP-Mixer) of another grid: there is no resampling them."""
    for vit_name, vit in model.named_modules():
        for name, part in vit.named_modules(prefix=vit_name) if isinstance(vit, ViT) else ():
            weight = found.get(f"{name}.mlp.fc1.weight")
            if isinstance(part, TokenMLP) and weight is not None and weight.ndim == 2:
                new = (vit.grid.height, vit.grid.width)
                patches, what = weight.shape[1] - vit.grid.prefix, f"{where}: {name}"
                old = _said_grid(patches, what, grid, likely) or _guessed_grid(patches, what, new)
                if old != new:
                    raise RegardError(
                        f"{where}: {name} mixes {old[0]} × {old[1]} patches, the model has {new[0]} × {new[1]}; its "
                        "weights belong to single tokens and cannot be resampled: choose that image size"
                    )


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
                raise OtherClasses(
                    f"{where}: was trained on {numbers[0]} classes, the data have {numbers[1]}; "
                    "--set model.reset_head=true loads everything but the head"
                )
            reason = f"is dropped: it has {numbers[0]} classes, the model has {numbers[1]}"
        else:
            continue
        found = {name: tensor for name, tensor in found.items() if name not in theirs} | ours
        notes.append(f"{head[:-1]}: {reason}")
    return found, notes
