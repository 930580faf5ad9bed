"""Recipes: one TOML file a run. The shipped ones lie beside this file."""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import BaseModel, ValidationError

from regard.errors import RegardError, nearest, unknown
from regard.models import current_name
from regard.recipes.schema import AUGMENTATIONS, AugmentSection, Recipe, TaskName, TrainSection

__all__ = [
    "AUGMENTATIONS",
    "AugmentSection",
    "Recipe",
    "TaskName",
    "TrainSection",
    "load_recipe",
    "read_recipe",
    "shipped_recipes",
    "write_recipe",
]

_FOLDER = Path(__file__).parent


def shipped_recipes() -> dict[str, Recipe]:
    """Every recipe of the package, by name."""
    return {path.stem: read_recipe(path) for path in sorted(_FOLDER.glob("*.toml"))}


def load_recipe(name: str, settings: Sequence[str] = (), *, address: str | None = None) -> Recipe:
    """A shipped recipe by its name, or a file; with `KEY=VALUE` settings, and the data's address replaced if given."""
    path = _FOLDER / f"{name}.toml"
    if not path.exists():
        path = Path(name)
        if path.suffix != ".toml" and not path.exists():
            raise unknown("recipe", name, (p.stem for p in _FOLDER.glob("*.toml")))
    overrides = dict(_parse_setting(setting) for setting in settings)
    if address is not None:
        overrides["data.address"] = address
    return read_recipe(path, overrides)


def read_recipe(path: Path, overrides: Mapping[str, Any] | None = None, *, of_run: bool = False) -> Recipe:
    """The recipe in a file, with overrides by dotted key. The recipe `of_run`, in a run folder, may hold an old name.

    RegardError names the file, the key and what is allowed.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RegardError(f"{path}: is not TOML: {error}") from None
    except OSError as error:
        raise RegardError(f"{path}: cannot be read: {error.strerror}") from None
    model = values.get("model")
    if of_run and isinstance(model, dict) and isinstance(model.get("name"), str):
        model["name"] = current_name(model["name"])
    for key, value in (overrides or {}).items():
        _put(values, key, value)
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise _explained(error, str(path.name), overrides or {}) from None


def write_recipe(recipe: Recipe, path: Path) -> None:
    path.write_text(tomli_w.dumps(recipe.to_dict()), encoding="utf-8")


def _parse_setting(setting: str) -> tuple[str, Any]:
    key, equals, text = setting.partition("=")
    key = key.strip()
    if not equals or not key:
        raise RegardError(f"--set {setting}: expected KEY=VALUE, as in --set train.lr=3e-4")
    try:
        return key, tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return key, text.strip()  # a bare word is a string: --set model.mixer=local


def _put(values: dict[str, Any], dotted: str, value: Any) -> None:
    *sections, key = dotted.split(".")
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise RegardError(f"--set {dotted}: {section!r} is a value, not a section")
    values[key] = value


def _explained(error: ValidationError, file: str, overrides: Mapping[str, Any]) -> RegardError:
    """One line for the first of pydantic's issues: where the value came from, its key, what is allowed."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"] if not isinstance(part, int))
    message = first["msg"].removeprefix("Value error, ")
    where = "--set" if any(_is_about(name, value, key, first) for name, value in overrides.items()) else file
    if first["type"] == "extra_forbidden":
        keys, section = _known_keys(Recipe), key.rpartition(".")[0]
        known = [name for name in keys if name.rpartition(".")[0] == section]
        return unknown("key", key, {*known, *nearest(key, keys)}, where=where)
    if first["type"] == "model_type":
        return RegardError(f"{where}: {key} is a section, not a value; got {first['input']!r}")
    if first["type"] == "missing":
        return RegardError(f"{where}: {key} is missing")
    if first["type"] == "value_error":
        return RegardError(f"{where}: {message}")
    return RegardError(f"{where}: {key}: {message[0].lower()}{message[1:]}, got {first['input']!r}")


def _is_about(name: str, value: object, key: str, error: Mapping[str, Any]) -> bool:
    """Whether pydantic's issue at `key` is about what `--set name=value` put there."""
    if name == key or (error["type"] == "extra_forbidden" and name.startswith(f"{key}.")):
        return True
    parts = name.split(".")
    names = [".".join(parts[:end]) for end in range(2, len(parts) + 1)]
    return any(said in error["msg"] for said in (*names, *([repr(value)] if isinstance(value, str) else ())))


def _known_keys(section: type[BaseModel], prefix: str = "") -> list[str]:
    keys: list[str] = []
    for name, field in section.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            keys += [f"{prefix}{name}", *_known_keys(inner, f"{prefix}{name}.")]
        else:
            keys.append(f"{prefix}{name}")
    return keys
