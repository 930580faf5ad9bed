"""The weights that a recipe starts from: names and hashes in the place of `auto`, and the same file on resuming."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from regard.errors import RegardError
from regard.models import ViTConfig
from regard.recipes import Recipe
from regard.weights import AUTO, choose_weights, weights_hash

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
    return recipe if not changes else recipe.model_copy(update={"model": model.model_copy(update=changes)})
