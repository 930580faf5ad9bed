"""Pre-trainings in `runs/`: which are seen, and what the adviser makes of them where labels are few."""

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

import regard
from regard.choose import Facts, Means, choose, pretrained_runs
from regard.choose.pretrained_runs import best_run, same_data
from regard.choose.rules import PRETRAIN, WHOLE
from regard.files import write_json
from regard.models import build, config_values, configure
from regard.recipes import parse_recipe, shipped_recipes
from regard.recipes.recipe import Recipe
from regard.tasks import create_task
from regard.training import Run

ALL = Means(dinov2=True, lite0=True, bf16=True)
NONE = Means(dinov2=False, lite0=False)
FEW = Facts("folder:photos", "images", "folder", 100, 25, 10, 10, 100, 100, one_size=True)
MODEL = {"name": "vit_mini_patch4_32", "img_size": 96, "patch_size": 12, "embed_dim": 32, "depth": 2, "num_heads": 2}


def recipe(address: str, task: str = "pretraining") -> Recipe:
    return parse_recipe({"task": task, "model": MODEL, "data": {"address": address}, "train": {"max_steps": 1}})


def pretrained(path: Path, address: str = "folder:photos", **figures: object) -> Run:
    """A finished pre-training, as its files have it."""
    run = Run(path)
    config = configure("vit_mini_patch4_32", {**{key: MODEL[key] for key in MODEL if key != "name"}, "num_classes": 0})
    images = {"mean": [0.4] * 3, "std": [0.3] * 3, "interpolation": "bicubic", "crop_fraction": 1.0}
    model = {"name": "vit_mini_patch4_32", "config": config_values(config)}
    run.create(recipe(address), {"task": "classification", "model": model, "preprocessing": images, "class_names": []})
    run.save_weights(build(config), run.weights_file)
    write_json(run.summary_file, {"loss": 0.5, "seconds": 60.0, **figures})
    return run


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes of four images each."""
    for name in ("a", "b"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(4):
            Image.new("RGB", (20, 20), (40 * number, 0, 0)).save(tmp_path / "photos" / name / f"{number}.png")
    return tmp_path / "photos"


def names(*given: object, **changes: object) -> list[str]:
    return [one.recipe for one in choose(replace(FEW, **changes), *given).candidates]  # type: ignore[arg-type]


def test_finished_pretrainings_are_seen_and_nothing_else_matters():
    assert pretrained_runs() == []
    pretrained(Path("runs/pre-1"), knn=0.5, linear=0.71)
    os.utime("runs/pre-1", (1, 1))
    pretrained(Path("runs/pre-2"), knn=2, linear="much")
    Run(Path("runs/train-1")).create(recipe("folder:photos", "classification"), {})
    going = pretrained(Path("runs/going"))
    going.summary_file.unlink()
    pretrained(Path("runs/no-weights")).weights_file.unlink()
    pretrained(Path("runs/no-model")).metadata_file.write_text("[]")
    pretrained(Path("runs/damaged")).recipe_file.write_text('task = "pretraining"\n[')
    pretrained(Path("runs/binary")).recipe_file.write_bytes(b"\xff\xfe")
    Path("runs/a-file").write_text("")
    newer, older = pretrained_runs()
    assert [newer.path, older.path] == ["runs/pre-2", "runs/pre-1"]
    assert (newer.knn, newer.linear) == (None, None)
    assert (older.address, older.model, older.knn, older.linear) == ("folder:photos", MODEL["name"], 0.5, 0.71)
    assert newer.words == "runs/pre-2 was pre-trained on these images"
    assert older.words == f"{newer.words.replace('2', '1')}: a linear head on its features has .71"
    assert replace(older, linear=None).words.endswith("the nearest neighbours by its features have .50")
    assert best_run([newer, older], "folder:photos") == older
    assert best_run([newer, older], "folder:other") is None


def test_the_same_data_is_the_same_place(tmp_path):
    assert same_data("folder:photos", f"folder:{tmp_path}/photos/")
    assert same_data("folder:~/photos", f"folder:{Path.home()}/photos")
    assert same_data("digits", "digits")
    for other in ("folder:photo", "csv:photos", "digits", "photos", "nothing:photos", ""):
        assert not same_data("folder:photos", other)


def test_with_few_labels_a_run_on_these_images_races_with_the_frozen_head():
    pretrained(Path("runs/pre-1"), linear=0.71)
    runs = pretrained_runs()
    own = "small-photos" if "small-photos" in shipped_recipes() else "small-images"
    assert names(ALL, 10, runs) == ["finetune-photos", own]
    assert names(NONE, 10, runs) == [own]
    choice = choose(FEW, ALL, 10, runs)
    assert choice.candidates[1].settings[-1] == "model.weights=runs/pre-1"
    which, why, better = choice.lines()
    assert "model.weights=runs/pre-1" in which
    assert "runs/pre-1 was pre-trained on these images: a linear head on its features has .71" in why
    assert PRETRAIN not in better
    short = choose(FEW, ALL, 3, runs)
    assert [one.recipe for one in short.candidates] == ["finetune-photos"]
    assert "runs/pre-1 was pre-trained" in short.lines()[1]
    assert "in which it races with the linear head" in short.lines()[2]
    # With many labels nothing changes, nor with a run on other images.
    assert names(ALL, 10, runs, fewest=160) == names(ALL, 10, fewest=160)
    assert names(ALL, 10, runs, address="folder:others") == ["finetune-photos"]


def test_without_such_a_run_few_labels_are_told_of_it():
    for means in (ALL, NONE):
        assert PRETRAIN in choose(FEW, means).lines()[2]
        assert "regard pretrain" not in choose(replace(FEW, fewest=160), means).lines()[2]


def test_few_labels_of_small_images_are_told_that_all_of_dinov2_learns_more():
    assert WHOLE in choose(FEW, ALL).lines()[2]
    for facts, means in ((replace(FEW, fewest=160), ALL), (replace(FEW, height=500), ALL), (FEW, NONE)):
        assert WHOLE not in choose(facts, means).lines()[2]


def test_the_candidate_takes_the_weights_and_sees_images_as_they_were_seen(photos):
    pretrained(Path("runs/pre-1"), linear=0.5)
    facts = replace(FEW, address=f"folder:{photos}")
    choice = choose(facts, NONE, 10, pretrained_runs())
    task = create_task(choice.load())
    model = task.build_model()
    assert model.head.out_features == 2
    theirs = regard.weights.read_safetensors(Path("runs/pre-1/model.safetensors"))
    assert model.state_dict()["blocks.1.mlp.fc1.weight"].equal(theirs["blocks.1.mlp.fc1.weight"])
    assert (task.preprocessing.mean, task.preprocessing.img_size) == ((0.4,) * 3, (96, 96))
    assert task.preprocessing.interpolation == "bicubic"


def test_a_run_whose_model_fits_no_recipe_is_none():
    run = pretrained(Path("runs/pre-1"), linear=0.9)
    metadata = json.loads(run.metadata_file.read_text())
    for key, value in (("depth", -1), ("patch_size", "large"), ("mixer", {"a": [1]})):
        metadata["model"]["config"] = {**metadata["model"]["config"], key: value}
        write_json(run.metadata_file, {name: one for name, one in metadata.items() if name != "checksum"})
        (found,) = pretrained_runs()
        assert found.candidate("folder:photos") is None
        choice = choose(FEW, NONE, 10, [found])
        assert choice.recipe == "small-images"
        assert not re.search("pre-1", " ".join(choice.lines()))


def test_it_is_seen_where_nobody_names_a_recipe(photos, monkeypatch):
    monkeypatch.setattr("regard.choose.means_here", lambda: NONE)
    assert "model.weights=runs/pre-1" not in regard.choose_recipe("photos").settings
    pretrained(Path("runs/pre-1"), linear=0.5)
    assert "model.weights=runs/pre-1" in regard.choose_recipe("photos").settings
    Path("runs/pre-1/model.safetensors").unlink()
    assert "model.weights=runs/pre-1" not in regard.choose_recipe("photos").settings
