"""`train.find_nonfinite`: the first layer that sees or makes what is not finite."""

import pytest
import torch

import regard
from regard.errors import RegardError
from regard.recipes import load_recipe
from regard.training import train
from regard.training.nan_watch import watch_finite

IMAGES = torch.rand(2, 1, 8, 8)


def watched():
    model = regard.create_model("vit_pico_patch2_8")
    watch_finite(model)
    return model


def test_finite_numbers_pass():
    assert watched()(IMAGES).isfinite().all()


def test_the_layer_that_made_it_is_named():
    model = watched()
    model.blocks[1].mlp.fc1.weight.data[3, 5] = float("nan")
    with pytest.raises(RegardError, match=r"^blocks\.1\.mlp\.fc1 \(Linear\): is the first layer that made numbers"):
        model(IMAGES)


def test_the_layer_that_got_it_is_named():
    model = watched()
    images = IMAGES.clone()
    images[1, 0, 2, 2] = float("inf")
    with pytest.raises(RegardError, match=r"^patch_embed\.proj \(Conv2d\): is the first layer that got numbers"):
        model(images)


def test_in_training(tmp_path):
    settings = ["train.max_steps=30", "train.lr=1e30", "train.find_nonfinite=true", "train.clip_grad=0"]
    with pytest.raises(RegardError, match=r"is the first layer that (made|got) numbers|the loss is"):
        train(load_recipe("vit-digits", settings), tmp_path / "run")
