"""The `regard` command: its sub-commands, and what becomes of errors."""

import sys
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from typer.core import TyperGroup

import regard
from regard.cli import about, compare, text, train, use, weights
from regard.errors import RegardError


class _Commands(TyperGroup):
    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # here, since typer would make it an exit without a word
            _fail("interrupted; `regard train --resume RUN` goes on from a run's last state", 130)


app = typer.Typer(
    name="regard",
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(compare.demo)
app.command()(train.train)
app.command()(use.evaluate)
app.command()(use.predict)
app.command()(use.explain)
app.command()(text.generate)
app.command()(compare.compare)
app.command()(weights.convert)
app.command()(weights.push)
app.command()(about.models)
app.command()(about.mixers)
app.command()(about.recipes)
app.add_typer(about.data, name="data")
app.command()(about.doctor)


def _version(wanted: bool) -> bool:
    if wanted:
        typer.echo(f"regard {regard.__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Tell the version.")
    ] = False,
) -> None:
    """Self-attention for vision: train, compare and look into models with any token mixer."""


def main() -> None:
    """Runs the command line. What the user can mend is one line on stderr and exit status 1; a usage error is 2."""
    try:
        app(prog_name="regard")
    except RegardError as error:
        _fail(str(error), 1)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _fail(f"{where}{error.strerror or error}", 1)


def _fail(message: str, status: int) -> NoReturn:
    console = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)
    console.print(f"[bold red]error:[/] {_escaped(message)}")
    sys.exit(status)


def _escaped(message: str) -> str:
    from rich.markup import escape

    return escape(" ".join(message.split()))
