"""A classifier that starts from another's weights."""

import json

import pytest
import torch

import regard
from regard.errors import RegardError
from regard.recipes import load_recipe, parse_recipe
from regard.tasks import create_task
from regard.tasks.preprocessing import came_with
from regard.training import train


def accuracy(run):
    return json.loads((run / "summary.json").read_text())["accuracy"]


@pytest.mark.slow
def test_a_vit_regains_its_accuracy_as_a_performer_in_a_tenth_of_its_steps(tmp_path):
    first, second = tmp_path / "vit", tmp_path / "performer"
    train(load_recipe("vit-digits", ["train.epochs=100"]), first)
    weights = f"model.weights={first / 'model.safetensors'}"
    task = create_task(load_recipe("performer-finetune", [weights]))
    before = task.metrics([task.evaluate(task.build_model(), rank=0, world_size=1)])["accuracy"]
    train(load_recipe("performer-finetune", [weights]), second)
    steps = [json.loads((run / "summary.json").read_text())["steps"] for run in (first, second)]
    assert steps[1] * 10 <= steps[0]
    assert before < accuracy(first) - 0.1  # the swap alone costs a lot
    assert accuracy(second) > accuracy(first) - 0.015


def test_weights_of_other_mixers_are_taken_as_far_as_they_go(tmp_path):
    run = tmp_path / "run"
    train(
        load_recipe("vit-digits", ["train.max_steps=2", "model.mixer=local", "model.mixer_options.local.window=3"]), run
    )
    options = [f"model.weights={run / 'model.safetensors'}", "model.mixer=attention"]
    model = create_task(load_recipe("vit-digits", options)).build_model()
    trained = regard.load(run).model
    assert model.blocks[1].mixer.qkv.weight.equal(trained.blocks[1].mixer.qkv.weight)
    assert model.head.weight.equal(trained.head.weight)
    reset = create_task(load_recipe("vit-digits", [*options, "model.reset_head=true"])).build_model()
    assert not reset.head.weight.equal(trained.head.weight)


def test_images_are_prepared_as_they_were_for_the_weights(tmp_path):
    """Also where a recipe was written and read again, and for another number of channels."""
    run = tmp_path / "run"
    own = ["data.mean=[0.25]", "data.std=[0.125]", "data.interpolation=bicubic", "data.crop_fraction=0.75"]
    train(load_recipe("vit-digits", ["train.max_steps=1", *own]), run)
    begun = load_recipe("vit-digits", [f"model.weights={run}"])
    for recipe in (begun, parse_recipe(begun.to_dict())):
        theirs = create_task(recipe).preprocessing
        assert (theirs.mean, theirs.std) == ((0.25,), (0.125,))
        assert (theirs.interpolation, theirs.crop_fraction) == ("bicubic", 0.75)
    given = create_task(load_recipe("vit-digits", [f"model.weights={run}", "data.std=[0.5]", "data.resize=squash"]))
    found = given.preprocessing
    assert (found.mean, found.std, found.crop_fraction) == ((0.25,), (0.5,), 1.0)
    assert came_with(f"local-dir:{run}", channels=3).mean == (0.25,) * 3
    # Weights that say nothing of it: then it is measured.
    assert came_with(str(run / "model.safetensors"), channels=1) is None
    (run / "metadata.json").write_text('{"preprocessing": {"mean": [0.5], "std": [0]}}')
    with pytest.raises(RegardError, match=r"run/metadata\.json: preprocessing: std is \(0\.0,\)"):
        came_with(str(run), channels=1)
    for nothing in ("{}", "[]", '{"preprocessing": 1}', '{"preprocessing": {"mean": 1}}'):
        (run / "metadata.json").write_text(nothing)
        assert came_with(str(run), channels=1) is None


def test_weights_that_do_not_fit(tmp_path):
    run = tmp_path / "run"
    train(load_recipe("vit-digits", ["train.max_steps=1"]), run)
    weights = f"model.weights={run / 'model.safetensors'}"
    with pytest.raises(RegardError, match=r"does not match this model: .* missing from the file"):
        create_task(load_recipe("vit-digits", [weights, "model.mixer=conv"])).build_model()
    with pytest.raises(RegardError, match=r"nowhere\.safetensors: is missing"):
        create_task(load_recipe("vit-digits", ["model.weights=nowhere.safetensors"])).build_model()


def test_features_are_redrawn_in_training(tmp_path):
    settings = ["train.max_steps=5", "model.mixer=performer", "model.mixer_options.performer.redraw_every=2"]
    train(load_recipe("vit-digits", settings), tmp_path / "run")
    trained = regard.load(tmp_path / "run").model
    drawn = trained.blocks[0].mixer.projection.clone()
    trained.blocks[0].mixer.redraw(4)  # the last step
    assert drawn.equal(trained.blocks[0].mixer.projection)
    trained.blocks[0].mixer.redraw(0)
    assert not drawn.equal(trained.blocks[0].mixer.projection)
    assert torch.isfinite(drawn).all()
