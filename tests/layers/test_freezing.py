"""`model.freeze` with a number: which parameters learn, and that what is frozen computes the same in training."""

import copy

import pytest
import torch
from torch import nn

import regard
from regard.errors import RegardError
from regard.layers import freeze
from regard.models.backbone import create_backbone
from regard.recipes import load_recipe


def learning(model: nn.Module) -> set[str]:
    """The first two parts of the names of what learns."""
    return {".".join(name.split(".")[:2]) for name, one in model.named_parameters() if one.requires_grad}


def test_a_frozen_module_stays_in_evaluation_mode_and_so_does_its_copy():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2), nn.BatchNorm1d(2))
    freeze(model, lambda name: name.startswith(("0.", "1.")))
    for one in (model, copy.deepcopy(model)):
        one.train()
        before = one[1].running_mean.clone()
        one(torch.randn(8, 3))
        assert torch.equal(one[1].running_mean, before)
        assert not torch.equal(one[3].running_mean, torch.zeros(2))
        assert [name for name, parameter in one.named_parameters() if parameter.requires_grad] == [
            *("2.weight", "2.bias", "3.weight", "3.bias")
        ]
    assert copy.deepcopy(model)[1].train() is not model[1]


def test_blocks_of_a_vit_are_frozen_from_the_input_side():
    model = regard.create_model("vit_mini_patch4_32", depth=4, num_classes=3)
    model.freeze_first(2)
    assert learning(model) == {"blocks.2", "blocks.3", "norm.weight", "norm.bias", "head.weight", "head.bias"}
    with pytest.raises(RegardError, match=r"model\.freeze is 5; it can be 1 to 4 blocks of this ViT"):
        model.freeze_first(5)


def test_stages_of_a_sasa_resnet_are_frozen():
    model = regard.create_model("sasa_resnet14_small")  # one block a stage
    model.freeze_first(3)
    assert learning(model) == {"blocks.3", "head.weight", "head.bias"}
    with pytest.raises(RegardError, match=r"model\.freeze is 5; it can be 1 to 4 stages of this network"):
        model.freeze_first(5)


@pytest.mark.parametrize(
    ("name", "frozen_norm", "learns", "stages"),
    [
        ("resnet18_narrow", False, {"layer3", "layer4"}, 4),
        ("resnet18_narrow", True, {"layer3", "layer4"}, 4),
        ("convnext_atto", False, {"stages_2", "stages_3"}, 4),
        ("efficientnet_lite0", False, {"blocks.3", "blocks.4", "blocks.5", "blocks.6"}, 4),
    ],
)
def test_stages_of_a_network_of_timm_are_frozen(name, frozen_norm, learns, stages):
    model = create_backbone(name, frozen_norm=frozen_norm)
    model.freeze_first(2)
    parts = {one.removeprefix("body.") for one in learning(model)}
    blocks = {".".join(n.split(".")[1:3]) for n, one in model.named_parameters() if one.requires_grad}
    assert (blocks if name.startswith("eff") else parts) == learns
    x = torch.randn(2, 3, 64, 64)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.train()(x).sum().backward()
    assert all((one.grad is not None) == one.requires_grad for one in model.parameters())
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert not any(key.startswith(("body.layer1", "body.layer2", "body.bn1", "body.stem")) for key in changed)
    assert bool(changed) is (name in ("resnet18_narrow", "efficientnet_lite0") and not frozen_norm)
    with pytest.raises(RegardError, match=rf"model\.freeze is 9; it can be 1 to {stages} stages of {name}"):
        model.freeze_first(9)


def test_blocks_of_a_dinov2_backbone_are_frozen():
    model = create_backbone("dinov2_vits14")
    model.freeze_first(11)
    names = {n.removeprefix("body.").partition(".norm")[0] for n, one in model.named_parameters() if one.requires_grad}
    assert {".".join(name.split(".")[:2]) for name in names} == {"blocks.11", "norm.weight", "norm.bias"}


def test_recipes_say_what_is_allowed():
    assert load_recipe("vit-digits", ["model.freeze=2"]).model.freeze == 2
    assert "freeze" not in load_recipe("vit-digits", []).to_dict()["model"]
    for recipe, settings, message in (
        ("vit-digits", ["model.freeze=0"], r"model\.freeze"),
        ("vit-digits", ["model.freeze=half"], r"model\.freeze"),
        ("vit-digits", ["model.freeze=2", "features.dtype=fp32"], r"features\.dtype: .*set model\.freeze to backbone"),
        ("detr-small", ["model.freeze=2"], r"model\.freeze: a frozen backbone needs weights"),
        ("detr-photos-all", ["model.freeze=2"], r"model\.learn_blocks and model\.freeze both say which blocks learn"),
    ):
        with pytest.raises(RegardError, match=message):
            load_recipe(recipe, settings)
