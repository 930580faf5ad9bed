"""What a pre-training saves in labels: measured by short trainings, and written beside the run."""

import json

import pytest
from PIL import Image

from regard import RegardError
from regard.compare import label_efficiency as efficiency
from regard.recipes import PretrainingRecipe, load_recipe
from regard.tasks import PretrainingTask, linear_head
from regard.training import Run, train

SETTINGS = (
    "model.depth=1",
    "model.in_chans=1",
    "train.max_steps=2",
    "train.max_minutes=none",
    "train.batch_size=8",
    "pretrain.method=mae",
)


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(efficiency, "LABELS", (1, 3))
    monkeypatch.setattr(efficiency, "DRAWS", 2)


@pytest.fixture
def run(tmp_path):
    recipe = load_recipe("vit-digits", SETTINGS, task="pretraining")
    train(recipe, tmp_path / "run")
    return Run(tmp_path / "run")


def test_every_training_has_its_score_and_none_is_done_twice(run, few, monkeypatch):
    found = efficiency.measure(run, steps=1)
    assert found["labels"] == [1, 3]
    assert [curve["name"] for curve in found["curves"]] == ["pre-trained", "from scratch"]
    for curve in found["curves"]:
        assert [len(draws) for draws in curve["scores"]] == [2, 2]
        assert all(0 <= score <= 1 for draws in curve["scores"] for score in draws)
    assert json.loads((run.path / efficiency.FILE).read_text())["scores"] == found["scores"]
    assert not (run.path / efficiency.FOLDER).exists()
    monkeypatch.setattr(efficiency, "_score", None)  # which would fail if it were called
    assert efficiency.measure(run, steps=1)["scores"] == found["scores"]
    assert any(line.startswith("accuracy by labels a class, pre-trained: 1: 0.") for line in efficiency.lines(found))


def test_a_linear_head_on_the_teacher_has_no_more_labels_than_the_students(tmp_path, few, monkeypatch):
    for place in range(30):  # files, whose source selects images in a way of its own
        folder = tmp_path / "images" / str(place % 2)
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 8 * place).save(folder / f"{place}.png")
    data = ("data.val_fraction=0.2", f"data.address=folder:{tmp_path / 'images'}")
    small = ("model.depth=1", "model.in_chans=1", "train.max_steps=2", "train.max_minutes=none", *data)
    train(load_recipe("vit-digits", small), tmp_path / "teacher")
    taught = (*small, f"pretrain.teacher={tmp_path / 'teacher'}", "features.views=1")
    task = PretrainingTask(load_recipe("vit-digits", taught, task="pretraining"))
    known = []

    def head(features, labels, asked, num_classes):
        known.append(labels.tolist())
        return linear_head(features, labels, asked, num_classes)

    monkeypatch.setattr(efficiency, "linear_head", head)
    efficiency._of_teacher(task)
    assert [sorted(labels) for labels in known] == [[0, 1]] * 2 + [[0, 0, 0, 1, 1, 1]] * 2


def test_a_training_begins_from_the_run_with_so_many_labels(run):
    recipe = run.recipe()
    assert isinstance(recipe, PretrainingRecipe)
    tuned = efficiency._fine_tuning(recipe, run.path, 3, 1)
    assert (tuned.data.per_class, tuned.data.per_class_seed, tuned.model.weights) == (3, 1, str(run.path))
    assert efficiency._fine_tuning(recipe, None, 3, 1).model.weights is None


def test_images_without_labels_are_said(tmp_path, monkeypatch):
    task = PretrainingTask(load_recipe("vit-digits", SETTINGS, task="pretraining"))
    efficiency.require_labels(task)
    monkeypatch.setattr(PretrainingTask, "has_labels", False)
    with pytest.raises(RegardError, match="--label-efficiency: the images of digits have no labels"):
        efficiency.require_labels(task)
