"""`regard compare` and `regard demo`."""

import shlex
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from regard.cli.tables import right, show
from regard.cli.train import Settings

DEMO_RECIPE = "vit-digits"


def compare(
    mixers: Annotated[
        str, typer.Option(help="Names of mixers with commas between, or `all` (see `regard mixers`).")
    ] = "all",
    data: Annotated[str | None, typer.Option(help="A data address: digits, folder:PATH, torchvision:NAME.")] = None,
    recipe: Annotated[str, typer.Option(help="What is trained with each mixer.")] = DEMO_RECIPE,
    seeds: Annotated[int, typer.Option(help="Runs a mixer.")] = 1,
    out: Annotated[Path | None, typer.Option(help="The folder to make (runs/compare-N unless given).")] = None,
    settings: Settings = None,
) -> None:
    """Train the same model with several token mixers, alike, and report accuracy and cost."""
    _compare(mixers, data, recipe, seeds, out, settings, title="Which token mixer?")


def demo(
    out: Annotated[Path | None, typer.Option(help="The folder to make (runs/demo-N unless given).")] = None,
    settings: Settings = None,
) -> None:
    """Train a small encoder with each of the eight mixers on real handwritten digits, and report."""
    from regard.training import default_run_folder

    _compare("all", None, DEMO_RECIPE, 1, out or default_run_folder("demo"), settings, title="Eight ways to mix tokens")


def _compare(
    mixers: str, data: str | None, recipe: str, seeds: int, out: Path | None, settings: list[str] | None, title: str
) -> None:
    from regard.compare import compare as run_comparison
    from regard.compare import write_report
    from regard.mixers import MIXERS
    from regard.recipes import load_recipe
    from regard.training import default_run_folder

    names = list(MIXERS) if mixers == "all" else [name.strip() for name in mixers.split(",") if name.strip()]
    folder = out or default_run_folder("compare")
    contenders = run_comparison(load_recipe(recipe, settings or (), address=data), names, seeds, folder)
    report = folder / "report.html"
    command = ["regard", "compare", "--mixers", ",".join(names), "--recipe", recipe, "--seeds", str(seeds)]
    command += [] if data is None else ["--data", data]
    command += [part for setting in settings or () for part in ("--set", setting)]
    write_report(report, title=title, contenders=contenders, command=shlex.join(command))

    table = Table("mixer", *(right(name) for name in ("accuracy", "parameters", "MFLOP", "µs/image", "peak MB", "s")))
    for found in contenders:
        accuracy = sum(found.accuracies) / len(found.accuracies)
        cost = found.cost
        table.add_row(
            found.name,
            f"{accuracy:.1%}",
            f"{found.parameters:,}",
            f"{found.flops / 1e6:.2f}",
            "" if cost is None else f"{cost.seconds_per_image * 1e6:.0f}",
            "" if cost is None else f"{cost.peak_memory_mb:.1f}",
            f"{found.training_seconds:.0f}",
        )
    show(table)
    typer.echo("accuracy on held-out images; µs/image of inference; peak MB of a training step; s of training")
    typer.echo(f"report: {report}")
