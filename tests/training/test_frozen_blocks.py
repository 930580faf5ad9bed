"""Trainings with `model.freeze` as a number: what is frozen is as it began."""

import pytest
import torch

import regard
from regard.errors import RegardError
from regard.recipes import load_recipe
from regard.training import Run, train


def changed(folder):
    """The parts of the model that the second run has changed."""
    before, after = (regard.load(folder / name, device="cpu").model.state_dict() for name in ("first", "second"))
    return {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}


def parts(names):
    return {".".join(name.split(".")[:2]) for name in names}


def test_frozen_blocks_are_as_they_began(recipe, tmp_path):
    train(recipe("model.depth=3", "train.max_steps=2"), tmp_path / "first")
    begun = ("model.depth=3", f"model.weights={tmp_path / 'first'}")
    train(recipe(*begun, "model.freeze=2", "train.max_steps=4", "train.ema_decay=0.5"), tmp_path / "second")
    assert parts(changed(tmp_path)) == {"blocks.2", "norm.weight", "norm.bias", "head.weight", "head.bias"}
    assert Run(tmp_path / "second").recipe().model.freeze == 2


def test_stages_of_a_sasa_resnet_keep_their_statistics(tmp_path):
    small = ["train.batch_size=64", "train.device=cpu", "train.max_steps=2", "model.embed_dim=8"]
    train(load_recipe("sasa-digits", small), tmp_path / "first")
    begun = f"model.weights={tmp_path / 'first'}"
    train(load_recipe("sasa-digits", [*small, begun, "model.freeze=2"]), tmp_path / "second")
    names = changed(tmp_path)
    assert parts(names) == {"blocks.2", "blocks.3", "head.weight", "head.bias"}
    assert any("running_mean" in name for name in names)


def test_too_many_blocks_are_told_before_there_is_a_run(recipe, tmp_path):
    with pytest.raises(RegardError, match=r"model\.freeze is 4; it can be 1 to 3 blocks of this ViT"):
        train(recipe("model.depth=3", "model.freeze=4"), tmp_path / "run")
    assert not (tmp_path / "run" / "recipe.toml").exists()
