"""Whole models, made of layers and mixers, and the names of their presets."""

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from regard.errors import RegardError, unknown
from regard.models.presets import PRESETS
from regard.models.vit import ViT, ViTConfig

__all__ = ["PRESETS", "ViT", "ViTConfig", "build", "configure"]


def configure(name: str, overrides: Mapping[str, Any], where: str = "model") -> ViTConfig:
    """The configuration of a preset with some values replaced; RegardError for an unknown name, key or type."""
    if name not in PRESETS:
        raise unknown("model", name, PRESETS, where="" if where == "model" else where)
    values = dict(vars(PRESETS[name]))
    for key in overrides:
        if key not in values:
            raise unknown("key", f"{where}.{key}", [f"{where}.{known}" for known in values])
    values |= overrides
    try:
        config = _VALIDATOR.validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"][:1])
        raise RegardError(f"{where}.{key}: {first['msg'].lower()}, got {values[key]!r}") from None
    return config


def build(config: ViTConfig) -> ViT:
    """The model of a configuration, with random weights."""
    return ViT(config)


_VALIDATOR = TypeAdapter(ViTConfig)
