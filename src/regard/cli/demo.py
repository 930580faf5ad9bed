"""`regard demo`."""

import math
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from regard.cli.compare import run_comparison, statuses
from regard.cli.terminal import say
from regard.cli.train import Device, Settings, with_device, words
from regard.errors import RegardError

if TYPE_CHECKING:
    from regard.api.demo import Demo

RECIPE = "vit-digits"
MIXERS = ("attention", "conv", "fourier")
SEEDS = 3
DETECTOR_RECIPE = "detr-small"


class Budget(NamedTuple):
    """How long the demo trains."""

    epochs: int
    """Of each mixer and seed."""
    detector_minutes: float
    detector: tuple[str, ...] = ()
    """Further settings of the detector."""


# On two cores: five minutes in all, evaluating and drawing included; and with --full ten.
SHORT = Budget(10, 1.5)
FULL = Budget(40, 4.0)


def demo(
    out: Annotated[Path | None, typer.Option(help="The folder to make (runs/demo-N unless given).")] = None,
    full: Annotated[
        bool, typer.Option("--full", help="Train until it is good: ten minutes in the place of five.")
    ] = False,
    open_browser: Annotated[
        bool, typer.Option("--open/--no-open", help="Open the page in a browser where there is a screen.")
    ] = True,
    detector_minutes: Annotated[
        float | None,
        typer.Option(metavar="MINUTES", help="How long the detector may train; 0 leaves the third part out."),
    ] = None,
    settings: Settings = None,
    device: Device = None,
) -> None:
    """Make a page with three looks at Regard: a ViT's map over a photograph, three mixers compared, a detector.

    The page is there within a minute and grows part by part. --set is of the second part.
    """
    budget = FULL if full else SHORT
    minutes = budget.detector_minutes if detector_minutes is None else detector_minutes
    if not 0 <= minutes < math.inf:
        raise RegardError(
            f"demo: --detector-minutes is {minutes:g}; it must be a number of minutes, or 0 for no detector"
        )
    from regard.api.comparing import Comparison
    from regard.api.demo import Demo
    from regard.cli.browser import open_page
    from regard.recipes import load_recipe
    from regard.training import default_run_folder

    settings = [f"train.epochs={budget.epochs}", *(settings or [])]
    recipe = load_recipe(RECIPE, with_device(settings, device))
    options = shlex.split(words([], None, settings, device))
    with statuses():
        comparison = Comparison(recipe, list(MIXERS), SEEDS, out or default_run_folder("demo"))
        made = Demo(comparison, with_detector=minutes > 0)
        made.begin(RECIPE, options)
    say(f"page: {made.page.resolve()}", "it grows, part by part; a browser reads it again by itself")
    with made.keeping():
        for number, line in enumerate(made.look(device)):
            say(line)
            if not number and open_browser:
                open_page(made.page)
        with statuses():
            made.compare(lambda: run_comparison(comparison, RECIPE, options))
        if minutes:
            _detect(made, minutes, budget.detector, device)
    comparison.require_report()
    say(f"{made.page} is whole: {len(made.opening.parts)} parts")


def _detect(made: "Demo", minutes: float, more: tuple[str, ...], device: str | None) -> None:
    """Trains the detector, and says how good it is."""
    from regard.recipes import load_recipe

    settings = [f"train.max_minutes={minutes:g}", *more]
    recipe = load_recipe(DETECTOR_RECIPE, with_device(settings, device))
    say(f"now a detector, for {minutes:g} minutes", err=True)
    command = words(["regard", "train", DETECTOR_RECIPE], None, settings, device)
    report, summary = made.detect(DETECTOR_RECIPE, recipe, command)
    say(
        f"detector: AP {summary['ap']:.3f}, AP50 {summary['ap50']:.3f} on held-out scenes",
        f"report: {report}",
    )
