"""Detectors with a frozen backbone in the training loop: features once, resumed to the bit, the whole model kept."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

from regard import evaluate, load
from regard.errors import RegardError
from regard.recipes import Recipe, load_recipe
from regard.tasks.features.extract import FrozenFeatures
from regard.training import Run, train

SMALL = (
    *("model.embed_dim=32", "model.num_heads=4", "model.num_queries=7", "model.num_denoising=6", "data.first=9"),
    *("data.shortest=64", "data.longest=64", "train.batch_size=4", "train.device=cpu", "train.precision=fp32"),
    *("data.validate_on=train", "train.save_every_steps=1", "train.evaluate_every_steps=3"),
    *("augment.mosaic=0", "augment.flip=false"),
)


@pytest.fixture(scope="module")
def begun(tmp_path_factory) -> Path:
    """A run whose backbone is frozen in others."""
    run = tmp_path_factory.mktemp("begun") / "run"
    train(load_recipe("detr-small", [*SMALL, "train.max_steps=2"]), run)
    return run


def frozen(begun: Path, store: Path, *settings: str) -> Recipe:
    own = ("model.freeze=backbone", f"model.weights={begun}", f"features.folder={store}", "features.views=2")
    return load_recipe("detr-small", [*SMALL, *own, "train.max_steps=6", *settings])


def test_a_resumed_run_ends_with_the_same_weights_to_the_bit(begun, tmp_path, monkeypatch):
    train(frozen(begun, tmp_path / "store"), tmp_path / "whole")
    step, left = torch.optim.AdamW.step, iter(range(3))

    def stop(self, *arguments, **named):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return step(self, *arguments, **named)

    monkeypatch.setattr(torch.optim.AdamW, "step", stop)
    with pytest.raises(KeyboardInterrupt):
        train(frozen(begun, tmp_path / "store"), tmp_path / "cut")
    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    train(Run(tmp_path / "cut").recipe(), tmp_path / "cut", resume=True)
    wanted, found = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert torch.equal(found[name], tensor), name


def test_the_run_holds_the_whole_model_and_its_evaluation_is_what_it_predicts(begun, tmp_path, monkeypatch):
    computed = []
    spied = FrozenFeatures._computed
    monkeypatch.setattr(FrozenFeatures, "_computed", lambda self, batch: computed.extend(batch) or spied(self, batch))
    summary = train(frozen(begun, tmp_path / "store"), tmp_path / "run")
    first, again = len(computed), train(frozen(begun, tmp_path / "store", "seed=1"), tmp_path / "other")
    assert len(computed) == first  # runs share the features
    assert again["steps"] == summary["steps"] == 6
    weights, start = (load_file(run / "model.safetensors") for run in (tmp_path / "run", begun))
    backbone = [name for name in start if name.startswith("backbone.")]
    assert backbone
    assert weights.keys() == start.keys()
    assert all(torch.equal(weights[name], start[name]) for name in backbone)
    assert any(not torch.equal(weights[name], tensor) for name, tensor in start.items() if name not in backbone)
    (tmp_path / "store").rename(tmp_path / "gone")
    found = evaluate(tmp_path / "run").metrics()
    for name in ("ap", "ap50", "ap_raw"):
        assert found[name] == pytest.approx(summary[name], abs=1e-3)
    detector = load(tmp_path / "run")
    noise = torch.randint(0, 256, (3, 61, 89), dtype=torch.uint8)
    assert_close(detector.predict(noise, threshold=0.0).scores, detector([noise, noise], threshold=0.0)[1].scores)


def test_a_state_does_not_hold_the_backbone(begun, tmp_path):
    train(frozen(begun, tmp_path / "store"), tmp_path / "run")
    (state,) = (tmp_path / "run" / "state").glob("step-*")
    sizes = {file.name: file.stat().st_size for file in state.iterdir()}
    whole = (tmp_path / "run" / "model.safetensors").stat().st_size
    assert sizes["model.safetensors"] < whole / 2


def test_features_that_take_all_of_the_time_are_told_and_kept(begun, tmp_path, monkeypatch):
    recipe = frozen(begun, tmp_path / "store", "train.max_steps=2", "train.max_minutes=5")
    seconds = iter([0.0, 301.0])
    monkeypatch.setattr("regard.training.session.time", SimpleNamespace(monotonic=lambda: next(seconds, 302.0)))
    with pytest.raises(
        RegardError, match=r"the features took 5\.0 minutes, and train\.max_minutes is 5; they are kept"
    ):
        train(recipe, tmp_path / "run")
    monkeypatch.undo()
    assert train(Run(tmp_path / "run").recipe(), tmp_path / "run", resume=True)["steps"] == 2
