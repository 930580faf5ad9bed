"""What `predict` and `evaluate` do with classes of images, one for each image or several."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from regard.cli.tables import csv_text, figures_line, printed, right, show, write_files
from regard.cli.terminal import say

if TYPE_CHECKING:
    from regard.tasks import Evaluation, Prediction

HEADS = {"ap": "AP", "f1": "F1"}


def show_class_evaluation(evaluation: "Evaluation", out: Path | None, *, as_json: bool, as_csv: bool) -> None:
    """The figures of each class, and those of all."""
    figures = {"images": len(evaluation.names), "skipped_images": len(evaluation.skipped), **evaluation.metrics()}
    details = evaluation.details()
    rows: list[dict[str, Any]] = details["per_class"]
    columns = tuple(rows[0])
    whole = {**figures, **details, "confusion": evaluation.confusion().tolist()}
    text = csv_text(columns, rows)
    write_files(out, "evaluation", whole, text)
    if printed(as_json, as_csv, whole, text):
        return
    table = Table("class", *(right(HEADS.get(name, name)) for name in columns[1:]))
    for row in rows:
        table.add_row(*(_cell(value) for value in row.values()))
    show(table)
    if "balanced_accuracy" in details:
        say(f"balanced accuracy {details['balanced_accuracy']:.4f}")
    say(figures_line(figures))


def show_classes(
    answers: Sequence["Prediction"], top: int | None, out: Path | None, *, as_json: bool, as_csv: bool
) -> None:
    """Each image with its most probable classes, `top` of them.

    Where it may have several and no number is asked for: with those that are probable enough; JSON then has the
    probabilities of all.
    """
    if top is None and any(answer.thresholds is not None for answer in answers):
        _show_label_sets(answers, out, as_json=as_json, as_csv=as_csv)
        return
    rows: list[dict[str, Any]] = [
        {"file": answer.name, "class": label, "probability": round(probability, 6)}
        for answer in answers
        for label, probability in answer.top(top or 1)
    ]
    text = csv_text(("file", "class", "probability"), rows)
    write_files(out, "predictions", rows, text)
    if not printed(as_json, as_csv, rows, text) and answers:
        table = Table("file", "class", right("probability"))
        for row in rows:
            table.add_row(row["file"], row["class"], f"{row['probability']:.3f}")
        show(table)


def _show_label_sets(answers: Sequence["Prediction"], out: Path | None, *, as_json: bool, as_csv: bool) -> None:
    whole = [
        {
            "file": answer.name,
            "labels": list(answer.labels),
            "probabilities": {name: round(p, 6) for name, p in answer.top()},
        }
        for answer in answers
    ]
    scores = [[f"{p:.3f}" for p in answer.probabilities_of(answer.labels)] for answer in answers]
    rows = [
        {"file": answer.name, "label": ";".join(answer.labels), "probability": ";".join(own)}
        for answer, own in zip(answers, scores, strict=True)
    ]
    text = csv_text(("file", "label", "probability"), rows)
    write_files(out, "predictions", whole, text)
    if not printed(as_json, as_csv, whole, text) and answers:
        table = Table("file", "classes", right("probability"))
        for answer, own in zip(answers, scores, strict=True):
            table.add_row(answer.name, ", ".join(answer.labels) or "none", ", ".join(own))
        show(table)


def _cell(value: Any) -> str:
    """A figure, which is None where there is nothing to measure it on."""
    return "–" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)
