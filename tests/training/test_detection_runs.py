"""Detectors through the one training loop: the backbone's rate, resume to the bit, checks, what is learned."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from regard import evaluate, load
from regard.data import Issue
from regard.errors import RegardError
from regard.recipes import DetectionTrainSection, Recipe, load_recipe
from regard.tasks import DetectionTask
from regard.training import Run, train
from regard.training.optim import create_optimizer

SMALL = (
    *("model.embed_dim=32", "model.num_heads=4", "model.depth=1", "model.num_queries=7", "data.first=12"),
    *("data.shortest=64", "data.longest=64", "train.max_steps=4", "train.batch_size=4", "train.device=cpu"),
)


def recipe(*settings: str) -> Recipe:
    return load_recipe("detr-digit-scenes", [*SMALL, *settings])


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "whole"
    train(recipe("train.ema_decay=0.9", "train.save_every_steps=1", "data.validate_on=train"), folder)
    return folder


def test_the_backbone_learns_at_its_own_rate():
    model = torch.nn.ModuleDict({"backbone": torch.nn.Conv2d(3, 5, 1), "head": torch.nn.Linear(5, 7)})
    model["backbone"].bias.requires_grad_(False)
    groups = create_optimizer(model, DetectionTrainSection(epochs=1, lr=1e-2, backbone_lr=1e-3)).param_groups
    shares = {id(parameter): group["share"] for group in groups for parameter in group["params"]}
    assert shares[id(model["backbone"].weight)] == pytest.approx(0.1)
    assert shares[id(model["head"].weight)] == shares[id(model["head"].bias)] == 1
    assert id(model["backbone"].bias) not in shares  # frozen


def test_the_rates_of_a_run(tmp_path):
    """A step of the backbone is a hundred times smaller, and so is what it changes."""
    changes = []
    for rate in ("1e-3", "1e-5"):
        folder = tmp_path / rate
        train(recipe("train.max_steps=1", "train.lr=1e-3", f"train.backbone_lr={rate}", "train.warmup=0"), folder)
        after = load_file(folder / "model.safetensors")
        torch.manual_seed(0)
        before = DetectionTask(recipe()).build_model().state_dict()
        name = next(name for name in before if name.startswith("backbone.") and before[name].ndim == 4)
        changes.append((after[name] - before[name]).abs().max().item())
    assert 50 < changes[0] / changes[1] < 200


def test_a_resumed_run_ends_with_the_same_weights_to_the_bit(finished, tmp_path):
    settings = ("train.ema_decay=0.9", "train.save_every_steps=1", "data.validate_on=train")
    folder = tmp_path / "cut"
    train(recipe(*settings), folder)
    wanted = load_file(finished / "model.safetensors")
    # As if it had been killed after its second step.
    state = folder / "state"
    kept = sorted(path.name for path in state.iterdir())
    assert kept
    other = tmp_path / "resumed"
    part = recipe(*settings)
    short = part.model_copy(update={"train": part.train.model_copy(update={"max_steps": 4})})
    stop = _Stop(2)
    with pytest.raises(KeyboardInterrupt):
        train(short, other, bar=stop)
    train(Run(other).recipe(), other, resume=True)
    found = load_file(other / "model.safetensors")
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert torch.equal(found[name], tensor), name


def _Stop(after: int):  # noqa: N802 (stands for a class of its own)
    from regard.training.progress import Bar

    class Stop(Bar):
        steps = 0

        def update(self, share: float, text: str) -> None:
            self.steps += bool(text)
            if self.steps > after:
                raise KeyboardInterrupt

    return Stop(visible=False)


def test_what_a_run_keeps_is_enough_to_predict(finished):
    detector = load(finished)
    images = [torch.randint(0, 256, (3, 61, 89), dtype=torch.uint8), torch.zeros(3, 97, 53, dtype=torch.uint8)]
    found = detector.predict(images, threshold=0.0)
    for answer, image in zip(found, images, strict=True):
        height, width = image.shape[1:]
        assert len(answer.names) == len(answer.labels) == len(answer.scores) == 7
        left, top, right, bottom = answer.boxes_xyxy.unbind(1)
        assert (left >= 0).all()
        assert (top >= 0).all()
        assert (right <= width).all()
        assert (bottom <= height).all()
    metadata = json.loads((finished / "metadata.json").read_text(encoding="utf-8"))
    assert metadata["task"] == "detection"
    assert len(metadata["category_ids"]) == len(metadata["class_names"]) == 10


def test_an_error_in_the_data_stops_a_run_before_it_begins(tmp_path, monkeypatch):
    monkeypatch.setattr(DetectionTask, "check", lambda _: [Issue("error", "a box is inside out", "image 3")])
    with pytest.raises(RegardError, match="image 3: a box is inside out"):
        train(recipe(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_warning_does_not(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(DetectionTask, "check", lambda _: [Issue("warning", "a single class", "the data")])
    summary = train(recipe("train.max_steps=1"), tmp_path / "run")
    assert "warning: the data: a single class" in capsys.readouterr().err
    assert summary["steps"] == 1


def test_evaluation_is_on_the_part_that_the_recipe_says(finished):
    assert len(evaluate(finished)) == 12
    assert len(evaluate(finished, "digit-scenes")) == 12  # its own address


@pytest.mark.shape_checks
def test_bf16_and_accumulation(tmp_path):
    train(recipe("train.precision=bf16", "train.max_steps=2"), tmp_path / "bf16")
    train(recipe("train.accumulate=2", "train.max_steps=2"), tmp_path / "parts")
    for name in ("bf16", "parts"):
        records = [record for record in Run(tmp_path / name).history() if "grad_norm" in record]
        assert len(records) == 2
        assert all(0 < record["loss"] < 100 for record in records)


def test_grouped_by_aspect(tmp_path):
    summary = train(recipe("data.group_by_aspect=true", "train.max_steps=2"), tmp_path / "run")
    assert summary["steps"] == 2


@pytest.mark.slow
def test_it_learns_eight_scenes(tmp_path):
    """A quarter of the recipe's steps: the loss falls, and boxes come to be where objects are."""
    start = load_recipe("detr-overfit", ["train.max_steps=100", "train.device=cpu"])
    summary = train(start, tmp_path / "run")
    losses = [record["loss"] for record in Run(tmp_path / "run").history() if "grad_norm" in record]
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])
    assert summary["ar100"] > 0.05
