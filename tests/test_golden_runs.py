"""Runs of an earlier version of the package: they load, predict and report as before, resume, and are trained alike.

`golden_runs/README.md` says how they were made.
"""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import regard
from regard.compare import contender, write_report
from regard.data import open_detection, open_images
from regard.recipes import read_recipe
from regard.training import Run, train

GOLDEN = Path(__file__).parent / "golden_runs"
TASKS = ("classification", "detection", "seq2seq", "next_token")
# Sums are rounded differently by processors with other instructions.
PREDICTIONS = {"rtol": 1e-5, "atol": 1e-5}
LOSSES = {"rtol": 1e-3, "atol": 1e-4}


@pytest.fixture(scope="module")
def expected() -> dict[str, torch.Tensor]:
    return load_file(GOLDEN / "predictions.safetensors")


@pytest.fixture(scope="module")
def texts() -> dict[str, object]:
    with safe_open(GOLDEN / "predictions.safetensors", "pt") as file:
        return json.loads(file.metadata()["texts"])


def close(actual: torch.Tensor, wanted: torch.Tensor) -> None:
    torch.testing.assert_close(actual, wanted, **PREDICTIONS)


def losses(run: Path) -> list[float]:
    return [record["loss"] for record in Run(run).history() if record["kind"] == "train"]


def test_a_classifier_predicts_as_before(expected):
    classifier = regard.load(GOLDEN / "classification", device="cpu")
    held_out = open_images("digits", channels=1).val
    answers = classifier.predict([held_out.read(index) for index in range(0, 450, 30)])
    assert len(answers) == 15
    for number, answer in enumerate(answers):
        by_name = dict(zip(answer.class_names, answer.probabilities, strict=True))
        close(torch.tensor([by_name[name] for name in classifier.class_names]), expected[f"classification.{number}"])


def test_a_detector_predicts_as_before(expected):
    detector = regard.load(GOLDEN / "detection", device="cpu")
    held_out = open_detection("digit-scenes").val
    images = [held_out.read(index) for index in (0, 7, 19)]
    # The old code gave 100 objects at most.
    for number, found in enumerate(detector.predict(images, threshold=0.0, max_detections=100)):
        close(found.scores, expected[f"detection.{number}.scores"])
        # Scores that are nearly equal may change places: an object is looked for among all.
        wanted = torch.cat([expected[f"detection.{number}.boxes"], expected[f"detection.{number}.labels"][:, None]], 1)
        actual = torch.cat([found.boxes_xyxy, found.labels[:, None]], 1)
        distances = torch.cdist(actual, wanted, compute_mode="donot_use_mm_for_euclid_dist").amin(1)
        assert (distances < 1e-2).float().mean() >= 0.97  # the hundredth may be another one


def test_a_translator_writes_as_before(expected, texts):
    translator = regard.load(GOLDEN / "seq2seq", device="cpu")
    words = ["vijfhonderdtwaalf", "forty-two", "neunzehn", "trois cents"]
    for beam_size in (1, 3):
        answers = translator.predict(words, beam_size=beam_size)
        assert [answer.text for answer in answers] == texts[f"seq2seq.beam{beam_size}"]
        close(torch.tensor([answer.log_prob for answer in answers]), expected[f"seq2seq.beam{beam_size}"])
    close(translator.alignment("vier")[1].weights, expected["seq2seq.attention"])


def test_a_writer_goes_on_as_before(expected, texts):
    writer = regard.load(GOLDEN / "next_token", device="cpu")
    prompt = "The with statement"
    assert writer.generate(prompt, temperature=0.0, max_new_tokens=20) == texts["next_token.greedy"]
    drawn = writer.generate(prompt, temperature=0.8, top_p=0.9, seed=7, max_new_tokens=20)
    assert drawn == texts["next_token.sampled"]
    text = f"{prompt} is used to wrap the execution of a block with methods defined by a context manager. " * 3
    nats = torch.tensor([writer.evaluate(text).nats], dtype=torch.float64)
    close(nats, expected["next_token.nats"])


def test_the_interrupted_run_resumes(tmp_path):
    """It was killed in its seventh step of ten, with a state of the fifth."""
    run = tmp_path / "run"
    shutil.copytree(GOLDEN / "interrupted", run)
    assert not (run / "summary.json").exists()
    train(read_recipe(run / "recipe.toml"), run, resume=True)
    wanted = load_file(GOLDEN / "interrupted-resumed.safetensors")
    resumed = load_file(run / "model.safetensors")
    assert resumed.keys() == wanted.keys()
    for name, tensor in wanted.items():
        torch.testing.assert_close(resumed[name], tensor, rtol=1e-3, atol=1e-4)  # processors differ
    lines = (GOLDEN / "interrupted-resumed.jsonl").read_text(encoding="utf-8").splitlines()
    never_interrupted = [record["loss"] for record in map(json.loads, lines) if record["kind"] == "train"]
    torch.testing.assert_close(losses(run), never_interrupted, **LOSSES)


@pytest.mark.parametrize("task", TASKS)
def test_a_report_is_written(task, tmp_path):
    run = tmp_path / task
    shutil.copytree(GOLDEN / task, run)
    if task == "detection":  # of its 300 held-out scenes; the report reads them all
        recipe = (run / "recipe.toml").read_text(encoding="utf-8")
        (run / "recipe.toml").write_text(recipe.replace('"val"', '"train"'), encoding="utf-8")
    write_report(run / "report.html", title=task, contenders=[contender(task, [run], with_cost=False)], command="")
    page = (run / "report.html").read_text(encoding="utf-8")
    assert len(page) > 20_000
    assert task in page


@pytest.mark.parametrize("task", TASKS)
def test_ten_steps_have_the_losses_that_they_had(task, tmp_path):
    """The golden curve: order, augmentation, initial weights, schedule and optimiser are what they were."""
    recorded = json.loads((GOLDEN / task / "summary.json").read_text(encoding="utf-8"))
    if task == "next_token" and not sys.version.startswith(recorded["versions"]["python"].rsplit(".", 1)[0] + "."):
        pytest.skip("its text is the manual of another Python")
    train(read_recipe(GOLDEN / task / "recipe.toml"), tmp_path / "run")
    anew = losses(tmp_path / "run")
    assert len(anew) == 10
    torch.testing.assert_close(anew, losses(GOLDEN / task), **LOSSES)


def test_they_stay_small():
    sizes = {task: sum(file.stat().st_size for file in (GOLDEN / task).rglob("*")) for task in (*TASKS, "interrupted")}
    assert sizes.pop("detection") <= 1_000_000
    assert max(sizes.values()) <= 300_000
    assert sum(file.stat().st_size for file in GOLDEN.rglob("*")) <= 3_000_000
