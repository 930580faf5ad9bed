"""`train.patience`: a training ends when nothing is gained on images that are held out of training for this."""

import pytest
import torch
from safetensors.torch import load_file

import regard.tasks.detection.task as detection
from regard.errors import RegardError
from regard.recipes import load_recipe
from regard.tasks import create_task
from regard.training import Run, train

TINY = (
    *("model.embed_dim=32", "model.num_heads=4", "model.num_queries=7", "model.num_denoising=6", "data.first=24"),
    *("data.shortest=64", "data.longest=64", "train.batch_size=4", "train.device=cpu", "train.precision=fp32"),
    *("data.validate_on=train", "augment.mosaic=0", "train.max_minutes=none", "train.max_steps=12"),
    *("train.evaluate_every_steps=1", "train.save_every_steps=1", "train.patience=3"),
)
SCORES = (0.1, 0.3, 0.2, 0.3, 0.1, 0.9)  # the best is the second; no gain in the third, fourth and fifth


def scored(monkeypatch: pytest.MonkeyPatch, scores: tuple[float, ...], after: int = 0) -> None:
    left = iter(scores[after:])
    monkeypatch.setattr(detection.DetectionTask, "select", lambda self, model: next(left))


def test_it_ends_after_so_many_evaluations_without_a_gain(tmp_path, monkeypatch, capsys):
    scored(monkeypatch, SCORES)
    summary = train(load_recipe("detr-small", TINY), tmp_path / "run")
    assert summary["steps"] == 5
    assert "train.patience: no gain in 3 evaluations, so the training ends at step 5" in capsys.readouterr().err


def test_the_state_keeps_it_to_the_bit(tmp_path, monkeypatch):
    scored(monkeypatch, SCORES)
    train(load_recipe("detr-small", TINY), tmp_path / "whole")
    scored(monkeypatch, (*SCORES[:3],))
    with pytest.raises(StopIteration):  # in the place of a kill before the fourth evaluation
        train(load_recipe("detr-small", TINY), tmp_path / "cut")
    scored(monkeypatch, SCORES, after=3)
    assert train(Run(tmp_path / "cut").recipe(), tmp_path / "cut", resume=True)["steps"] == 5
    wanted, found = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(found[name], tensor) for name, tensor in wanted.items())


def test_it_is_measured_on_a_tenth_of_the_training_images(monkeypatch):
    task = create_task(load_recipe("detr-small", [*TINY, "data.first=40"]))
    assert task.recipe.data.selection == 0.1
    assert len(task.selection_images) == 4
    assert len(task.train) == 36
    assert 0 <= task.select(task.build_model()) <= 1
    fifth = load_recipe("detr-small", [*TINY, "data.selection=0.2"])
    assert len(create_task(fifth).selection_images) == 5
    assert load_recipe("detr-small", [*TINY, "train.patience=none"]).data.selection == 0


def test_the_same_images_do_for_thresholds():
    whole = load_recipe("detr-small", ["data.selection=0.2", "evaluate.calibration=0.2"])
    task = create_task(whole)
    assert task.calibration_images is task.selection_images


def test_texts_have_none():
    with pytest.raises(RegardError, match=r"train\.patience is for classification and detection"):
        load_recipe("seq2seq-numbers", ["train.patience=3"])
