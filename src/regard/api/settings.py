"""A function's arguments as settings of a recipe, and the recipe that suits data."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regard.api.names import device_named
from regard.errors import RegardError, unknown

if TYPE_CHECKING:
    from regard.recipes import DataSection, Recipe

# What is compared on each sort of data, unless a recipe is named.
RECIPES = {
    "images": "small-images",
    "images with boxes": "detr-digit-scenes",
    "pairs of texts": "seq2seq-numbers",
    "text": "next-token",
}
# What each sort of data is for.
TASKS = {
    "images": "classification",
    "images with boxes": "detection",
    "pairs of texts": "seq2seq",
    "text": "next-token",
}


def recipe_for(data: str | None) -> str:
    """The shipped recipe for the sort of data behind an address."""
    from regard.data import SORTS, parse_address

    kind = "digits" if data is None else parse_address(data).kind
    if kind == "digits":
        return "vit-digits"
    return next((RECIPES[sort] for sort, kinds in SORTS.items() if kind in kinds and sort in RECIPES), "small-images")


def data_section(address: str | None, recipe: str | Path | None = None, settings: Sequence[str] = ()) -> "DataSection":
    """How data are opened: as a recipe says, or by the defaults of the address's sort, with `KEY=VALUE` settings.

    address: of the data; a recipe's own unless given. Without a recipe the settings are of the data alone
    ("data.val_fraction=0.1"). RegardError for an unknown recipe, address or key, and a value that is not allowed.
    """
    from regard.data import SORTS, parse_address
    from regard.recipes import data_section, load_recipe, parse_settings

    if recipe is not None:
        return load_recipe(str(recipe), settings, address=address).data
    overrides = parse_settings(settings, address=address)
    if "data.address" not in overrides:
        raise RegardError("name the data: an address, such as folder:PATH, or a recipe")
    kind = parse_address(str(overrides["data.address"])).kind
    return data_section(next(TASKS[sort] for sort, kinds in SORTS.items() if kind in kinds), overrides)


def resolved_recipe(
    recipe: str | Path,
    data: str | Path | Mapping[str, Any] | None,
    device: Any,
    settings: Mapping[str, Any],
    *,
    task: str | None = None,
    before: Sequence[str] = (),
) -> "tuple[Recipe, list[str], list[str]]":
    """A recipe with a function's arguments in it, these arguments as options of the command line, and its settings.

    task: as `load_recipe`. before: settings that the others may change.
    """
    from regard.data import address_of
    from regard.recipes import load_recipe, setting_text, takes_none

    overrides: dict[str, Any] = {} if device is None else {"train.device": str(device_named(device))}
    given = settings.get("settings", ())
    texts = [given] if isinstance(given, str) else [] if isinstance(given, Mapping) else list(given)
    if isinstance(given, Mapping):
        overrides |= _flat(given)
    if isinstance(data, Mapping):
        overrides |= _flat(data, "data.")
    plain = load_recipe(str(recipe), task=task)
    for name, value in settings.items():
        if name != "settings":
            overrides |= _placed(plain, name, value)
    unlabelled = task == "pretraining"
    address = None if data is None or isinstance(data, Mapping) else address_of(str(data), unlabelled=unlabelled)
    if "data.address" in overrides:
        overrides["data.address"] = address_of(str(overrides["data.address"]), unlabelled=unlabelled)
    for key in [key for key, value in overrides.items() if value is None and takes_none(key)]:
        raise RegardError(f"{key}: None would take the recipe's value out, and 'none' is a value here; leave it out")
    chosen = [*before, *texts, *(f"{key}={setting_text(value)}" for key, value in overrides.items())]
    options = ([] if address is None else ["--data", address]) + [word for text in chosen for word in ("--set", text)]
    try:
        return load_recipe(str(recipe), chosen, address=address, task=task), options, chosen
    except RegardError as error:  # which speaks of the command line's --set
        raise RegardError(str(error).replace("--set: ", f"{recipe}: ", 1)) from None


def _placed(recipe: "Recipe", name: str, value: Any) -> dict[str, Any]:
    """A keyword under its dotted key; RegardError for one that is in no section, or in several."""
    from regard.recipes import recipe_keys

    places = recipe_keys(recipe)
    if isinstance(value, Mapping) and any(key.startswith(f"{name}.") for key in places):
        return _flat(value, f"{name}.")
    found = [key for key in places if key == name] or [key for key in places if key.rpartition(".")[2] == name]
    if len(found) > 1:
        choices = " or ".join(f"{section}={{{name!r}: ...}}" for section in (key.partition(".")[0] for key in found))
        raise RegardError(f"{name}: is a key of several sections; give {choices}")
    if not found:
        near = unknown("setting", name, [key.rpartition(".")[2] for key in places])
        raise near
    return {found[0]: value}


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables under dotted keys: {"train": {"lr": 1}} -> {"train.lr": 1}."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and not prefix:
            found |= _flat(value, f"{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found
