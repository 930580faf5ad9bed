"""The weights that a recipe starts from: names and hashes in the place of `auto`, and the same file on resuming."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from regard.errors import RegardError, nearest
from regard.files import expanded
from regard.models import ViTConfig
from regard.recipes import SELF, PretrainingRecipe, Recipe
from regard.tasks.pretraining.teacher import known_teachers, require_teacher
from regard.weights import AUTO, CATALOGUE, choose_weights, chosen_pretrained, weights_hash

TEACHER = "dinov2_vits14"
_log = logging.getLogger("regard")


@contextmanager
def or_from_scratch(recipe: Recipe) -> Iterator[None]:
    """Within, an error about weights names the recipe that needs none, where there is one."""
    try:
        yield
    except RegardError as error:
        if recipe.otherwise is None:
            raise
        raise RegardError(f"{error}; the recipe {recipe.otherwise} starts from scratch") from None


def with_weights_named(recipe: Recipe) -> Recipe:
    """The recipe with the name and hash of the weights, and the size of images, where it says `auto`.

    RegardError where there are no such weights, and where a name stands for another file than the recipe's hash says.
    """
    model = recipe.model
    changes: dict[str, Any] = {}
    for name, of in (("weights", "name"), ("pretrained_backbone", "backbone")):
        key, said = f"model.{name}", getattr(model, name, None)
        found, wanted = None, getattr(model, f"{name}_hash", None)
        if said == AUTO:
            config = model.config()
            preset = model.name if of == "name" else getattr(config, "backbone", "")
            chosen = choose_weights(preset, key=key, model_key=f"model.{of}", otherwise=recipe.otherwise)
            _log.warning("%s", chosen.note)
            said, found = chosen.name, chosen.hash
            changes |= {name: said, f"{name}_hash": found}
            if isinstance(config, ViTConfig):
                changes["img_size"] = config.img_size
        elif wanted and isinstance(said, str):
            found = weights_hash(said, key=key)
        if wanted and found != wanted:
            raise RegardError(
                f"{key}: {said} is another file than {key}_hash says ({found} instead of {wanted}); bring that file "
                f"back, or begin a new run without {key}_hash"
            )
    named = recipe if not changes else recipe.model_copy(update={"model": model.model_copy(update=changes)})
    return _with_teacher_named(named) if isinstance(named, PretrainingRecipe) else named


def _with_teacher_named(recipe: PretrainingRecipe) -> PretrainingRecipe:
    """The same for the teacher and the start of a pre-training, whose files are pinned from the first step on."""
    options = recipe.pretrain
    changes: dict[str, Any] = {}
    if options.has_teacher and options.teacher in (None, AUTO):
        chosen = choose_weights(
            TEACHER, key="pretrain.teacher", model_key="pretrain.teacher", otherwise=recipe.otherwise
        )
        _log.warning("%s", chosen.note)
        changes |= {"teacher": chosen.name}
    for name in ("teacher", "start"):
        key, said, wanted = (
            f"pretrain.{name}",
            changes.get(name, getattr(options, name)),
            getattr(options, f"{name}_hash"),
        )
        if said is None or said == SELF:
            continue
        if name == "teacher":
            require_teacher(said)
        found = _hash_of(said, key)
        if wanted and found != wanted:
            raise RegardError(
                f"{key}: {said} is not what it was when the run began ({found} instead of {wanted}); bring that back, "
                f"or begin a new run without {key}_hash"
            )
        changes[f"{name}_hash"] = found
    return recipe if not changes else recipe.model_copy(update={"pretrain": options.model_copy(update=changes)})


def _hash_of(source: str, key: str) -> str:
    """The hash of the file behind a name. RegardError that lists what is at hand, where there is none."""
    file = expanded(source)
    if chosen_pretrained(source) is None and not (file.is_file() or (file / "model.safetensors").is_file()):
        near = nearest(source, CATALOGUE)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise RegardError(f"{key}: {source} is neither a run nor a name of the catalogue{hint}; {known_teachers()}")
    try:
        return weights_hash(source, key=key)
    except RegardError as error:
        raise RegardError(f"{key}: {error}; {known_teachers()}") from None
