"""`regard benchmark`: which engine to use on this machine."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Column, Table

from regard.cli.tables import csv_text, printed, right, show, write_files
from regard.cli.terminal import plain, say
from regard.cli.text import Weights
from regard.cli.use import AsCsv, AsJson, OutFolder
from regard.errors import RegardError

if TYPE_CHECKING:
    from regard.api import Benchmark


def benchmark(
    sources: Annotated[
        list[str], typer.Argument(help="Runs, pretrained models, and files of `regard export`.", metavar="RUN|FILE...")
    ],
    engines: Annotated[
        str | None,
        typer.Option(metavar="torch,optimize,onnx,openvino", help="For runs; those that are installed unless given."),
    ] = None,
    precision: Annotated[
        str | None, typer.Option(metavar="fp32,bf16", help="bf16 only where the processor has instructions for it.")
    ] = None,
    batch: Annotated[str, typer.Option(metavar="N,...", help="Images at once.")] = "1",
    threads: Annotated[int | None, typer.Option(help="Of each contender; PyTorch's number unless given.")] = None,
    turns: Annotated[int, typer.Option(help="How often each contender is timed, in turn with the others.")] = 15,
    end_to_end: Annotated[
        bool, typer.Option("--end-to-end", help="From image files to answers, not from prepared pixels to outputs.")
    ] = False,
    accuracy: Annotated[
        bool, typer.Option("--accuracy/--no-accuracy", help="Measure it too, on the images that the run held out.")
    ] = True,
    data: Annotated[str | None, typer.Option(help="Other images to measure the accuracy on.")] = None,
    weights: Weights = "model",
    out: OutFolder = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Time a run in every engine, or exported files, on this machine, and say which one to use."""
    from regard.api import benchmark as measured

    found = measured(
        sources,
        engines=None if engines is None else _words(engines, "--engines"),
        precisions=None if precision is None else _words(precision, "--precision"),
        batches=[_number(word) for word in _words(batch, "--batch")],
        threads=threads,
        turns=turns,
        end_to_end=end_to_end,
        accuracy=accuracy,
        data=data,
        weights=weights,
        progress=_tell,
    )
    for message in found.warnings:
        say(f"warning: {message}", err=True)
    rows = _rows(found)
    text = csv_text(tuple(rows[0]), rows)
    write_files(out, "benchmark", found.to_dict(), text)
    if not printed(as_json, as_csv, found.to_dict(), text):
        for batch_size in found.verdicts:
            show(_table(found, batch_size))
        for one in found.contenders:
            if one.fault is not None:
                say(f"{one.name}: left out: {one.fault}")
        say(found.sentence)


def _words(text: str, option: str) -> list[str]:
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words:
        raise RegardError(f"{option}: name at least one")
    return words


def _number(word: str) -> int:
    if not word.isdecimal() or not word.isascii():
        raise RegardError(f"--batch {word}: must be numbers such as 1,8")
    return int(word[:9])


def _tell(said: str) -> None:
    """What is done, on a terminal alone: a line that the next one takes the place of."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\x1b[2K{plain(said)[:100]}\r")
        sys.stderr.flush()


def _table(found: "Benchmark", batch: int) -> Table:
    what = "file to answer" if found.end_to_end else "pixels to output"
    metric = next((one.metric for one in found.contenders if one.metric), "")
    heads = ("ms an image", "times as fast", "95%", "first (s)", "MB", *([metric] if metric else []))
    name = Column(f"{what}, {batch} at once", no_wrap=False, min_width=18)
    table = Table(name, *map(right, heads), box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    first = next(one.name for one in found.contenders if batch in one.milliseconds)
    for one in found.contenders:
        if batch not in one.milliseconds:
            continue
        ratio = one.times_as_fast[batch]
        score = "" if one.score is None else f"{100 * one.score:.2f}%"
        table.add_row(
            one.name,
            f"{one.milliseconds[batch]:.3g}",
            f"{ratio.value:.2f}",
            "" if one.name == first else f"{ratio.low:.2f} to {ratio.high:.2f}",
            f"{one.first_answer_seconds:.1f}",
            f"{one.memory_mb:,.0f}",
            *([score] if metric else []),
        )
    return table


def _rows(found: "Benchmark") -> list[dict[str, object]]:
    """A line for each contender and batch."""
    return [
        {
            "contender": one.name,
            "engine": one.engine,
            "precision": one.precision,
            "batch": batch,
            "milliseconds_an_image": one.milliseconds.get(batch),
            "times_as_fast": ratio.value if (ratio := one.times_as_fast.get(batch)) else None,
            "low": ratio.low if ratio else None,
            "high": ratio.high if ratio else None,
            "first_answer_seconds": one.first_answer_seconds,
            "memory_mb": one.memory_mb,
            "metric": one.metric,
            "score": one.score,
            "fault": one.fault,
        }
        for batch in found.verdicts
        for one in found.contenders
    ]
