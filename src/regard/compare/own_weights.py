"""Contenders that begin from given weights (`attention@weights=RUN`): names, recipes, and what the weights took."""

import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from regard.compare.aliases import Alias, place_of
from regard.compare.candidates import try_out
from regard.compare.plan import Plan
from regard.errors import RegardError, first_few, nearest
from regard.models import config_values
from regard.reading import read_json
from regard.recipes import Recipe
from regard.tasks import with_weights_named
from regard.weights import AUTO, CATALOGUE, LOCAL, PREFIX, OtherClasses, chosen_pretrained, weights_hash

LONGEST_LABEL = 40
FILES_OF_A_RUN = ("model.safetensors", "best.safetensors", "pytorch_model.bin")
# What makes two models different that may still take each other's weights.
NOT_OF_THE_SHAPE = ("num_classes", "img_size", "mixer", "mixer_options", "drop_path", "position_std", "antialias")


def contender_names(names: Sequence[str]) -> list[str]:
    """The names in tables and of folders: of weights the last part of their path.

    Where two paths end alike, as much comes before as tells them apart. The same weights give the same name.
    """
    aliases = [Alias.of(name) for name in names]
    places = list(dict.fromkeys(place_of(alias.weights) for alias in aliases if alias.weights))
    labels = {place: _label(place, 1) for place in places}
    for place in places:
        alike = [other for other in places if other != place and _label(other, 1) == _label(place, 1)]
        if alike:
            numbers = range(2, len(_parts(place)) + 1)
            apart = (n for n in numbers if _label(place, n) not in {_label(other, n) for other in alike})
            labels[place] = _label(place, next(apart, 1))
    found = list(labels.values())
    for place, label in labels.items():
        if found.count(label) > 1:  # such as a/b-c and a-b/c
            labels[place] = f"{label}-{hashlib.blake2b(os.fsencode(place), digest_size=3).hexdigest()}"
    return [
        name.partition("@weights=")[0] + (f"@weights={labels[place_of(alias.weights)]}" if alias.weights else "")
        for name, alias in zip(names, aliases, strict=True)
    ]


def _parts(place: str) -> list[str]:
    named = place.removeprefix(PREFIX).removeprefix(LOCAL)
    *parts, last = [part for part in re.split(r"[\\/]", named) if part] or ["weights"]
    if parts and last in FILES_OF_A_RUN:
        last = f"{parts.pop()}-{last}"
    return [*parts, last]


def _label(place: str, number: int) -> str:
    """The last parts of a path as a part of a folder's name."""
    label = re.sub(r"[^\w.+=-]+", "-", "-".join(_parts(place)[-number:]))
    return label[-LONGEST_LABEL:]


def require_weights(name: str) -> None:
    """RegardError, which begins with the contender's name, where the weights that it begins from are not there."""
    if source := Alias.of(name).weights:
        place = place_of(source)
        if place == AUTO or place.startswith(PREFIX) or chosen_pretrained(place) is not None:
            return
        if not Path(place.removeprefix(LOCAL)).exists():
            near = nearest(source, CATALOGUE)
            hint = f"; did you mean {near[0]!r}?" if near else "; `regard models` lists those"
            raise RegardError(f"{name}: {source} is no run, no file, and no weights of the catalogue{hint}")


def begun(recipe: Recipe, name: str, class_names: Sequence[str]) -> tuple[Recipe, int, int]:
    """The recipe with the hash of the weights that it names; and its trial's parameters and operations.

    Where a run's classes are not `class_names`, or are not as many, the head is left out. RegardError, which begins
    with the contender's name, for weights that cannot be read, and for those that do not fit the model.
    """
    try:
        recipe = with_weights_named(recipe)
        place = str(getattr(recipe.model, "weights", ""))
        theirs = _class_names(place)
        other = bool(theirs) and theirs != list(class_names)
        recipe = _with(recipe, weights_hash=weights_hash(place, key="model.weights"), reset_head=other)
        try:
            return recipe, *try_out(recipe)
        except OtherClasses:
            recipe = _with(recipe, reset_head=True)
            return recipe, *try_out(recipe)
    except RegardError as error:
        raise RegardError(f"{name}: {error}{_what_differs(recipe)}") from None


def _with(recipe: Recipe, **changes: object) -> Recipe:
    return recipe.model_copy(update={"model": recipe.model.model_copy(update=changes)})


def _what_differs(recipe: Recipe) -> str:
    """Between the run's model and the recipe's, where that may be why weights do not fit; "" where nothing does."""
    theirs = _config(str(getattr(recipe.model, "weights", "")))
    ours = config_values(recipe.model.config())
    keys = [key for key in ours if key in theirs and key not in NOT_OF_THE_SHAPE and theirs[key] != ours[key]]
    other = [f"{key} {theirs[key]} (here {ours[key]})" for key in keys]
    return f"; its model has {first_few(other, 4)}" if other else ""


def require_same_weights(plan: Plan, names: Iterable[str] | None = None) -> None:
    """RegardError where weights that a contender begins from are gone, or are others than the plan was settled with."""
    for name in plan.names if names is None else names:
        model = plan.entry(name).recipe["model"]
        place, wanted = model.get("weights"), model.get("weights_hash")
        if not plan.entry(name).weights or plan.entry(name).runs or not wanted:
            continue
        try:
            found = weights_hash(place, key="model.weights")
        except RegardError:
            found = ""
        if found != wanted:
            what = "holds other weights than" if found else "is not there any more as it was"
            raise RegardError(
                f"{name}: {place} {what} when the comparison began; bring them back, or begin a new comparison"
            )


def minutes_of(source: str) -> float | None:
    """How long the run that weights are of was trained, as its summary says; None where nothing says it."""
    with suppress(RegardError, KeyError, TypeError, ValueError):
        seconds = float(read_json(_folder(place_of(source)) / "summary.json")["seconds"])
        return seconds / 60 if seconds > 0 else None
    return None


def _folder(place: str) -> Path:
    """The run: the folder, or that of the file."""
    path = Path(place.removeprefix(LOCAL))
    return path.parent if path.is_file() else path


def _metadata(place: str) -> dict[str, object]:
    with suppress(RegardError, TypeError, ValueError):
        return dict(read_json(_folder(place) / "metadata.json"))
    return {}


def _class_names(place: str) -> list[object]:
    names = _metadata(place).get("class_names")
    return names if isinstance(names, list) else []


def _config(place: str) -> dict[str, object]:
    model = _metadata(place).get("model")
    config = model.get("config") if isinstance(model, dict) else None
    return config if isinstance(config, dict) else {}
