"""An evaluation whose figures are not finite: every file of the run is JSON, and the run can go on."""

import json
import math
from pathlib import Path

import pytest

from regard.recipes import load_recipe
from regard.tasks import ClassificationTask
from regard.training import Run, train

TINY = ("model.depth=1", "train.batch_size=256", "train.device=cpu", "train.epochs=3", "train.evaluate_every=1")


def refuse(word: str) -> None:
    raise AssertionError(f"{word} is not JSON")


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_run_goes_on_after_them(monkeypatch, tmp_path, bad):
    metrics, calls = ClassificationTask.metrics, []

    def first_two_are_bad(task, shards):
        calls.append(1)
        found = metrics(task, shards)
        return {**found, "accuracy": bad, "loss": bad} if len(calls) <= 2 else found

    def stops(task, model, batch):
        raise KeyboardInterrupt

    monkeypatch.setattr(ClassificationTask, "metrics", first_two_are_bad)
    loss, evaluate = ClassificationTask.loss, ClassificationTask.evaluate

    def interrupted_in_the_third_epoch(task, *arguments, **options):
        if len(calls) == 2:
            monkeypatch.setattr(ClassificationTask, "loss", stops)
        return evaluate(task, *arguments, **options)

    monkeypatch.setattr(ClassificationTask, "evaluate", interrupted_in_the_third_epoch)
    with pytest.raises(KeyboardInterrupt):
        train(load_recipe("vit-digits", [*TINY, "train.epochs=4"]), tmp_path / "run")
    run = Run(tmp_path / "run")
    text = "".join(file.read_text(encoding="utf-8") for file in sorted(Path(run.path, "state").glob("*/progress.json")))
    assert '"accuracy"' in text
    assert "NaN" not in text
    assert "Infinity" not in text

    monkeypatch.setattr(ClassificationTask, "loss", loss)
    monkeypatch.setattr(ClassificationTask, "evaluate", evaluate)
    summary = train(run.recipe(), run.path, resume=True)
    assert math.isfinite(summary["accuracy"])
    assert math.isfinite(summary["best"]["accuracy"])  # what is not finite was never the best
    for file in (run.metrics_file, run.summary_file):
        lines = file.read_text(encoding="utf-8")
        for line in lines.splitlines() if file == run.metrics_file else [lines]:
            json.loads(line, parse_constant=refuse)
    figures = [record["accuracy"] for record in run.history() if record["kind"] == "val"]
    assert [math.isnan(figure) for figure in figures] == [True, True, False, False]
