"""What `predict`, `evaluate` and `data check` do with boxes."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.table import Table

from regard.cli.tables import csv_text, figures_line, printed, right, show, write_files
from regard.cli.terminal import say
from regard.errors import RegardError, first_few

if TYPE_CHECKING:
    from regard.data import Suspect
    from regard.tasks import DataIds, DetectionEvaluation, Detector

COLUMNS = ("file", "class", "score", "left", "top", "right", "bottom")


def predict_boxes(
    detector: "Detector",
    files: Sequence[Path],
    options: Mapping[str, Any],
    ids: "DataIds | None",
    out: Path | None,
    *,
    as_json: bool,
    as_csv: bool,
    unsure: bool,
) -> None:
    """Prints the objects of each image; into `out` go a picture of each, and COCO results as predictions.json.

    options: those of `Detector.predict_files`. unsure: begin with the images that the detector is least sure of.
    With `ids` the results are under the data's own. Without, `image_id` is "count:1" and so on, which no annotation
    file has, so that no tool takes a count for an id; `file_name` says which image it is.
    """
    from regard.tasks import Detections
    from regard.tasks.labelling.uncertainty import answers_of

    if as_json and as_csv:
        raise RegardError("choose one of --json and --csv")
    image_ids: Sequence[int | str] = [f"count:{number}" for number in range(1, len(files) + 1)]
    category_ids = None
    if ids is not None:
        image_ids, by_name_alone = ids.of_files(files)
        category_ids = ids.of_classes(detector.class_names)
        if by_name_alone:
            say(
                f"{ids.where}: {len(by_name_alone)} files are taken for the images of their names, in other folders: "
                f"{first_few(by_name_alone)}",
                err=True,
            )
    stems = Counter(file.stem for file in files)
    rows: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    bad: list[str] = []
    answers: Any = zip(
        range(1, len(files) + 1), files, answers_of(detector, files, options, unsure=unsure), strict=True
    )
    if unsure:
        answers = sorted(answers, key=lambda one: -(one[2][1] or 0.0))
    for number, file, (found, _) in answers:
        if not isinstance(found, Detections):
            bad.append(str(found))
            continue
        rows += _rows(found)
        coco = found.to_coco(image_ids[number - 1], category_ids)
        results += [{**result, "file_name": str(file)} for result in coco]
        if out is not None:
            name = file.stem if stems[file.stem] == 1 else f"{file.stem}-{number}"
            out.mkdir(parents=True, exist_ok=True)
            found.draw(file).save(out / f"{name}-boxes.png")
    text = csv_text(COLUMNS, rows)
    write_files(out, "predictions", results, text)
    if not printed(as_json, as_csv, results, text) and len(bad) < len(files):
        table = Table("file", "class", *(right(name) for name in COLUMNS[2:]))
        for row in rows:
            table.add_row(row["file"], row["class"], *(str(row[name]) for name in COLUMNS[2:]))
        show(table)
        images, least = len(files) - len(bad), detector.least_scores(options["threshold"])
        low, high = min(least), max(least)
        scores = f"score {low:g} or more" if low == high else f"the scores of their classes ({low:.2f} to {high:.2f})"
        say(f"{len(rows)} objects of {scores} in {images} image{'s' * (images != 1)}")
        if out is not None:
            say(f"pictures and COCO results: {out}")
            if ids is None:
                say("their image_id counts the files; --data ADDRESS or --annotations FILE.json gives the data's own")
    if len(results) < len(rows):
        named = f"of classes that {ids.where} does not have" if ids is not None else ""
        say(f"{len(rows) - len(results)} objects are {named}, and not in COCO's results", err=True)
    for message in bad:
        say(f"error: {message}", err=True)
    if bad:
        raise typer.Exit(1)


def word_or_number(text: str) -> Any:
    """What `--nms` and `--threshold` say; the detector knows which words and numbers are allowed."""
    try:
        return float(text)
    except ValueError:
        return text


def score_or_none(text: str) -> float | None:
    """The score that `--threshold` names, None for auto. RegardError for anything else."""
    from regard.tasks.predictor import require_fraction

    if text == "auto":
        return None
    score = word_or_number(text)
    require_fraction("threshold", score)
    return float(score)


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
    evaluation: "DetectionEvaluation", threshold: float | None, out: Path | None, *, as_json: bool, as_csv: bool
) -> None:
    """COCO's figures; of each class its AP, and precision, recall and F1 at its threshold, which the matrix counts at.

    threshold: a score for all classes; None: as the detector reports.
    Into `out` go also detections.json, COCO's results under the data's own ids, and as pictures the confusion matrix
    and the curves.
    """
    from regard.tasks import operating_points

    figures, curves = evaluation.metrics(), evaluation.precision_recall()
    points = operating_points(evaluation, threshold)
    rows = [{**vars(entry), **vars(point)} for entry, point in zip(evaluation.per_class(), points, strict=True)]
    counts: dict[str, Any] = {"images": len(evaluation), "skipped_images": len(evaluation.skipped)}
    if evaluation.max_detections != 100:  # COCO's own number goes without saying
        counts["max_detections"] = evaluation.max_detections
    counts["nms"] = "off" if evaluation.nms is None else evaluation.nms
    confusion = evaluation.confusion(threshold)
    whole = {
        **counts,
        **figures,
        "per_class": rows,
        "confusion_classes": [*evaluation.class_names, "background"],
        "confusion": confusion.tolist(),
        "precision_recall": {
            "recall": [round(value, 2) for value in curves.recall.tolist()],
            "precision": {
                name: [round(value, 4) for value in curve.tolist()] for name, curve in curves.precision.items()
            },
        },
    }
    columns = tuple(rows[0]) if rows else ("name",)
    text = csv_text(columns, rows)
    write_files(out, "evaluation", whole, text)
    if out is not None:
        from regard.explain import confusion_figure, pr_figure, save_png
        from regard.files import json_text, write_whole

        results = json_text(evaluation.coco_results())
        write_whole(out / "detections.json", lambda beside: beside.write_text(results, encoding="utf-8"))
        save_png(confusion_figure(confusion, evaluation.class_names), out / "confusion.png")
        save_png(pr_figure(curves, points), out / "precision-recall.png")
    if printed(as_json, as_csv, whole, text):
        return
    heads = ("AP", "AP50", "images", "objects", "threshold", "precision", "recall", "F1")
    table = Table("class", *(right(name) for name in heads))
    for row in rows:
        counted = str(row["images"]), str(row["objects"])
        at = (shown(row[name]) for name in ("threshold", "precision", "recall", "f1"))
        table.add_row(row["name"], shown(row["ap"]), shown(row["ap50"]), *counted, *at)
    show(table)
    say(figures_line({**counts, **figures}))


def shown(value: float) -> str:
    """A figure of COCO's, which is -1 where there is nothing to measure it on."""
    return "–" if value < 0 else f"{value:.3f}"


def write_suspects(suspects: Sequence["Suspect"], folder: Path, *, err: bool = False) -> None:
    """A picture of each image that a check of data found something odd in."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, suspect in enumerate(suspects, 1):
        suspect.draw().save(folder / f"{number:02d}-{Path(suspect.name).stem}.png")
    say(f"{len(suspects)} picture{'s' * (len(suspects) != 1)} of suspects: {folder}", err=err)
