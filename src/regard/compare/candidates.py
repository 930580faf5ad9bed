"""The candidates of a comparison: mixers and models by name, and which of them a recipe can train."""

from collections.abc import Mapping, Sequence

import torch
from pydantic import ValidationError

from regard.compare.aliases import COPY_SEEDS, Alias, place_of
from regard.compare.contender import reason_of
from regard.errors import RegardError
from regard.mixers import MIXERS, options_for
from regard.models import PRESETS, SASAResNetConfig, unknown_model
from regard.recipes import ImageModelSection, Recipe, parse_recipe
from regard.tasks import create_task

# Samples in the batch that a candidate is tried on: enough for sequences of different lengths.
TRIAL_SIZE = 8
OF_WEIGHTS = ("weights", "weights_hash", "reset_head")


def variant(recipe: Recipe, name: str, seed: int) -> Recipe:
    """The recipe with another seed, and with the mixer `name` in its model or the preset `name` as its model.

    A name may be an alias, such as conv@labels=0.1; a copy has seeds of its own. With attention@weights=RUN it begins
    from these, and not from the recipe's own.
    RegardError for a name that is neither, and for a model of another task.
    """
    alias = require_known(recipe, name)
    values = {**recipe.to_dict(), "seed": seed + alias.copy * COPY_SEEDS}
    if alias.labels:
        values["data"] = {**values["data"], "shuffled_labels": alias.labels}
    name = alias.base
    config = recipe.model.config()
    if name in MIXERS:
        if not hasattr(config, "mixer"):
            raise RegardError(f"{name}: unknown key 'model.mixer': {recipe.model.name} has no token mixer to replace")
        values["model"] = {**values["model"], "mixer": name}
        if not hasattr(config, "decoder_mixer"):
            values["model"]["mixer_options"] = dict(options_for(name, values["model"].get("mixer_options", {})))
    elif name != recipe.model.name:
        # The other model gets the same images.
        same = {key: getattr(config, key) for key in ("img_size", "in_chans") if hasattr(config, key)}
        values["model"] = {"name": name, **{key: value for key, value in same.items() if hasattr(PRESETS[name], key)}}
    if alias.weights:
        own = {key: value for key, value in values["model"].items() if key not in OF_WEIGHTS}
        values["model"] = {**own, "weights": place_of(alias.weights)}
    try:
        return parse_recipe(values)
    except ValidationError as error:
        raise RegardError(f"{name}: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from None


def require_known(recipe: Recipe, name: str) -> Alias:
    """What a name says. RegardError for one that is neither a mixer nor a preset, and for labels and weights of tasks
    that have none."""
    alias = Alias.of(name)
    if alias.base not in MIXERS and alias.base not in PRESETS:
        raise unknown_model("mixer", alias.base, MIXERS, then=(preset for preset in PRESETS if _suits(recipe, preset)))
    if alias.labels and recipe.task != "classification":
        raise RegardError(f"{name}: labels are exchanged in classification alone, not in {recipe.task}")
    if alias.weights and not isinstance(recipe.model, ImageModelSection):
        raise RegardError(f"{name}: models of images begin from weights; a recipe of {recipe.task} takes none")
    return alias


def try_out(recipe: Recipe) -> tuple[int, int]:
    """Builds the recipe's model and computes its loss on a few training samples. Returns its parameters, and the
    operations for one sample, by formula.

    RegardError if that fails: a mixer without a causal form or without support for padding, an option out of range.
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
    whole = task.whole(model)
    return sum(parameter.numel() for parameter in whole.parameters()), task.flops(whole)


def all_candidates(recipe: Recipe) -> tuple[list[str], dict[str, str]]:
    """The names of all candidates that a recipe can train; and those left out, each with the reason.

    For images the candidates are all mixers; for a ResNet, the presets that differ only in their spatial layers. For
    boxes and sequences they are all mixers, and as baselines the task's presets without a mixer.
    RegardError if the recipe itself cannot be trained.
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
        except Exception as error:
            left_out[name] = reason_of(error)
    return names, left_out


def _alike(config: SASAResNetConfig) -> list[str]:
    """The presets of ResNets that differ from this one only in their spatial layers."""
    known = {name: preset for name, preset in PRESETS.items() if isinstance(preset, SASAResNetConfig)}
    shape = (config.depths, config.embed_dim, config.stem)
    return [name for name, preset in known.items() if (preset.depths, preset.embed_dim, preset.stem) == shape]


def left_out_message(left_out: Mapping[str, str]) -> str:
    """A sentence on the candidates left out, grouped by reason; "" if there are none."""
    reasons: dict[str, list[str]] = {}
    for name, reason in left_out.items():
        # A reason begins with the name of its mixer.
        reasons.setdefault(reason.removeprefix("mixer ").removeprefix(f"{name}: "), []).append(name)
    groups = "; ".join(f"{', '.join(names)}: {reason}" for reason, names in reasons.items())
    return f"Left out, since the recipe cannot train them: {groups}." if groups else ""


def check_names(names: Sequence[str]) -> None:
    """RegardError for no name, and for a name given twice."""
    if not names or len(set(names)) < len(names):
        raise RegardError(f"compare: name each mixer once, and at least one; got {', '.join(names) or 'none'}")


def _suits(recipe: Recipe, preset: str) -> bool:
    """Whether a preset is a model for the recipe's task."""
    try:
        parse_recipe({**recipe.to_dict(), "model": {"name": preset}})
    except (ValidationError, RegardError):
        return False
    return True
