"""Who takes part in a comparison: mixers and models by name, and which of them can serve a recipe at all."""

from collections.abc import Mapping, Sequence

import torch
from pydantic import ValidationError

from regard.errors import RegardError, unknown
from regard.mixers import MIXERS, options_for
from regard.models import PRESETS, SASAResNetConfig
from regard.recipes import Recipe, parse_recipe
from regard.tasks import create_task

# Samples of the batch that a contender is tried on: enough that sequences of several lengths come together.
TRIAL_SIZE = 8


def variant(recipe: Recipe, name: str, seed: int) -> Recipe:
    """The recipe with the mixer `name` in its model, or with the preset `name` as its model, and another seed.

    Raises RegardError for a name that is neither, and for a model of another task.
    """
    values = {**recipe.to_dict(), "seed": seed}
    config = recipe.model.config()
    if name in MIXERS:
        if not hasattr(config, "mixer"):
            raise RegardError(f"{name}: unknown key 'model.mixer': {recipe.model.name} has no token mixer to replace")
        values["model"] = {**values["model"], "mixer": name}
        if not hasattr(config, "decoder_mixer"):
            values["model"]["mixer_options"] = dict(options_for(name, values["model"].get("mixer_options", {})))
    elif name not in PRESETS:
        raise unknown("mixer", name, [*MIXERS, *(preset for preset in PRESETS if _suits(recipe, preset))])
    elif name != recipe.model.name:
        # Another model sees the same images.
        same = {key: getattr(config, key) for key in ("img_size", "in_chans") if hasattr(config, key)}
        values["model"] = {"name": name, **{key: value for key, value in same.items() if hasattr(PRESETS[name], key)}}
    try:
        return parse_recipe(values)
    except ValidationError as error:
        raise RegardError(f"{name}: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from None


def try_out(recipe: Recipe) -> None:
    """Builds the recipe's model and runs it on a few training samples: what cannot serve says so now.

    RegardError where it can't: a mixer without a causal form, one that honours no padding, an option out of range.
    """
    few = recipe.train.model_copy(update={"batch_size": TRIAL_SIZE, "accumulate": 1})
    task = create_task(
        recipe.model_copy(update={"train": few, "data": recipe.data.model_copy(update={"num_workers": 0})})
    )
    model = task.build_model()
    batch = next(iter(task.training_loader(task.order(rank=0, world_size=1))))
    if len(batch):
        try:
            with torch.no_grad():
                task.loss(model, batch)
        except RegardError as error:
            raise RegardError(f"{error} (tried on a batch of {len(batch)} {task.unit})") from None


def all_candidates(recipe: Recipe) -> tuple[list[str], dict[str, str]]:
    """All that can be compared under a recipe; and those left out, each with the reason.

    For images that is every mixer, or for a ResNet those that differ in their spatial layers alone. For boxes and for
    sequences, every mixer that can serve, and the presets of the task that have no mixer in them, as baselines. Raises
    RegardError where the recipe cannot be trained even as it is.
    """
    if recipe.task == "classification":
        own = recipe.model.config()
        return (_alike(own) if isinstance(own, SASAResNetConfig) else list(MIXERS)), {}
    try_out(recipe)
    baselines = [name for name in PRESETS if _suits(recipe, name) and not hasattr(PRESETS[name], "mixer")]
    names, left_out = [], {}
    for name in (*MIXERS, *baselines):
        try:
            try_out(variant(recipe, name, recipe.seed))
            names.append(name)
        except RegardError as error:
            left_out[name] = str(error)
    return names, left_out


def _alike(config: SASAResNetConfig) -> list[str]:
    """The presets of ResNets that are like this one, convolutions aside."""
    known = {name: preset for name, preset in PRESETS.items() if isinstance(preset, SASAResNetConfig)}
    shape = (config.depths, config.embed_dim, config.stem)
    return [name for name, preset in known.items() if (preset.depths, preset.embed_dim, preset.stem) == shape]


def left_out_message(left_out: Mapping[str, str]) -> str:
    """Who was left out and why, those of one reason together; "" where nobody was."""
    reasons: dict[str, list[str]] = {}
    for name, reason in left_out.items():
        # A reason names its mixer first.
        reasons.setdefault(reason.removeprefix("mixer ").removeprefix(f"{name}: "), []).append(name)
    told = "; ".join(f"{', '.join(names)}: {reason}" for reason, names in reasons.items())
    return f"Left out, since they cannot serve: {told}." if told else ""


def check_names(names: Sequence[str]) -> None:
    """RegardError for nobody, and for one named twice."""
    if not names or len(set(names)) < len(names):
        raise RegardError(f"compare: name each mixer once, and at least one; got {', '.join(names) or 'none'}")


def _suits(recipe: Recipe, preset: str) -> bool:
    """Whether a preset is a model for the recipe's task."""
    try:
        parse_recipe({**recipe.to_dict(), "model": {"name": preset}})
    except (ValidationError, RegardError):
        return False
    return True
