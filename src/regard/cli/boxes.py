"""What `predict`, `evaluate` and `data check` do with boxes."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.table import Table

from regard.cli.tables import csv_text, figures_line, printed, right, show, write_files

if TYPE_CHECKING:
    from regard.data import Suspect
    from regard.tasks import DetectionEvaluation, Detector

COLUMNS = ("file", "class", "score", "left", "top", "right", "bottom")


def predict_boxes(
    detector: "Detector", files: Sequence[Path], threshold: float, out: Path | None, *, as_json: bool, as_csv: bool
) -> None:
    """Prints the objects of each image; into `out` go a picture of each, and COCO results as predictions.json.

    Files have no ids: in COCO's results `image_id` counts them from 1, and `file_name` says which one it is.
    """
    from regard.tasks import Detections

    stems = Counter(file.stem for file in files)
    rows: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    bad: list[str] = []
    for number, (file, found) in enumerate(
        zip(files, detector.predict_files(files, threshold=threshold), strict=True), 1
    ):
        if not isinstance(found, Detections):
            bad.append(str(found))
            continue
        rows += _rows(found)
        results += [{**result, "file_name": str(file)} for result in found.to_coco(number)]
        if out is not None:
            name = file.stem if stems[file.stem] == 1 else f"{file.stem}-{number}"
            out.mkdir(parents=True, exist_ok=True)
            found.draw(file).save(out / f"{name}-boxes.png")
    text = csv_text(COLUMNS, rows)
    write_files(out, "predictions", results, text)
    if not printed(as_json, as_csv, results, text):
        table = Table("file", "class", *(right(name) for name in COLUMNS[2:]))
        for row in rows:
            table.add_row(row["file"], row["class"], *(str(row[name]) for name in COLUMNS[2:]))
        show(table)
        images = len(files) - len(bad)
        typer.echo(f"{len(rows)} objects of score {threshold:g} or more in {images} image{'s' * (images != 1)}")
        if out is not None:
            typer.echo(f"pictures and COCO results: {out}")
    for message in bad:
        typer.echo(f"error: {message}", err=True)
    if bad:
        raise typer.Exit(1)


def _rows(found: Any) -> list[dict[str, Any]]:
    return [
        {
            "file": found.name,
            "class": name,
            "score": round(score, 4),
            **{side: round(value, 1) for side, value in zip(COLUMNS[3:], box, strict=True)},
        }
        for name, score, box in zip(found.names, found.scores.tolist(), found.boxes_xyxy.tolist(), strict=True)
    ]


def show_detection_evaluation(
    evaluation: "DetectionEvaluation", out: Path | None, *, as_json: bool, as_csv: bool
) -> None:
    """COCO's figures and the AP of each class; into `out` go also the confusion matrix and the curves as pictures."""
    figures = evaluation.metrics()
    rows = [vars(entry) for entry in evaluation.per_class()]
    counts = {"images": len(evaluation), "skipped_images": len(evaluation.skipped)}
    confusion = evaluation.confusion()
    whole = {**counts, **figures, "per_class": rows, "confusion": confusion.tolist()}
    columns = ("name", "ap", "ap50", "images", "objects")
    text = csv_text(columns, rows)
    write_files(out, "evaluation", whole, text)
    if out is not None:
        from regard.explain import confusion_figure, pr_figure, save_png

        save_png(confusion_figure(confusion, evaluation.class_names), out / "confusion.png")
        save_png(pr_figure(evaluation.precision_recall()), out / "precision-recall.png")
    if printed(as_json, as_csv, whole, text):
        return
    table = Table("class", *(right(name) for name in ("AP", "AP50", "images", "objects")))
    for row in rows:
        table.add_row(row["name"], shown(row["ap"]), shown(row["ap50"]), str(row["images"]), str(row["objects"]))
    show(table)
    typer.echo(figures_line({**counts, **figures}))


def shown(value: float) -> str:
    """A figure of COCO's, which is -1 where there is nothing to measure it on."""
    return "–" if value < 0 else f"{value:.3f}"


def write_suspects(suspects: Sequence["Suspect"], folder: Path) -> None:
    """A picture of each image that a check of data found something odd in."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, suspect in enumerate(suspects, 1):
        suspect.draw().save(folder / f"{number:02d}-{Path(suspect.name).stem}.png")
    typer.echo(f"{len(suspects)} picture{'s' * (len(suspects) != 1)} of suspects: {folder}")
