"""A run of whole images, such as a pre-training, as the start of a detector's backbone."""

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

import regard
from regard import RegardError
from regard.models import ViTBackbone, ViTConfig, build, create_backbone
from regard.models.vit import DINOV2
from regard.weights import load_pretrained_backbone

TINY = ViTConfig(img_size=28, patch_size=7, num_classes=0, embed_dim=24, depth=2, num_heads=2)


@pytest.fixture
def backbone(monkeypatch):
    monkeypatch.setattr("regard.models.backbone.DINOV2", {**DINOV2, "dinov2_vits14": TINY})
    return ViTBackbone("dinov2_vits14")


def test_a_backbone_starts_from_a_run(backbone, tmp_path):
    trained = build(replace(TINY, num_classes=3))
    regard.save(trained, tmp_path / "run")
    load_pretrained_backbone(backbone, str(tmp_path / "run"))
    ours = trained.state_dict()
    for name, tensor in backbone.body.state_dict().items():
        assert_close(tensor, ours[name], rtol=0, atol=0)


def test_another_model_is_named(backbone, tmp_path):
    regard.save(build(replace(TINY, embed_dim=36)), tmp_path / "wide")
    with pytest.raises(RegardError, match="wide"):
        load_pretrained_backbone(backbone, str(tmp_path / "wide"))


def test_a_network_of_timm_takes_no_run(tmp_path):
    regard.save(build(TINY), tmp_path / "run")
    narrow = create_backbone("resnet10t", dilated=False, in_chans=3, frozen_norm=False)
    before = {name: tensor.clone() for name, tensor in narrow.state_dict().items()}
    with pytest.raises(RegardError, match=r"model\.pretrained_backbone: .*run is a run of Regard's own models"):
        load_pretrained_backbone(narrow, str(tmp_path / "run"))
    assert all(torch.equal(tensor, before[name]) for name, tensor in narrow.state_dict().items())
