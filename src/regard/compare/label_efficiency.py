"""What a pre-training saves: accuracy against labels a class, beside training from scratch and the teacher itself."""

import shutil
import statistics
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from regard.data import BadImage, indices_per_class
from regard.errors import RegardError
from regard.files import write_json
from regard.models import ImageModel, build
from regard.reading import read_json
from regard.recipes import ClassificationRecipe, PretrainingRecipe, load_recipe, parse_recipe
from regard.tasks import PretrainingTask, linear_head
from regard.training import Bar, Run, Session, train

FILE, FOLDER = "label_efficiency.json", "label-efficiency"
LABELS, DRAWS = (1, 2, 5, 10, 25, 100), 3
RECIPE = "small-photos"
"""Whose way of training, but for its model and its data, both students learn by."""
STEPS = {1: 100, 2: 100, 5: 150, 10: 250, 25: 300, 100: 600}
PRETRAINED, SCRATCH = "pre-trained", "from scratch"


@dataclass(frozen=True)
class Fit:
    """One training of the student on some labels."""

    name: str
    labels: int
    draw: int


def require_labels(task: PretrainingTask) -> None:
    """RegardError where there are no labels to measure with."""
    if not task.has_labels:
        raise RegardError(
            f"--label-efficiency: the images of {task.data.address} have no labels (or several each); it measures what "
            "labels are worth, with class folders or csv:PATH"
        )


def labels_of(task: PretrainingTask) -> list[int]:
    """The numbers of labels a class that the data have."""
    labels = [label for label in task.data.train.labels if isinstance(label, int)]
    most = max(labels.count(label) for label in set(labels))
    return [number for number in LABELS if number <= most] or [LABELS[0]]


def fits(task: PretrainingTask) -> list[Fit]:
    return [
        Fit(name, number, draw) for number in labels_of(task) for draw in range(DRAWS) for name in (PRETRAINED, SCRATCH)
    ]


def minutes_of(task: PretrainingTask, recipe: PretrainingRecipe) -> float:
    """About how long all trainings take here, by the time of a step on random images."""
    model, tuned = build(task.config), _fine_tuning(recipe, None, 1, 0)
    assert isinstance(model, ImageModel)
    images = torch.randn(tuned.train.batch_size, task.preprocessing.channels, *task.preprocessing.img_size)
    seconds = []
    for _ in range(3):
        began = time.monotonic()
        model.forward_features(images).square().mean().backward()
        seconds.append(time.monotonic() - began)
    steps = sum(STEPS[fit.labels] for fit in fits(task))
    return steps * statistics.median(seconds) / 60


def measure(run: Run, *, bar: Bar | None = None, steps: int | None = None) -> dict[str, Any]:
    """Trains the run's student on few labels, from its weights and from scratch, and writes label_efficiency.json.

    What the file holds already is not trained again. steps: of every training, in the place of `STEPS`. RegardError
    where the data have no labels.
    """
    recipe = run.recipe()
    if not isinstance(recipe, PretrainingRecipe):
        raise RegardError(f"{run.path}: is no run of pre-training")
    task = PretrainingTask(recipe)
    require_labels(task)
    file, began = run.path / FILE, time.monotonic()
    known: dict[str, Any] = read_json(file) if file.exists() else {}
    scores: dict[str, float] = dict(known.get("scores", {}))
    todo = [fit for fit in fits(task) if _key(fit) not in scores]
    shown = bar or Bar(max(len(todo), 1))
    with shown:
        for number, fit in enumerate(todo):
            shown.part(number, f"{fit.name}, {fit.labels} a class, draw {fit.draw + 1}")
            scores[_key(fit)] = _score(run, recipe, fit, shown, steps)
            write_json(file, {"scores": scores, "seconds": known.get("seconds", 0.0) + time.monotonic() - began})
    curves = [_curve(task, scores, name) for name in (PRETRAINED, SCRATCH)]
    if task.teacher is not None:
        curves.append({"name": f"linear head on {recipe.pretrain.teacher}", "scores": _of_teacher(task)})
    found = {
        "labels": labels_of(task),
        "draws": DRAWS,
        "steps": {str(number): steps or STEPS[number] for number in labels_of(task)},
        "seconds": round(known.get("seconds", 0.0) + time.monotonic() - began, 1),
        "curves": curves,
        "scores": scores,
    }
    write_json(file, found)
    return found


