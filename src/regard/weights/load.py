"""Loads weights of any known format, from wherever they are, into a model."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from regard.errors import RegardError
from regard.models import ViT
from regard.weights.adapt import Classes, adapt
from regard.weights.catalogue import chosen_pretrained
from regard.weights.files import read_weights, require_fit, state_of
from regard.weights.formats.known import understand
from regard.weights.hub import PREFIX, HubFile

_log = logging.getLogger("regard")

Source = str | Path | Mapping[str, Tensor]


@dataclass(frozen=True)
class Loaded:
    """What `load_weights` found, and what it had to change."""

    where: str
    format: str
    what: str
    """Whose names they were."""
    notes: tuple[str, ...]
    """What was resampled, summed, repeated, dropped or left as it was; empty if everything fitted."""

    def __str__(self) -> str:
        return "; ".join([f"{self.where}: {self.what} ({self.format})", *self.notes])


@dataclass(frozen=True)
class Found:
    """A state dict as it was found."""

    state: dict[str, Tensor]
    where: str
    format: str | None = None
    grid: tuple[int, int] | None = None
    """(rows, columns) of patches in the images that it was trained on, if known."""
    num_heads: int | None = None


def load_weights(
    model: nn.Module,
    source: Source,
    *,
    format: str | None = None,
    strict: bool = True,
    ignore: Sequence[str] = (),
    classes: Classes = "adapt",
) -> Loaded:
    """Loads weights of any of `FORMATS` into a model, and reports what was changed to make them fit.

    source: a state dict; a .safetensors, .pt, .pth, .bin or .npz file; a run folder, or another folder that holds
    model.safetensors; a name of the catalogue; or `hf-hub:OWNER/NAME`. format: recognised unless given.
    For another image size, positions are resampled. For another number of channels, the first convolution is summed or
    repeated. A head for another number of classes stays as it is in the model, unless `classes` says otherwise (see
    `adapt`). strict=False: names that begin with one of `ignore` may be missing, unexpected, or of another shape; these
    tensors stay as they are in the model. RegardError lists both sides of what does not fit, and names a file that
    cannot be read or downloaded; the model is unchanged then.
    """
    if strict == bool(ignore):
        allowed = "ignore needs strict=False" if strict else 'name what may be missing, as in ignore=("head.",)'
        raise RegardError(f"load_weights: strict={strict}, ignore={tuple(ignore)!r}: {allowed}")
    found, wanted = find_weights(source), model.state_dict()
    patches = model.grid.num_patches if isinstance(model, ViT) else None
    ours = understand(found.state, wanted, format=format or found.format, patches=patches)
    state, notes = adapt(ours.state, model, found.where, classes=classes, grid=found.grid)
    ignored = tuple(ignore)
    state, ignored_notes = _ignore(state, wanted, ignored)
    notes += ignored_notes
    require_fit(state, wanted, found.where, [name for name in ours.unexpected if not name.startswith(ignored)])
    model.load_state_dict(state)
    for note in notes:
        _log.warning("%s: %s", found.where, note)
    return Loaded(found.where, ours.format, ours.what, tuple(notes))


def _ignore(
    state: dict[str, Tensor], wanted: Mapping[str, Tensor], ignored: tuple[str, ...]
) -> tuple[dict[str, Tensor], list[str]]:
    """The model's own tensors take the place of those that do not fit and whose names begin with one of `ignored`."""
    state, notes = dict(state), []
    for name in sorted(name for name in state.keys() | wanted.keys() if name.startswith(ignored)):
        if name in state and name in wanted and state[name].shape == wanted[name].shape:
            continue
        notes.append(f"{name}: ignored")
        state.pop(name, None)
        if name in wanted:
            state[name] = wanted[name]
    return state, notes


def find_weights(source: Source) -> Found:
    """The tensors of a source, which may be anything that `load_weights` takes. RegardError if there are none."""
    if isinstance(source, Mapping):
        return Found(state_of(source, "the weights"), "the weights")
    name = str(source)
    if name.startswith(PREFIX):
        return Found(read_weights(HubFile.parse(name).fetch()), name)
    path = Path(source).expanduser()
    entry = chosen_pretrained(source)
    if entry is not None:
        return Found(entry.state(), name, entry.format)
    if path.is_dir():
        return _in_folder(path)
    return Found(read_weights(path), str(path))


def _in_folder(folder: Path) -> Found:
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / name).is_file():
            config = _config_of(folder / "metadata.json")
            heads = config.get("num_heads")
            return Found(read_weights(folder / name), str(folder / name), grid=_grid_of(config), num_heads=heads)
    raise RegardError(f"{folder}: holds neither model.safetensors nor pytorch_model.bin")


def _config_of(metadata: Path) -> dict[str, Any]:
    """The configuration of a run's model; empty for a folder that is no run."""
    try:
        return dict(json.loads(metadata.read_text(encoding="utf-8"))["model"]["config"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _grid_of(config: Mapping[str, Any]) -> tuple[int, int] | None:
    """(rows, columns) of patches in the images that a run was trained on."""
    if not config.get("img_size") or not config.get("patch_size"):
        return None
    size, patch = config["img_size"], config["patch_size"]
    height, width = size if isinstance(size, list) else (size, size)
    return height // patch, width // patch
