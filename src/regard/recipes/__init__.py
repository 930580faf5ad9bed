"""Recipes: one TOML file a run. The shipped ones lie beside this file."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from regard.errors import RegardError, nearest, one_line, unknown
from regard.models import current_name
from regard.reading import MB, parse_toml, read_bytes
from regard.recipes.classification import (
    ClassificationAugmentSection,
    ClassificationDataSection,
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
from regard.recipes.pretraining import (
    SELF,
    PretrainingAugmentSection,
    PretrainingRecipe,
    PretrainSection,
    as_pretraining,
    put_another_teacher,
)
from regard.recipes.recipe import Claim, Recipe, TaskName
from regard.recipes.sections import (
    AugmentSection,
    DataSection,
    FeaturesSection,
    ImageModelSection,
    TrainSection,
    WholeImagesSection,
)
from regard.recipes.seq2seq import Seq2SeqRecipe
from regard.recipes.setting_text import setting_text

__all__ = [
    "RECIPES",
    "SELF",
    "AugmentSection",
    "Claim",
    "ClassificationAugmentSection",
    "ClassificationDataSection",
    "ClassificationRecipe",
    "ClassificationTrainSection",
    "DataSection",
    "DetectionAugmentSection",
    "DetectionDataSection",
    "DetectionRecipe",
    "DetectionTrainSection",
    "FeaturesSection",
    "ImageModelSection",
    "NextTokenRecipe",
    "PretrainSection",
    "PretrainingAugmentSection",
    "PretrainingRecipe",
    "Recipe",
    "Seq2SeqRecipe",
    "TaskName",
    "TrainSection",
    "WholeImagesSection",
    "data_section",
    "dotted",
    "load_recipe",
    "parse_recipe",
    "parse_settings",
    "read_recipe",
    "recipe_keys",
    "recipe_text",
    "setting_text",
    "shipped_recipes",
    "takes_none",
    "write_recipe",
]

# The class of each task's recipes. `task` decides which one reads a file, so that an error is about that one alone.
RECIPES: dict[str, type[Recipe]] = {
    "classification": ClassificationRecipe,
    "detection": DetectionRecipe,
    "pretraining": PretrainingRecipe,
    "seq2seq": Seq2SeqRecipe,
    "next-token": NextTokenRecipe,
}
_FOLDER = Path(__file__).parent
_MOST_BYTES = 4 * MB
MOST_LETTERS = 4096  # of a text in a recipe


def cut(text: object, limit: int = 100) -> str:
    """Text of a person's, for a message: its beginning."""
    found = str(text)
    return found if len(found) <= limit else f"{found[:limit]}..."


def shipped_recipes() -> dict[str, Recipe]:
    """Every recipe of the package, by name."""
    return {path.stem: read_recipe(path) for path in sorted(_FOLDER.glob("*.toml"))}


def load_recipe(
    name: str, settings: Sequence[str] = (), *, address: str | None = None, task: str | None = None
) -> Recipe:
    """A shipped recipe by its name, or a file; with `KEY=VALUE` settings, and the data's address replaced if given.

    task: "pretraining" takes a recipe of classification for the pre-training of its model. RegardError for one of
    another task.
    """
    path = _FOLDER / f"{name}.toml"
    if not path.exists():
        path = Path(name)
        if path.suffix != ".toml" and not path.exists():
            raise unknown("recipe", name, (p.stem for p in _FOLDER.glob("*.toml")))
    return read_recipe(path, parse_settings(settings, address=address), task=task)


def parse_settings(settings: Sequence[str], *, address: str | None = None) -> dict[str, Any]:
    """What `KEY=VALUE` texts say, by dotted key, for `read_recipe`; `none` is None, unless the key takes that word."""
    overrides = dict(_parse_setting(setting) for setting in settings)
    return overrides if address is None else {**overrides, "data.address": address}


