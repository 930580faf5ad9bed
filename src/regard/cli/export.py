"""`regard export`: a run as a file for another engine, verified."""

from pathlib import Path
from typing import Annotated

import typer

from regard.cli.terminal import say
from regard.cli.text import Weights
from regard.cli.use import AsJson, RunArgument
from regard.errors import RegardError
from regard.files import json_text

REJECTED = 3  # the exit status where a file does not answer as its run does


def export(
    run: RunArgument = "",
    to: Annotated[str, typer.Option(metavar="onnx|openvino|pt2", help="What the file is for.")] = "onnx",
    precision: Annotated[
        str,
        typer.Option(metavar="fp32|bf16|int8|auto", help="bf16 is for openvino; auto: the fastest here that passes."),
    ] = "fp32",
    size: Annotated[
        str | None,
        typer.Option(metavar="224|480x640|dynamic", help="Pixels, HEIGHTxWIDTH; the run's own unless given."),
    ] = None,
    batch: Annotated[str, typer.Option(metavar="dynamic|N", help="Images that the file takes at once.")] = "dynamic",
    pixels: Annotated[
        str, typer.Option(metavar="auto|uint8|float", help="uint8: normalisation is in the file; float: it is not.")
    ] = "auto",
    calibrate: Annotated[int, typer.Option(metavar="N", help="Training images that int8 is calibrated with.")] = 300,
    max_drop: Annotated[
        float, typer.Option(help="Points of accuracy (of AP, of F1) that the file may lose.", min=0, max=100)
    ] = 0.5,
    weights: Weights = "model",
    data: Annotated[
        str | None, typer.Option(help="Other images to verify it on; the run's own held-out images unless given.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="A new folder, or a file; RUN/export-ENGINE-PRECISION unless given."),
    ] = None,
    snippet: Annotated[
        bool, typer.Option("--snippet", help="Print a reader of the file that needs no PyTorch, and write nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write a run as one file, and verify that it answers as the run does; status 3 where it does not."""
    if snippet:
        from importlib.resources import files

        typer.echo((files("regard.export") / "reader.py").read_text(encoding="utf-8"), nl=False)
        return
    if not run:
        raise RegardError("export: name a run")
    from regard.api import export_model

    exported = export_model(
        run,
        to,
        out,
        precision=precision,
        size=size,
        batch=batch,
        pixels=pixels,
        max_drop=max_drop,
        weights=weights,
        data=data,
        calibrate=calibrate,
    )
    report = exported.report
    if as_json:
        say(json_text({**report.to_dict(), "file": str(exported.file)}, indent=2))
    for message in report.warnings:
        say(f"warning: {message}", err=True)
    if not as_json and report.passed:
        largest = max((one["largest_difference"] for one in report.parity), default=0.0)
        near = largest <= exported.report.tolerance
        told = "answers as the run does" if near else f"keeps the run's {exported.report.metric}"
        say(f"{exported.file}: {told} (largest difference {largest:.1e})")
        if report.before is not None and report.after is not None and report.agreement is not None:
            say(
                f"{report.metric} {100 * report.before:.2f}% before, {100 * report.after:.2f}% after on "
                f"{report.images:,} {report.images_are} images; {100 * report.agreement:.2f}% of answers are the same"
            )
        if report.way is not None and report.calibration is not None:
            say(f"int8 by {report.way}, calibrated with {report.calibration['images']} training images")
        if to != "pt2":
            say(f"use it: regard predict {exported.file} IMAGES; without PyTorch: regard export --snippet")
    if not report.passed:
        layer = (
            f"; the first layer that differs: {report.first_deviating_layer}" if report.first_deviating_layer else ""
        )
        say(f"error: {exported.file}: is rejected: {report.faults[0]}{layer}", err=True)
        raise typer.Exit(REJECTED)
