"""`regard pretrain`: a model learns to see from images without labels."""

from pathlib import Path
from typing import Annotated

import typer

from regard.cli.terminal import say
from regard.cli.train import Device, Settings, named, on_device, process_seconds, told, with_device, words
from regard.errors import RegardError


def pretrain(
    recipe: Annotated[
        str | None,
        typer.Argument(
            help="A shipped recipe of pre-training or of classification, whose model then learns, or a TOML file; "
            "pretrain-photos unless given."
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="A data address of images, or just a path; labels and boxes need not be there."),
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|RUN|self",
            help="What the model learns from: a pretrained model (`regard models`), a run of your own, or the model's "
            "own moving average; DINOv2 unless given.",
        ),
    ] = None,
    start_from: Annotated[
        str | None,
        typer.Option(metavar="RUN|NAME", help="Go on from these weights, with their model, and say whether it paid."),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(help="Wall time, from this command to the report; as the recipe says unless given."),
    ] = None,
    label_efficiency: Annotated[
        bool,
        typer.Option(
            "--label-efficiency",
            help="Then measure what it saves, by trainings on 1 to 100 labels a class. Says its minutes first.",
        ),
    ] = False,
    out: Annotated[Path | None, typer.Option(help="The run folder to make (runs/RECIPE-N unless given).")] = None,
    settings: Settings = None,
    device: Device = None,
    resume: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Go on with a pre-training that was interrupted.")
    ] = None,
) -> None:
    """Pre-train a model on images without labels; any recipe then starts from its run with model.weights=RUN.

    It learns what a frozen teacher sees in the images (distill), or what hidden patches hold (mae, simmim):
    --set pretrain.method=mae.
    """
    from regard.api.chosen import within_minutes
    from regard.api.pretraining import RECIPE, given_options, pretrain_run, start_settings
    from regard.recipes import load_recipe
    from regard.training import Run, resumed_recipe

    not_shown: list[str] = []
    data = None if data is None else named(data, unlabelled=True)
    if resume is not None:
        if recipe or out or minutes or teacher or start_from:
            raise RegardError(
                "pretrain: --resume RUN goes on with the run's own recipe, in its own folder; it takes --data, --set, "
                "--device and --label-efficiency alone"
            )
        resolved = on_device(resumed_recipe(Run.open(resume), settings or (), data), device)
        if resolved.task != "pretraining":
            raise RegardError(f"{resume}: is a run of {resolved.task}; `regard train --resume {resume}` goes on")
        run, summary = pretrain_run(
            "resumed", resolved, resume, resume=True, label_efficiency=label_efficiency, tell=not_shown.append, say=say
        )
        told(run, summary, not_shown)
        return
    name = recipe or RECIPE
    how = ("pretrain.method", "pretrain.teacher")
    says_how = any(setting.partition("=")[0].strip() in how for setting in settings or ())
    before = start_settings(name, teacher, start_from, says_how=says_how)
    resolved = load_recipe(name, [*before, *with_device(settings, device)], address=data, task="pretraining")
    command = words(["regard", "pretrain", name, *given_options(teacher, start_from)], data, settings, device)
    if minutes is not None:
        resolved = within_minutes(resolved, minutes, settings or (), process_seconds())
        command += f" --minutes {minutes:g}"
    run, summary = pretrain_run(
        name, resolved, out, command=command, label_efficiency=label_efficiency, tell=not_shown.append, say=say
    )
    told(run, summary, not_shown)