def read_recipe(
    path: Path, overrides: Mapping[str, Any] | None = None, *, of_run: bool = False, task: str | None = None
) -> Recipe:
    """The recipe in a file, with overrides by dotted key. RegardError names the file, the key and what is allowed.

    An override that is None takes the file's value out, so that the default holds. The recipe `of_run`, in a run
    folder, may hold a preset's old name, and keys of another task: older versions wrote them all.
    """
    try:
        text = read_bytes(path, most=_MOST_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RegardError(f"{path}: is not TOML: {one_line(error)}") from None
    values = parse_toml(_unescaped(text), str(path))
    if of_run:
        _use_current_name(values)
    if task is not None and values.get("task", "classification") != task:
        own = values.get("task", "classification")
        if (own, task) != ("classification", "pretraining"):
            raise RegardError(f"{path.name}: is a recipe of {cut(own)}, and not of {task}")
        values = as_pretraining(values)
    if not of_run:
        put_another_teacher(values, overrides or {})
    for key, value in (overrides or {}).items():
        _put(values, key, value)
    try:
        recipe = parse_recipe(values, of_run=of_run)
    except ValidationError as error:
        raise _explained(error, RECIPES[values.get("task", "classification")], path.name, overrides or {}) from None
    except RegardError as error:
        where = "--set" if any(f"{key} " in f"{error}".replace(":", " ") for key in overrides or ()) else path.name
        raise RegardError(f"{where}: {error}") from None
    _require_known((key for key, value in (overrides or {}).items() if value is None), recipe)
    return recipe


def data_section(task: str, overrides: Mapping[str, Any]) -> DataSection:
    """How the data of a task are opened without a recipe: its defaults, with overrides by dotted key (`data.strict`).

    RegardError for a key or value that is not allowed, and without `data.address`.
    """
    values: dict[str, Any] = {}
    for key, value in overrides.items():
        if not key.startswith("data."):
            raise RegardError(
                f"--set {key}: without a recipe only keys of the data are of use, such as data.val_fraction"
            )
        _put(values, key, value)
    kind = RECIPES[task].model_fields["data"].annotation
    assert isinstance(kind, type)
    assert issubclass(kind, DataSection)
    try:
        section = kind.model_validate(values.get("data", {}))
    except ValidationError as error:
        raise _explained(error, RECIPES[task], "data", overrides, prefix="data.") from None
    _require_known_names((key for key, value in overrides.items() if value is None), _known_keys(kind, "data."))
    return section


def parse_recipe(values: Mapping[str, Any], *, of_run: bool = False) -> Recipe:
    """The recipe of the task that `values` name, or of classification; `values` are as in a TOML file.

    A key of another task is ignored if it has its default, or if the recipe is `of_run`. Raises RegardError for another
    value of it and for an unknown task, pydantic's ValidationError for everything else.
    """
    task = values.get("task", "classification")
    if not isinstance(task, str) or task not in RECIPES:
        allowed = ", ".join(repr(name) for name in RECIPES)
        raise RegardError(f"task: input should be one of {allowed}, got {cut(repr(task))}")
    _require_sane(values)
    own, mistakes = _without_foreign_keys(values, task)
    recipe = RECIPES[task].model_validate(own)  # first: a model of another task is the greater mistake
    if mistakes and not of_run:
        raise RegardError(mistakes[0])
    return recipe


def _require_sane(value: Any, key: str = "") -> None:
    """RegardError for text that is no name of anything: with a null character, or of thousands of letters."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            _require_sane(str(name), key or "a key")
            _require_sane(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list | tuple):
        for inner in value:
            _require_sane(inner, key)
    elif isinstance(value, str) and ("\0" in value or len(value) > MOST_LETTERS):
        what = "holds a null character" if "\0" in value else f"has {len(value):,} letters; at most {MOST_LETTERS:,}"
        raise RegardError(f"{cut(key)}: the text {what}")


def _use_current_name(values: dict[str, Any]) -> None:
    model = values.get("model")
    if isinstance(model, dict) and isinstance(model.get("name"), str):
        model["name"] = current_name(model["name"])


# Defaults of before, which older versions wrote into the runs of all tasks.
_FORMER = {"interpolation": "bilinear", "crop_fraction": 1.0}


def _without_foreign_keys(values: Mapping[str, Any], task: str) -> tuple[dict[str, Any], list[str]]:
    """The values without the keys of other tasks, and an error message for each of those that has not its default."""
    own, mistakes = dict(values), []
    for name in ("model", "data", "augment", "train", "features"):
        if not isinstance(own.get(name), dict):
            continue
        section = own[name] = dict(own[name])
        fields = {other: _fields(recipe, name) for other, recipe in RECIPES.items()}
        for key in [key for key in section if key not in fields[task]]:
            homes = [other for other in fields if key in fields[other]]
            if not homes:
                continue  # unknown everywhere: a key of a model's configuration, or a mistake that pydantic reports
            default, value = fields[homes[0]][key].default, section.pop(key)
            if value not in (list(default) if isinstance(default, tuple) else default, _FORMER.get(key, default)):
                mistakes.append(
                    f"augment.{key} is not for {task}; it takes {', '.join(fields[task]) or 'none'}"
                    if name == "augment"
                    else f"{name}.{key} is for {_listed(homes)}; {task} has no use for it"
                )
        if not section and name not in RECIPES[task].model_fields:
            del own[name]
    return own, mistakes


def _listed(names: Sequence[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def _fields(recipe: type[Recipe], section: str) -> dict[str, FieldInfo]:
    kind = recipe.model_fields[section].annotation if section in recipe.model_fields else None
    return kind.model_fields if isinstance(kind, type) and issubclass(kind, BaseModel) else {}


def write_recipe(recipe: Recipe, path: Path) -> None:
    path.write_text(recipe_text(recipe), encoding="utf-8")


def recipe_text(recipe: Recipe) -> str:
    """TOML, which `read_recipe` reads back as it was, names that are not UTF-8 too."""
    return _escaped(tomli_w.dumps(recipe.to_dict()))


# TOML knows UTF-8 alone. What stands for a byte without meaning, \udcff, is written as a private character and the
# byte's two digits; that character itself, which no name has, is doubled.
_MARK = "\U0010fffd"


def _escaped(text: str) -> str:
    return re.sub("[\ud800-\udfff]", lambda found: f"{_MARK}{ord(found[0]):04x}", text.replace(_MARK, _MARK * 2))


def _unescaped(text: str) -> str:
    def character(found: re.Match[str]) -> str:
        return chr(int(found[1], 16)) if found[1] else _MARK

    return re.sub(f"{_MARK}(?:{_MARK}|(d[89a-f][0-9a-f]{{2}}))", character, text)


def recipe_keys(recipe: Recipe) -> list[str]:
    """The dotted keys of a recipe, and those of its model's configuration."""
    keys = []
    for name in type(recipe).model_fields:
        section = getattr(recipe, name)
        keys += [f"{name}.{key}" for key in type(section).model_fields] if isinstance(section, BaseModel) else [name]
    config = [f"model.{key}" for key in vars(recipe.model.config())]
    return list(dict.fromkeys(key for key in [*keys, *config] if not key.startswith("claim.")))


def dotted(recipe: Recipe) -> dict[str, Any]:
    """The values of a recipe as TOML holds them, by dotted key."""
    found: dict[str, Any] = {}
    for key, value in recipe.to_dict().items():
        found |= {f"{key}.{inner}": item for inner, item in value.items()} if isinstance(value, dict) else {key: value}
    return found


def _parse_setting(setting: str) -> tuple[str, Any]:
    key, equals, text = setting.partition("=")
    key = key.strip()
    if not equals or not key:
        raise RegardError(f"--set {cut(setting)}: expected KEY=VALUE, as in --set train.lr=3e-4")
    if text.strip() == "none" and not takes_none(key):
        return key, None
    try:
        return key, parse_toml(f"value = {text}", f"--set {cut(setting)}")["value"]
    except RegardError as error:
        if "is not TOML" not in str(error):
            raise
        return key, text.strip()  # a bare word is a string: --set model.mixer=local


def takes_none(key: str) -> bool:
    """Whether "none" is a value of a key, as the token mixer of that name is, and does not take the value out."""
    return key in ("model.positions", "model.share", "model.freeze") or key.endswith("mixer")


def _put(values: dict[str, Any], dotted_key: str, value: Any) -> None:
    """Puts a value under its dotted key, or, with None, takes out what is there."""
    *sections, key = dotted_key.split(".")
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise RegardError(f"--set {cut(dotted_key)}: {section!r} is a value, not a section")
    if value is None:
        values.pop(key, None)
    else:
        values[key] = value


def _require_known(keys: Iterable[str], recipe: Recipe) -> None:
    _require_known_names(keys, recipe_keys(recipe))


def _require_known_names(keys: Iterable[str], known: Sequence[str]) -> None:
    """RegardError for a value that is taken out of a key that does not exist; no schema looks at such a one."""
    for key in keys:
        if not any(key == name or key.startswith(f"{name}.") for name in known):
            raise unknown("key", cut(key), known, where="--set")


def _explained(
    error: ValidationError, recipe: type[Recipe], file: str, overrides: Mapping[str, Any], *, prefix: str = ""
) -> RegardError:
    """One line for the first of pydantic's issues: where the value came from, its key, what is allowed."""
    first = error.errors()[0]
    key = prefix + ".".join(cut(part) for part in first["loc"] if not isinstance(part, int))
    message, given = first["msg"].removeprefix("Value error, "), cut(repr(first["input"]))
    where = "--set" if any(_is_about(name, value, key, first) for name, value in overrides.items()) else file
    if first["type"] == "extra_forbidden":
        keys, section = _known_keys(recipe), key.rpartition(".")[0]
        known = [name for name in keys if name.rpartition(".")[0] == section]
        return unknown("key", key, {*known, *nearest(key, keys)}, where=where)
    if first["type"] == "model_type":
        return RegardError(f"{where}: {key} is a section, not a value; got {given}")
    if first["type"] == "missing":
        return RegardError(f"{where}: {key} is missing")
    if first["type"] == "value_error":
        return RegardError(f"{where}: {message}")
    return RegardError(f"{where}: {key}: {message[0].lower()}{message[1:]}, got {given}")


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
