"""`regard pretrain` and `regard.pretrain`: what a user types, and what is said where it cannot be done."""

import json

import pytest
from PIL import Image

import regard as package
from regard import RegardError
from regard.training import Run

SHORT = ("--set", "train.max_steps=2", "--set", "train.max_minutes=none", "--set", "train.batch_size=4")


@pytest.fixture
def flat(tmp_path):
    """A folder of images without labels."""
    folder = tmp_path / "flat"
    folder.mkdir()
    for number in range(12):
        Image.new("RGB", (20, 16), (20 * number, 255 - 20 * number, 7)).save(folder / f"{number}.png")
    return folder


def test_a_flat_folder_teaches_and_a_recipe_starts_from_its_run(regard, flat, tmp_path):
    run = tmp_path / "run"
    small = ("--set", "model.depth=1", "--set", "model.img_size=16", "--set", "pretrain.method=simmim")
    done = regard("pretrain", "small-images", "--data", flat, *small, *SHORT, "--out", run)
    assert "loss" in done.out
    assert (run / "report.html").exists()
    recipe = Run(run).recipe()
    assert (recipe.task, recipe.pretrain.method) == ("pretraining", "simmim")
    assert {"knn", "linear"}.isdisjoint(json.loads((run / "summary.json").read_text()))
    again = regard("pretrain", "--resume", run, "--set", "train.max_steps=3")
    assert "after 3 steps" in again.out
    regard("evaluate", run).fails("the model has no classes yet", "model.weights=RUN")
    regard("predict", run, flat / "1.png").fails("the model has no classes yet")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["detr-small"], "detr-small.toml: is a recipe of detection, and not of pretraining"),
        (["vit-digits", "--label-efficiency", "--set", "pretrain.method=mae"], "have no labels"),
        (
            ["vit-digits", "--set", "pretrain.method=mae", "--set", "model.mixer=fourier"],
            "mae leaves tokens out, and the mixer fourier needs all of them; simmim serves every mixer",
        ),
        (["vit-digits", "--start-from", "nobody"], "--start-from nobody: is neither a run nor a name"),
        (["vit-digits", "--set", "pretrain.methd=mae"], "did you mean 'pretrain.method'?"),
    ],
)
def test_what_cannot_be_done_is_one_line(regard, flat, words, said):
    regard("pretrain", *words, "--data", flat).fails(said)


def test_a_resumed_run_has_its_own_recipe(regard, tmp_path):
    regard("pretrain", "vit-digits", "--resume", tmp_path).fails("--resume RUN goes on with the run's own recipe")


def test_weights_to_go_on_from_bring_their_model(flat, tmp_path):
    """The moving average of the model teaches, unless something else is said; the run says whether it paid."""
    short = {"max_steps": 2, "max_minutes": None, "batch_size": 4}
    first = package.pretrain("vit-digits", flat, tmp_path / "first", method="simmim", depth=1, in_chans=3, **short)
    assert first.class_names == ()
    second = package.pretrain("vit-digits", flat, tmp_path / "second", start_from=tmp_path / "first", **short)
    recipe = Run(tmp_path / "second").recipe()
    assert recipe.pretrain.teacher == "self"
    assert recipe.model.config(num_classes=0) == first.model.config
    assert second.model.config == first.model.config
    assert len(recipe.pretrain.start_hash) == 64


def test_a_keyword_that_is_wrong_is_said(flat, tmp_path):
    with pytest.raises(RegardError, match="unknown setting 'mask_rato'; did you mean 'mask_ratio'"):
        package.pretrain("vit-digits", flat, tmp_path / "run", method="mae", mask_rato=0.5)
    assert not (tmp_path / "run").exists()
