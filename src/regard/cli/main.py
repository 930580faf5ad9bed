"""The `regard` command: its sub-commands, and what becomes of errors."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from typer.core import TyperCommand, TyperGroup

import regard
from regard.cli import (
    about,
    benchmark,
    compare,
    data,
    demo,
    explain,
    export,
    features,
    pretrain,
    scale,
    text,
    train,
    use,
    weights,
)
from regard.cli.terminal import drop_output, flush_output, plain, quiet_and_encodable, say
from regard.errors import RegardError, of_the_machine


class _Commands(TyperGroup):
    def make_context(self, *args: Any, **more: Any) -> Any:
        with _plain_usage_errors():
            return super().make_context(*args, **more)

    def invoke(self, ctx: Any) -> Any:
        try:
            with _plain_usage_errors():
                return super().invoke(ctx)
        except KeyboardInterrupt:  # here, since typer would make it an exit without a word
            _fail("interrupted; `regard train --resume RUN` goes on from a run's last state", 130)


class _WithTorch(TyperCommand):
    def invoke(self, ctx: Any) -> Any:
        if sys.stderr.isatty():  # the import takes a second or more: nobody should wonder what is going on
            sys.stderr.write(f"regard {ctx.info_name}: loading PyTorch ...\r")
            sys.stderr.flush()
            import_module("torch")
            sys.stderr.write("\x1b[2K")
        return super().invoke(ctx)


app = typer.Typer(
    name="regard",
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(cls=_WithTorch)(demo.demo)
app.command(cls=_WithTorch)(train.train)
app.command(cls=_WithTorch)(pretrain.pretrain)
app.command(cls=_WithTorch)(use.evaluate)
app.command(cls=_WithTorch)(use.predict)
app.command(cls=_WithTorch)(explain.explain)
app.command(cls=_WithTorch)(text.generate)
app.command(cls=_WithTorch)(features.features)
app.command(cls=_WithTorch)(compare.compare)
app.command(cls=_WithTorch)(scale.scale)
app.command(cls=_WithTorch)(weights.convert)
app.command(cls=_WithTorch)(export.export)
app.command(cls=_WithTorch)(benchmark.benchmark)
app.command()(weights.push)
app.command(cls=_WithTorch)(about.models)
app.command(cls=_WithTorch)(about.mixers)
app.command(cls=_WithTorch)(about.recipes)
app.add_typer(data.data, name="data")
app.command(cls=_WithTorch)(about.doctor)


def _version(wanted: bool) -> bool:
    if wanted:
        say(f"regard {regard.__version__}")
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
    with quiet_and_encodable():
        try:
            try:
                app(prog_name="regard")
            finally:
                flush_output()
        except RegardError as error:
            _fail(str(error), error.status)
        except BrokenPipeError:  # who reads has seen enough, as `head` does
            drop_output()
            sys.exit(1)
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            _fail(f"{where}{error.strerror or error}", 1)
        except (RuntimeError, MemoryError) as error:
            reason = of_the_machine(error)
            if reason is None:
                raise
            _fail(reason, 1)


@contextmanager
def _plain_usage_errors() -> Iterator[None]:
    """What was typed is a part of these errors, which typer prints."""
    try:
        yield
    except Exception as error:
        message = getattr(error, "message", None)
        if isinstance(message, str):
            error.message = plain(message)  # type: ignore[attr-defined]
        raise


def _fail(message: str, status: int) -> NoReturn:
    console = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)
    console.print(f"[bold red]error:[/] {_escaped(message)}")
    sys.exit(status)


def _escaped(message: str) -> str:
    from rich.markup import escape

    return escape(plain(" ".join(message.split())))
