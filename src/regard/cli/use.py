"""`regard evaluate`, `predict` and `explain`: what is done with a run."""

import csv
import io
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.table import Table

from regard.cli.tables import right, show
from regard.errors import RegardError

RunArgument = Annotated[Path, typer.Argument(help="A run folder.", metavar="RUN")]
OutFolder = Annotated[Path | None, typer.Option("-o", "--out", help="Write files into this folder too.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
AsCsv = Annotated[bool, typer.Option("--csv", help="Print CSV.")]


Weights = Annotated[
    Literal["model", "best"], typer.Option(help="The final weights (model), or those of the best evaluation.")
]


def evaluate(
    run: RunArgument,
    data: Annotated[
        str | None, typer.Option(help="Another data set; the run's own held-out images unless given.")
    ] = None,
    weights: Weights = "model",
    out: OutFolder = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Measure a trained model, class by class."""
    from regard.api import evaluate as evaluate_run

    evaluation = evaluate_run(run, data, weights=weights)
    figures = {"images": len(evaluation.labels), "skipped_images": len(evaluation.skipped), **evaluation.metrics()}
    rows = [vars(entry) for entry in evaluation.per_class()]
    whole = {**figures, "per_class": rows, "confusion": evaluation.confusion().tolist()}
    text = _csv(("name", "precision", "recall", "f1", "images"), rows)
    _write(out, "evaluation", whole, text)
    if _printed(as_json, as_csv, whole, text):
        return
    table = Table("class", *(right(name) for name in ("precision", "recall", "F1", "images")))
    for entry in evaluation.per_class():
        table.add_row(entry.name, f"{entry.precision:.3f}", f"{entry.recall:.3f}", f"{entry.f1:.3f}", str(entry.images))
    show(table)
    typer.echo(", ".join(f"{k} {v:.4f}" if isinstance(v, float) else f"{k} {v}" for k, v in figures.items()))


def predict(
    run: RunArgument,
    files: Annotated[list[Path], typer.Argument(help="Image files, or folders of them.")],
    top: Annotated[int, typer.Option(help="How many classes to name for each image.", min=1)] = 1,
    weights: Weights = "model",
    out: OutFolder = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Name the class of each image. One that cannot be read is named on stderr; the others are done all the same."""
    from regard.api import load
    from regard.tasks import Prediction

    answers: list[Prediction] = []
    bad: list[str] = []
    for answer in load(run, weights=weights).predict_files(_image_files(files)):
        if isinstance(answer, Prediction):
            answers.append(answer)
        else:
            bad.append(str(answer))
    rows: list[dict[str, Any]] = [
        {"file": answer.name, "class": label, "probability": round(probability, 6)}
        for answer in answers
        for label, probability in answer.top(top)
    ]
    text = _csv(("file", "class", "probability"), rows)
    _write(out, "predictions", rows, text)
    if not _printed(as_json, as_csv, rows, text):
        table = Table("file", "class", right("probability"))
        for row in rows:
            table.add_row(row["file"], row["class"], f"{row['probability']:.3f}")
        show(table)
    for message in bad:
        typer.echo(f"error: {message}", err=True)
    if bad:
        raise typer.Exit(1)


def explain(
    run: RunArgument,
    images: Annotated[list[Path], typer.Argument(help="Image files, or folders of them.")],
    layer: Annotated[
        int | None, typer.Option(help="A block, from 0 (-1 is the last); all of them unless given.")
    ] = None,
    token: Annotated[list[str] | None, typer.Option(help="ROW,COLUMN of a patch, or `class`; may be repeated.")] = None,
    kind: Annotated[
        Literal["matrix", "influence"] | None, typer.Option(help="What to show; the mixing matrix where there is one.")
    ] = None,
    weights: Weights = "model",
    out: Annotated[
        Path, typer.Option("-o", "--out", help="The folder for the pictures, or for one image a .png file.")
    ] = Path(),
) -> None:
    """Draw what tokens take from each other: one PNG an image, NAME-mixing.png."""
    from regard.api import explain as explain_run

    files = _image_files(images)
    stems = Counter(file.stem for file in files)
    if out.suffix.lower() == ".png" and len(files) > 1:
        raise RegardError(f"{out}: is one file for {len(files)} images; name a folder with -o")
    for number, file in enumerate(files):
        name = file.stem if stems[file.stem] == 1 else f"{file.stem}-{number}"
        path = out if out.suffix.lower() == ".png" else out / f"{name}-mixing.png"
        explain_run(run, file, path, layer=layer, tokens=token, kind=kind, weights=weights)
        typer.echo(f"{path}")


def _image_files(paths: list[Path]) -> list[Path]:
    """The files, and the images in the folders; RegardError for a path that is not there or a folder without images."""
    from regard.data import IMAGE_EXTENSIONS

    files: list[Path] = []
    for path in paths:
        if not path.is_dir():
            files.append(path)
            continue
        found = sorted(file for file in path.rglob("*") if file.suffix.lower() in IMAGE_EXTENSIONS)
        if not found:
            raise RegardError(f"{path}: holds no image ({', '.join(sorted(IMAGE_EXTENSIONS))})")
        files += found
    return files


def _printed(as_json: bool, as_csv: bool, whole: Any, rows: str) -> bool:
    """Prints JSON or CSV where one was asked for."""
    if as_json and as_csv:
        raise RegardError("choose one of --json and --csv")
    if as_json:
        typer.echo(json.dumps(whole, indent=2, ensure_ascii=False))
    elif as_csv:
        typer.echo(rows, nl=False)
    return as_json or as_csv


def _write(folder: Path | None, name: str, whole: Any, rows: str) -> None:
    if folder is None:
        return
    from regard.training.files import write_json, write_whole

    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / f"{name}.json", whole)
    write_whole(folder / f"{name}.csv", lambda beside: beside.write_text(rows, encoding="utf-8"))


def _csv(columns: Sequence[str], rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