def lines(found: dict[str, Any]) -> Iterable[str]:
    """The medians of each curve, one line each."""
    for curve in found["curves"]:
        medians = [statistics.median(draws) for draws in curve["scores"]]
        told = ", ".join(f"{number}: {score:.3f}" for number, score in zip(found["labels"], medians, strict=True))
        yield f"accuracy by labels a class, {curve['name']}: {told}"


def _key(fit: Fit) -> str:
    return f"{fit.name}, {fit.labels}, {fit.draw}"


def _curve(task: PretrainingTask, scores: dict[str, float], name: str) -> dict[str, Any]:
    rows = [[scores[_key(Fit(name, number, draw))] for draw in range(DRAWS)] for number in labels_of(task)]
    return {"name": name, "scores": rows}


def _fine_tuning(recipe: PretrainingRecipe, weights: Path | None, labels: int, draw: int) -> ClassificationRecipe:
    """The shipped recipe of small photographs, for the student of a pre-training and its data."""
    values = load_recipe(RECIPE).to_dict()
    values["model"] = recipe.model.model_dump(exclude={"weights"})
    if weights is not None:
        values["model"] |= {"weights": str(weights), "reset_head": True}
    values["data"] = {**recipe.to_dict()["data"], "per_class": labels, "per_class_seed": draw}
    values["seed"] = draw
    values["train"] = {**values["train"], "device": recipe.train.device}
    found = parse_recipe(values)
    assert isinstance(found, ClassificationRecipe)
    return found


def _score(run: Run, recipe: PretrainingRecipe, fit: Fit, bar: Bar, steps: int | None) -> float:
    """The accuracy on held-out images after one training."""
    tuned = _fine_tuning(recipe, run.path if fit.name == PRETRAINED else None, fit.labels, fit.draw)
    limits = {"max_steps": steps or STEPS[fit.labels], "max_minutes": None, "epochs": None}
    tuned = tuned.model_copy(update={"train": tuned.train.model_copy(update=limits)})
    folder, found = run.path / FOLDER, []

    def keep(session: Session) -> None:
        found.append(session.progress.metrics["accuracy"])

    shutil.rmtree(folder, ignore_errors=True)
    try:
        train(tuned, folder, bar=bar, tested=keep)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return found[0]


def _of_teacher(task: PretrainingTask) -> list[list[float]]:
    """The accuracy of a linear head on the teacher's features of whole images: pooled, and the mean of the patches."""
    lessons: Any = task.lessons
    task.build_model()
    lessons.prepare(standardise=False)
    features = {part: _vectors(lessons, part) for part in ("train", "val")}
    asked, truth = features["val"]
    known, labels = features["train"]
    rows: list[list[float]] = []
    for number in labels_of(task):
        rows.append([])
        for draw in range(DRAWS):
            chosen = indices_per_class(task.data.train, number, draw, task.data.address)
            found = linear_head(known[chosen], labels[chosen], asked, len(task.data.class_names))
            rows[-1].append((found == truth).float().mean().item())
    return rows


def _vectors(lessons: Any, part: str) -> tuple[torch.Tensor, torch.Tensor]:
    source, vectors = lessons.prepared[part], []
    for index in range(len(source)):
        try:
            lesson = lessons.lesson(part, index, 0)
            pooled, pixels = lesson.features[:2]
        except (BadImage, AttributeError):
            raise RegardError(f"{source.name(index)}: cannot be read; leave it out with data.leave_out") from None
        vectors.append(torch.cat([pooled.float(), pixels.float().mean((1, 2))]))
    return torch.stack(vectors), torch.tensor(source.labels)
