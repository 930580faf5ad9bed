"""Pre-training by name; it leaves what `regard pretrain` leaves."""

import json
import logging
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from regard.api.runs import load
from regard.api.settings import resolved_recipe
from regard.errors import RegardError
from regard.files import expanded

if TYPE_CHECKING:
    from regard.recipes import Recipe
    from regard.tasks import Predictor
    from regard.training import Run

_log = logging.getLogger("regard")
RECIPE = "pretrain-photos"


def pretrain(
    recipe: str | Path | None = None,
    data: str | Path | Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    *,
    teacher: str | Path | None = None,
    start_from: str | Path | None = None,
    minutes: float | int | None = None,
    label_efficiency: bool = False,
    device: str | torch.device | None = None,
    **settings: Any,
) -> "Predictor":
    """Teaches a model to see, from images without labels, and returns the predictor of its run.

    `regard.pretrain(data="my-photos")`, then `regard.train("small-photos", data="labelled", weights=RUN)`.
    recipe: a shipped one of pre-training, one of classification, whose model then learns, or a TOML file;
    `pretrain-photos` unless given. data: an address or a bare path; a folder of images without class folders is fine.
    teacher: a name of the catalogue, a run of one's own, whose classes the student learns too, or "self", the model's
    own moving average. start_from: weights to go on from, a run or a name of the catalogue, whose model takes the place
    of the recipe's; with them "self" teaches, unless a teacher or `method` is given.
    label_efficiency: measures afterwards what the pre-training saves in labels, which takes many small trainings.
    out, minutes, device, settings: as in `regard.train`; keys of the section `pretrain` too (`method="mae"`).
    Raises RegardError as `regard.train`, for a teacher that is not there, and for a method that the mixer cannot serve.
    """
    from regard.api.chosen import within_minutes

    name = str(recipe or RECIPE)
    before = start_settings(name, teacher, start_from, says_how=bool({"method", "pretrain"} & set(settings)))
    resolved, options, chosen = resolved_recipe(name, data, device, settings, task="pretraining", before=before)
    if minutes is not None:
        resolved = within_minutes(resolved, minutes, chosen)
        options = [*options, "--minutes", f"{minutes:g}"]
    command = shlex.join(["regard", "pretrain", name, *options, *given_options(teacher, start_from)])
    run, _ = pretrain_run(name, resolved, out, command=command, label_efficiency=label_efficiency)
    return load(run.path, device=device)


def pretrain_run(
    name: str,
    recipe: "Recipe",
    out: str | Path | None,
    *,
    command: str = "",
    resume: bool = False,
    label_efficiency: bool = False,
    tell: Callable[[str], object] = _log.warning,
    say: Callable[[str], object] = _log.warning,
) -> "tuple[Run, dict[str, Any]]":
    """Trains, measures label efficiency where it is asked for, writes the report, and returns the run and its summary.

    tell: shows a line on a report that is not whole; say: a line on label efficiency.
    RegardError, before anything is trained, where label efficiency is asked for and there are no labels.
    """
    from regard.api.training import train_run, write_run_report
    from regard.compare import label_efficiency as efficiency
    from regard.recipes import PretrainingRecipe
    from regard.tasks import PretrainingTask, with_weights_named
    from regard.training import is_main_process

    if label_efficiency:
        named = with_weights_named(recipe)
        assert isinstance(named, PretrainingRecipe)
        task = PretrainingTask(named)
        efficiency.require_labels(task)
        say(
            f"label efficiency: {len(efficiency.fits(task))} short trainings come after the pre-training, about "
            f"{efficiency.minutes_of(task, named):.0f} minutes"
        )
    stem = Path(name).stem
    folder_name = stem if stem.startswith("pretrain") else f"pretrain-{stem}"
    run, summary = train_run(folder_name, recipe, out, command=command, resume=resume, tell=tell)
    if label_efficiency and is_main_process():
        for line in efficiency.lines(efficiency.measure(run)):
            say(line)
        write_run_report(run, title=recipe.title, command=command, tell=tell)
    return run, summary


def given_options(teacher: str | Path | None, start_from: str | Path | None) -> list[str]:
    """`--teacher` and `--start-from` as words of a command."""
    given = (("--teacher", teacher), ("--start-from", start_from))
    return [word for option, value in given if value is not None for word in (option, str(value))]


def start_settings(
    recipe: str, teacher: str | Path | None, start_from: str | Path | None, *, says_how: bool
) -> list[str]:
    """`KEY=VALUE` of the options `--teacher` and `--start-from`: the second brings its own model along.

    says_how: whether another setting says what the images teach; unless any does, the model's moving average goes on.
    """
    found = [] if teacher is None else [f"pretrain.teacher={json.dumps(str(teacher))}"]
    if start_from is None:
        return found
    found += [f"pretrain.start={json.dumps(str(start_from))}"]
    if teacher is None and not says_how:
        found.append('pretrain.teacher="self"')
    return [f"model={_model_of(str(start_from), recipe)}", *found]


def _model_of(source: str, recipe: str) -> str:
    """The model of weights, as an inline table of TOML, for images of about the recipe's size."""
    from regard.models import PRESETS, ViTConfig, config_values
    from regard.recipes import load_recipe, setting_text
    from regard.weights import chosen_pretrained
    from regard.weights.described import config_of

    entry = chosen_pretrained(source)
    if entry is not None:
        values: dict[str, Any] = {"name": entry.model, **entry.config}
        preset = PRESETS.get(entry.model)
        if not isinstance(preset, ViTConfig):
            raise RegardError(f"--start-from {source}: is no ViT, which alone goes on without labels")
        own = load_recipe(recipe, task="pretraining").model.config()
        side = own.img_size if isinstance(own.img_size, int) else max(own.img_size)  # type: ignore[union-attr]
        values["img_size"] = max(round(side / preset.patch_size), 1) * preset.patch_size
        values.pop("num_classes", None)
        return setting_text(values)
    file = expanded(source) / "metadata.json"
    if not file.is_file():
        raise RegardError(f"--start-from {source}: is neither a run nor a name of the catalogue (`regard models`)")
    from regard.reading import read_json

    name, config = config_of(read_json(file), str(file))
    own_values, of_preset = config_values(config), config_values(PRESETS[name])
    changed = {key: value for key, value in own_values.items() if value != of_preset.get(key) and value is not None}
    changed.pop("num_classes", None)
    return setting_text({"name": name, **changed})
