"""Loads weights of any known format, from wherever they are, into a model."""

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from regard.errors import RegardError, nearest, shown
from regard.files import expanded
from regard.models import PRESETS, ViT
from regard.reading import read_json
from regard.weights.adapt import Classes, Size, adapt
from regard.weights.catalogue import CATALOGUE, chosen_pretrained
from regard.weights.files import read_contents
from regard.weights.fit import as_wanted, is_finite, require_finite, require_fit
from regard.weights.formats.known import understand
from regard.weights.hub import PREFIX, HubFile
from regard.weights.wrapped import choose

_log = logging.getLogger("regard")

LOCAL = "local-dir:"
ENDINGS = frozenset((".bin", ".ckpt", ".npz", ".pt", ".pth", ".safetensors", ".tar"))
Source = str | Path | Mapping[str, Any]


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
    """What a source holds, before the model's own tensors are looked for in it."""

    contents: object
    where: str
    format: str | None = None
    grid: Size | None = None
    """(rows, columns) of patches in the images that it was trained on, as a file beside it says."""
    num_heads: int | None = None


def load_weights(
    model: nn.Module,
    source: Source,
    *,
    format: str | None = None,
    strict: bool = True,
    ignore: Sequence[str] = (),
    classes: Classes = "adapt",
    grid: Sequence[int] | None = None,
    use_ema: bool = True,
) -> Loaded:
    """Loads weights of any of `FORMATS` into a model, and reports what was changed to make them fit.

    source: a state dict; a .safetensors, .npz, or any file of `torch.save`, of which nothing is run; a run folder, or
    another folder that holds model.safetensors (`local-dir:` before it is allowed); a name of the catalogue; or
    `hf-hub:OWNER/NAME`. format: recognised unless given.
    The state dict may lie under an entry of what a training saved (`state_dict`, `model`, `teacher`, ...), and its
    names may begin with `module.`, `_orig_mod.`, `backbone.` and the like: what fits the model is taken, the averaged
    weights first unless `use_ema` is false, and the notes say so.
    For another image size, positions are resampled from the `grid` (rows, columns) of patches that they were trained
    on: a square, unless `grid` or a configuration beside the weights says otherwise. For another number of channels,
    the first convolution is summed or repeated. A head for another number of classes stays as it is in the model,
    unless `classes` says otherwise (see `adapt`). strict=False: names that begin with one of `ignore` may be missing,
    unexpected, of another shape, or not finite; these tensors stay as they are in the model. RegardError lists both
    sides of what does not fit, and names a file that cannot be read or downloaded, and a tensor that holds NaN, or
    complex numbers, truth values or integers in the place of floats; the model is unchanged then.
    """
    if strict == bool(ignore):
        allowed = "ignore needs strict=False" if strict else 'name what may be missing, as in ignore=("head.",)'
        raise RegardError(f"load_weights: strict={strict}, ignore={tuple(ignore)!r}: {allowed}")
    wanted = model.state_dict()
    found = find_weights(source, num_bytes=sum(tensor.nbytes for tensor in wanted.values()))
    return load_found(
        model, found, format=format, ignore=ignore, classes=classes, grid=_checked_grid(grid), use_ema=use_ema
    )


def load_found(
    model: nn.Module,
    found: Found,
    *,
    format: str | None = None,
    ignore: Sequence[str] = (),
    classes: Classes = "adapt",
    grid: Size | None = None,
    use_ema: bool = True,
) -> Loaded:
    """`load_weights` for what `find_weights` has found."""
    where, wanted, ignored = found.where, model.state_dict(), tuple(ignore)
    format = format or found.format
    state, notes = choose(found.contents, where, wanted, format=format, use_ema=use_ema)
    ours = understand(state, wanted, format=format, patches=_patches(model, grid or found.grid))
    state, converted = as_wanted(ours.state, wanted, where)
    state, adapted = adapt(state, model, where, classes=classes, grid=grid, likely=found.grid)
    state, ignored_notes = _ignore(state, wanted, ignored)
    require_fit(state, wanted, where, [name for name in ours.unexpected if not name.startswith(ignored)])
    require_finite(state, where, before=ours.state)
    model.load_state_dict(state)
    notes += [*converted, *adapted, *ignored_notes]
    for note in notes:
        _log.warning("%s: %s", where, note)
    return Loaded(where, ours.format, ours.what, tuple(notes))


