"""A stranger's model: whether the weights beside a metadata.json are those of the model that it describes.

Nothing of the described size is allocated: the model is built without memory, and compared with the header of the file.
"""

import math
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from regard.errors import RegardError, one_line, shown
from regard.models import ModelConfig, ViTConfig, build, configure, current_name
from regard.weights.files import read_header
from regard.weights.fit import require_fit
from regard.weights.formats.known import understand

MOST_PIXELS = 64_000_000
LARGEST_NUMBER = 1_000_000


def config_of(metadata: Mapping[str, Any], where: str) -> tuple[str, ModelConfig]:
    """The preset's name of today, and the configuration. RegardError, which begins with `where`, for anything else."""
    model = _part(metadata, "model", Mapping, where)
    name, saved = _part(model, "name", str, where), _part(model, "config", Mapping, where)
    name = current_name(name)
    return name, configure(name, saved, where=f"{where}: model.config")


def _part(table: Mapping[str, Any], key: str, kind: type, where: str) -> Any:
    if key not in table:
        raise RegardError(f"{where}: lacks {key!r}")
    if not isinstance(table[key], kind):
        wanted = "a text" if kind is str else "a table"
        raise RegardError(f"{where}: {key!r} must be {wanted}, got {shown(table[key])}")
    return table[key]


def class_names_of(metadata: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """The names of the classes, as many as the described model has. KeyError where there are none."""
    names, wanted = metadata["class_names"], metadata["model"]["config"].get("num_classes")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise RegardError(f"{where}: class_names must be a list of texts, got {shown(names)}")
    if len(names) != wanted:
        raise RegardError(f"{where}: {len(names)} class names, {shown(wanted)} classes")
    return tuple(names)


def preprocessing_table(metadata: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """The table of the images' preprocessing: of finite numbers, for images of bounded size and the model's channels.

    KeyError where there is none. Which keys it has is for the preprocessing of the task to say.
    """
    table, channels = metadata["preprocessing"], metadata["model"]["config"].get("in_chans")
    if not isinstance(table, Mapping):
        raise RegardError(f"{where}: preprocessing must be a table, got {shown(table)}")
    for key, value in table.items():
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, int | float) and not abs(number) <= LARGEST_NUMBER:
                raise RegardError(f"{where}: preprocessing.{key[:60]} is {shown(number)}; no such image is prepared")
    sides, crop = table.get("img_size", [table.get("longest")] * 2), table.get("crop_fraction", 1.0)
    known = isinstance(sides, list) and all(type(value) in (int, float) for value in (*sides, crop))
    if known and math.prod(sides) > MOST_PIXELS * min(crop, 1.0) ** 2:  # what the crop is taken from is larger
        part = "" if crop >= 1 else f" in a crop of {shown(crop)}"
        raise RegardError(f"{where}: preprocessing: {shown(sides)} pixels{part} ask for over {MOST_PIXELS:,}")
    if "channels" in table and table["channels"] != channels:
        raise RegardError(
            f"{where}: preprocessing: {shown(table['channels'])} channels, and the model takes {shown(channels)}"
        )
    return table


def require_weights_of(config: ModelConfig, file: Path, where: str) -> None:
    """RegardError unless a safetensors file holds exactly the tensors of the configuration that `where` describes."""
    header = read_header(file)
    require_layers(config, len(header), file)
    require_fit(header, shapes_of(config, where), file)


def require_described(config: ModelConfig, tensors: Mapping[str, torch.Tensor], file: str, where: str) -> None:
    """RegardError unless the tensors of `file`, under any library's names, are those of this configuration."""
    require_layers(config, len(tensors), file)
    wanted = shapes_of(config, where)
    ours = understand(tensors, wanted, patches=_patches(config))
    require_fit(ours.state, wanted, file, ours.unexpected)


def placed(error: RegardError, where: str) -> RegardError:
    """The same error; its message begins with `where`."""
    return error if str(error).startswith(where) else RegardError(f"{where}: {error}")


def require_layers(config: ModelConfig, num_tensors: int, where: object) -> None:
    """RegardError for more layers than tensors: each layer has some, and to build millions of them takes minutes."""
    depths = [getattr(config, field.name) for field in fields(config) if "depth" in field.name]
    layers = sum(sum(depth) if isinstance(depth, tuple) else depth or 0 for depth in depths)
    if layers > num_tensors:
        raise RegardError(f"{where}: has {num_tensors:,} tensors, too few for the {layers:,} layers that are described")


def _patches(config: ModelConfig) -> int | None:
    if not isinstance(config, ViTConfig):
        return None
    sides = (config.img_size,) * 2 if isinstance(config.img_size, int) else config.img_size
    return math.prod(side // config.patch_size for side in sides)


def shapes_of(config: ModelConfig, where: str) -> dict[str, torch.Tensor]:
    """The state of the model of a configuration, without memory."""
    try:
        with torch.device("meta"):
            return build(config).state_dict()
    except RegardError as error:
        raise placed(error, where) from None
    except (RuntimeError, ArithmeticError, AssertionError, LookupError, TypeError, ValueError) as error:
        raise RegardError(f"{where}: the model that is described cannot be built: {one_line(error)}") from None
