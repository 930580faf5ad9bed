"""`regard train --data ADDRESS` and nothing else: what is chosen, said, trained and kept."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import regard
import regard.api.chosen as chosen
from regard.choose import Candidate, Choice, Means, facts_of
from regard.errors import RegardError
from regard.recipes import load_recipe

SMALL = (
    *("model.embed_dim=32", "model.num_heads=4", "model.num_queries=7", "model.num_denoising=6"),
    *("data.shortest=64", "data.longest=64", "train.batch_size=4", "train.device=cpu", "train.precision=fp32"),
    *("data.first=24", "data.validate_on=train"),
)


@pytest.fixture
def sorted_photos(tmp_path: Path) -> Path:
    """Bright and dark images of 24 × 32 pixels, eight of each."""
    for name, value in (("bright", 200), ("dark", 40)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(8):
            pixels = np.full((24, 32, 3), value + number, np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{number}.png")
    return tmp_path / "photos"


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regard.choose.means_here", lambda: Means(dinov2=False, lite0=False))


def test_facts_of_classes(sorted_photos):
    facts = facts_of(f"folder:{sorted_photos}", val_fraction=0.25)
    assert (facts.images, facts.held_out, facts.classes, facts.fewest) == (12, 4, 2, 6)
    assert (facts.height, facts.width, facts.one_size) == (24, 32, True)
    assert facts.sort == "images"


def test_facts_of_boxes():
    facts = facts_of("digit-scenes")
    assert (facts.images, facts.held_out, facts.classes) == (1500, 300, 10)
    assert (facts.height, facts.width) == (128, 128)
    assert 1 <= facts.most_objects <= 20
    lower, middle, upper = facts.pixels_of_objects(128)
    assert 5 < lower < middle < upper < 128


def test_a_bare_folder_is_trained_on(sorted_photos, tmp_path, nothing_installed, caplog):
    choice = regard.choose_recipe(sorted_photos)
    assert (choice.recipe, choice.address) == ("small-images", f"folder:{sorted_photos}")
    tiny = {"train.max_steps": 2, "train.batch_size": 4, "model.depth": 1, "train.device": "cpu"}
    classifier = regard.train(data=str(sorted_photos), out=tmp_path / "run", settings=tiny)
    assert set(classifier.class_names) == {"bright", "dark"}
    assert any("recipe: small-images" in message for message in caplog.messages)
    recipe = load_recipe(str(tmp_path / "run" / "recipe.toml"))
    assert recipe.data.address == f"folder:{sorted_photos}"
    assert recipe.train.epochs is None
    assert recipe.train.max_minutes == pytest.approx(10, abs=1)


def test_a_race_and_its_winner_as_one_training(tmp_path):
    other = (*SMALL, "model.name=dn_detr_mini", "model.pretrained_backbone=false", "train.lr=1e-6")
    pair = (Candidate("detr-small", SMALL, ""), Candidate("detr-small-pretrained", other, ""))
    choice = Choice("digit-scenes", 10, pair, ("because",), ("more",))
    given = ("augment.mosaic=0", "train.max_steps=4")  # a budget that is given holds, too
    run, summary = chosen.train_chosen(choice, tmp_path / "run", given, began=time.monotonic(), steps=2)
    values = json.loads((tmp_path / "run" / "race.json").read_text())
    assert values["winner"] in ("detr-small", "detr-small-pretrained")
    assert all(one["steps"] == 2 for one in values["candidates"].values())
    assert summary["steps"] == 4
    assert not (tmp_path / "run" / "race").exists()
    assert run.recipe().data.selection == 0
    report = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "The race, on images held out of training" in report
    assert chosen.unfinished_race(tmp_path / "run") is None
    with torch.inference_mode():
        assert len(regard.load(tmp_path / "run")(np.zeros((64, 64, 3), np.uint8)).scores) >= 0


def test_minutes_hold_for_a_named_recipe(sorted_photos, tmp_path):
    few = {"train.max_steps": 1, "train.batch_size": 4, "model.depth": 1, "train.device": "cpu"}
    regard.train("small-images", data=str(sorted_photos), out=tmp_path / "run", minutes=3, settings=few)
    assert load_recipe(str(tmp_path / "run" / "recipe.toml")).train.max_minutes == pytest.approx(3, abs=0.5)
    with pytest.raises(RegardError, match="no recipe learns anything in that time"):
        regard.train("small-images", data=str(sorted_photos), out=tmp_path / "other", minutes=0.1)


def test_nothing_to_train_on(tmp_path, nothing_installed):
    with pytest.raises(RegardError, match="name a recipe, or data"):
        regard.train()
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(RegardError, match="holds 1 images and no labels"):
        regard.choose_recipe(tmp_path)
