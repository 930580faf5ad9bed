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
    model = metadata.get("model")
    name, saved = (model.get("name"), model.get("config")) if isinstance(model, Mapping) else (None, None)
    if not isinstance(name, str) or not isinstance(saved, Mapping):
        raise RegardError(f"{where}: lacks 'model', a table of a name and a config")
    name = current_name(name)
    return name, configure(name, saved, where=f"{where}: model.config")


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
    sides = table.get("img_size", [table.get("longest")] * 2)
    if isinstance(sides, list) and all(type(side) is int for side in sides) and math.prod(sides) > MOST_PIXELS:
        raise RegardError(f"{where}: preprocessing: images of {shown(sides)} pixels are more than {MOST_PIXELS:,}")
    if "channels" in table and table["channels"] != channels:
        raise RegardError(
            f"{where}: preprocessing: {shown(table['channels'])} channels, and the model takes {shown(channels)}"
        )
    return table


def require_weights_of(config: ModelConfig, file: Path) -> None:
    """RegardError unless a safetensors file holds exactly the tensors of this configuration."""
    header = read_header(file)
    require_layers(config, len(header), file)
    require_fit(header, shapes_of(config, file), file)


def require_described(config: ModelConfig, tensors: Mapping[str, torch.Tensor], where: str) -> None:
    """RegardError unless these tensors, under any library's names, are those of this configuration."""
    require_layers(config, len(tensors), where)
    wanted = shapes_of(config, where)
    ours = understand(tensors, wanted, patches=_patches(config))
    require_fit(ours.state, wanted, where, ours.unexpected)


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


def shapes_of(config: ModelConfig, where: object) -> dict[str, torch.Tensor]:
    """The state of the model of a configuration, without memory."""
    try:
        with torch.device("meta"):
            return build(config).state_dict()
    except RegardError:
        raise
    except (RuntimeError, ArithmeticError, AssertionError, LookupError, TypeError, ValueError) as error:
        raise RegardError(f"{where}: the model that is described cannot be built: {one_line(error)}") from None
