"""`regard scale`."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Column, Table

from regard.cli.tables import right, show
from regard.cli.terminal import say
from regard.cli.train import Device

if TYPE_CHECKING:
    from regard.compare.scale import Scale


def scale(
    mixers: Annotated[
        str, typer.Option(help="Names of mixers with commas between, or `all` (see `regard mixers`).")
    ] = "all",
    max_tokens: Annotated[int, typer.Option(help="The largest number of tokens; the smallest is 49.")] = 50_176,
    embed_dim: Annotated[int, typer.Option(help="The width of the tokens, in 3 heads.")] = 192,
    step: Annotated[
        str, typer.Option(metavar="forward|training|both", help="What is timed, on one image.")
    ] = "forward",
    seconds: Annotated[
        float,
        typer.Option(help="In all, for all mixers. Where the largest sizes take longer, the curves end before them."),
    ] = 60.0,
    threads: Annotated[int | None, typer.Option(help="Of each process; as PyTorch decides unless given.")] = None,
    device: Device = None,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write all figures.")] = None,
    out: Annotated[Path | None, typer.Option(help="A folder to make, for a page with charts, and the figures.")] = None,
) -> None:
    """Time token mixers alone as images grow, and report how their cost grows and where they cross attention.

    The first curves appear after a few seconds, and get better in rounds until the time is over.
    """
    from regard.api.scaling import scale as measured
    from regard.compare.scale_page import sentences

    options = {"mixers": mixers, "max-tokens": max_tokens, "embed-dim": embed_dim, "step": step, "threads": threads}
    words = [word for key, value in options.items() if value is not None for word in (f"--{key}", str(value))]
    command = shlex.join(["regard", "scale", *words, "--seconds", f"{seconds:g}"])
    first = True

    def improved(found: "Scale") -> None:
        nonlocal first
        if first:
            _show(found)
            say(f"first curves, after {found.spent:.0f} s of {seconds:g}; they get better from here on")
        first = False

    found = measured(
        mixers,
        max_tokens=max_tokens,
        embed_dim=embed_dim,
        step=step,
        seconds=seconds,
        threads=threads,
        device=device,
        out=out,
        json_file=json_file,
        command=command,
        improved=improved,
    )
    _show(found)
    say(*sentences(found))
    if out is not None:
        say(f"page: {out / 'scale.html'}")


def _show(found: "Scale") -> None:
    from regard.compare.scale_page import WORDS, times_table, unit_of

    for step in found.steps:
        heads, rows = times_table(found, step)
        heading = Column(heads[0], no_wrap=True)
        table = Table(
            heading,
            *map(right, heads[1:]),
            title=f"{WORDS[step]}, {unit_of(found, step)[1]}",
            box=SIMPLE_HEAD,
            padding=(0, 1, 0, 0),
        )
        for row in rows:
            table.add_row(*row)
        show(table)
