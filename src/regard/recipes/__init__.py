"""Recipes: one TOML file a run. The shipped ones lie beside this file."""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from regard.errors import RegardError, nearest, unknown
from regard.models import current_name
from regard.recipes.classification import (
    ClassificationAugmentSection,
    ClassificationRecipe,
    ClassificationTrainSection,
)
from regard.recipes.detection import (
    DetectionAugmentSection,
    DetectionDataSection,
    DetectionRecipe,
    DetectionTrainSection,
)
from regard.recipes.next_token import NextTokenRecipe
from regard.recipes.recipe import Claim, Recipe, TaskName
from regard.recipes.sections import AugmentSection, DataSection, TrainSection
from regard.recipes.seq2seq import Seq2SeqRecipe

__all__ = [
    "RECIPES",
    "AugmentSection",
    "Claim",
    "ClassificationAugmentSection",
    "ClassificationRecipe",
    "ClassificationTrainSection",
    "DataSection",
    "DetectionAugmentSection",
    "DetectionDataSection",
    "DetectionRecipe",
    "DetectionTrainSection",
    "NextTokenRecipe",
    "Recipe",
    "Seq2SeqRecipe",
    "TaskName",
    "TrainSection",
    "load_recipe",
    "parse_recipe",
    "read_recipe",
    "shipped_recipes",
    "write_recipe",
]

# The class of each task's recipes. `task` decides which one reads a file, so that an error is about that one alone.
RECIPES: dict[str, type[Recipe]] = {
    "classification": ClassificationRecipe,
    "detection": DetectionRecipe,
    "seq2seq": Seq2SeqRecipe,
    "next-token": NextTokenRecipe,
}
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
    """The recipe in a file, with overrides by dotted key. RegardError names the file, the key and what is allowed.

    The recipe `of_run`, in a run folder, may hold a preset's old name, and keys of another task: older versions wrote
    them all.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RegardError(f"{path}: is not TOML: {error}") from None
    except OSError as error:
        raise RegardError(f"{path}: cannot be read: {error.strerror}") from None
    if of_run:
        _use_current_name(values)
    for key, value in (overrides or {}).items():
        _put(values, key, value)
    try:
        return parse_recipe(values, of_run=of_run)
    except ValidationError as error:
        raise _explained(error, RECIPES[values.get("task", "classification")], path.name, overrides or {}) from None
    except RegardError as error:
        where = "--set" if any(f"{key} " in f"{error}".replace(":", " ") for key in overrides or ()) else path.name
        raise RegardError(f"{where}: {error}") from None


def parse_recipe(values: Mapping[str, Any], *, of_run: bool = False) -> Recipe:
    """The recipe of the task that `values` name, or of classification; `values` are as in a TOML file.

    A key of another task is ignored if it has its default, or if the recipe is `of_run`. Raises RegardError for another
    value of it and for an unknown task, pydantic's ValidationError for everything else.
    """
    task = values.get("task", "classification")
    if not isinstance(task, str) or task not in RECIPES:
        allowed = ", ".join(repr(name) for name in RECIPES)
        raise RegardError(f"task: input should be one of {allowed}, got {task!r}")
    own, mistakes = _without_foreign_keys(values, task)
    recipe = RECIPES[task].model_validate(own)  # first: a model of another task is the greater mistake
    if mistakes and not of_run:
        raise RegardError(mistakes[0])
    return recipe


def _use_current_name(values: dict[str, Any]) -> None:
    model = values.get("model")
    if isinstance(model, dict) and isinstance(model.get("name"), str):
        model["name"] = current_name(model["name"])


def _without_foreign_keys(values: Mapping[str, Any], task: str) -> tuple[dict[str, Any], list[str]]:
    """The values without the keys of other tasks, and an error message for each of those that has not its default."""
    own, mistakes = dict(values), []
    for name in ("model", "data", "augment", "train"):
        if not isinstance(own.get(name), dict):
            continue
        section = own[name] = dict(own[name])
        fields = {other: _fields(recipe, name) for other, recipe in RECIPES.items()}
        for key in [key for key in section if key not in fields[task]]:
            homes = [other for other in fields if key in fields[other]]
            if not homes:
                continue  # unknown everywhere: a key of a model's configuration, or a mistake that pydantic reports
            default, value = fields[homes[0]][key].default, section.pop(key)
            if value != (list(default) if isinstance(default, tuple) else default):
                mistakes.append(
                    f"augment.{key} is not for {task}; it takes {', '.join(fields[task]) or 'none'}"
                    if name == "augment"
                    else f"{name}.{key} is for {' and '.join(homes)}; {task} has no use for it"
                )
    return own, mistakes


def _fields(recipe: type[Recipe], section: str) -> dict[str, FieldInfo]:
    kind = recipe.model_fields[section].annotation
    return kind.model_fields if isinstance(kind, type) and issubclass(kind, BaseModel) else {}


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


def _explained(error: ValidationError, recipe: type[Recipe], file: str, overrides: Mapping[str, Any]) -> RegardError:
    """One line for the first of pydantic's issues: where the value came from, its key, what is allowed."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"] if not isinstance(part, int))
    message = first["msg"].removeprefix("Value error, ")
    where = "--set" if any(_is_about(name, value, key, first) for name, value in overrides.items()) else file
    if first["type"] == "extra_forbidden":
        keys, section = _known_keys(recipe), key.rpartition(".")[0]
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