def _patches(model: nn.Module, grid: Size | None) -> int | None:
    """The number of patches in the source's images: as said, or as the model's where both are likely to be squares."""
    if grid is not None:
        return grid[0] * grid[1]
    if isinstance(model, ViT) and model.grid.height == model.grid.width:
        return model.grid.num_patches
    return None


def _checked_grid(grid: Any) -> Size | None:
    if grid is None:
        return None
    sides = tuple(grid) if isinstance(grid, list | tuple) else ()
    if len(sides) != 2 or not all(type(side) is int and side > 0 for side in sides):
        raise RegardError(f"load_weights: grid must be two whole numbers above 0, rows and columns, got {shown(grid)}")
    return sides


def _ignore(
    state: dict[str, Tensor], wanted: Mapping[str, Tensor], ignored: tuple[str, ...]
) -> tuple[dict[str, Tensor], list[str]]:
    """Tensors that do not fit, or are not finite, and whose names begin with one of `ignored`: the model's own."""
    state, notes = dict(state), []
    for name in sorted(name for name in state.keys() | wanted.keys() if name.startswith(ignored)):
        if name in state and name in wanted and state[name].shape == wanted[name].shape and is_finite(state[name]):
            continue
        notes.append(f"{name}: ignored")
        state.pop(name, None)
        if name in wanted:
            state[name] = wanted[name]
    return state, notes


def find_weights(source: Source, *, num_bytes: int | None = None) -> Found:
    """What a source holds, which may be anything that `load_weights` takes. RegardError if it cannot be read.

    num_bytes: the size of the model that will take the weights, which bounds what a compressed file may unpack to.
    """
    if isinstance(source, Mapping):
        return Found(source, "the weights")
    name = str(source)
    if name.startswith(PREFIX):
        return Found(read_contents(HubFile.parse(name).fetch(), wanted=num_bytes), name)
    path = expanded(name.removeprefix(LOCAL))
    entry = None if name.startswith(LOCAL) else chosen_pretrained(source)
    if entry is not None:
        return Found(entry.state(), name, entry.format)
    if path.is_dir():
        return _in_folder(path, num_bytes)
    if not path.exists() and path.suffix not in ENDINGS:
        near = nearest(name, CATALOGUE)
        hint = f"; did you mean {near[0]!r}?" if near else ";"
        raise RegardError(f"{name}: is no file, no run, and no pretrained weights{hint} `regard models` lists those")
    return Found(read_contents(path, wanted=num_bytes), str(path))


def _in_folder(folder: Path, num_bytes: int | None) -> Found:
    file = weights_in(folder)
    config = _config_in(folder)
    heads, grid = config.get("num_heads"), grid_of(config)
    contents = read_contents(file, wanted=num_bytes)
    return Found(contents, str(file), grid=grid, num_heads=heads if type(heads) is int else None)


def weights_in(folder: Path) -> Path:
    """The file of weights in a run, or in another folder. RegardError where there is none."""
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / name).is_file():
            return folder / name
    raise RegardError(f"{folder}: holds neither model.safetensors nor pytorch_model.bin")


def _config_in(folder: Path) -> dict[str, Any]:
    """The configuration of the model of a run, of timm's or of transformers'; empty where no file can be read."""
    for file, keys in ((folder / "metadata.json", ("model", "config")), (folder / "config.json", ())):
        with suppress(RegardError, KeyError, TypeError, ValueError):
            values = read_json(file)
            for key in keys:
                values = values[key]
            return dict(values)
    return {}


def grid_of(config: Mapping[str, Any]) -> Size | None:
    """(rows, columns) of patches in the images of a configuration: ours, timm's or transformers'; None if unknown."""
    arguments, pretrained = (
        {} if not isinstance(t, Mapping) else t for t in map(config.get, ("model_args", "pretrained_cfg"))
    )
    said = [
        *(table.get(key) for table in (config, arguments) for key in ("img_size", "image_size")),
        pretrained.get("input_size"),
    ]
    size = next((size for size in said if size is not None), None)
    size = size[-2:] if isinstance(size, list | tuple) else size
    preset = PRESETS.get(str(config.get("architecture")))
    patch = config.get("patch_size", arguments.get("patch_size", getattr(preset, "patch_size", None)))
    sides = size if isinstance(size, list | tuple) else (size, size)
    if type(patch) is not int or patch < 1 or len(sides) != 2 or not all(type(side) is int for side in sides):
        return None
    return int(sides[0]) // patch, int(sides[1]) // patch
