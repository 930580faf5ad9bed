"""Frozen norms are timm's in evaluation mode, in training too; folding them changes nothing but the time."""

import copy

import pytest
import timm
import torch
from torch import nn
from torch.testing import assert_close

from regard.layers import FrozenNorm, FusedConv, freeze_norms, fuse_norms


def with_statistics(model: nn.Module) -> nn.Module:
    """A model whose norms have seen something."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            nn.init.normal_(module.weight, 1, 0.2)
            nn.init.normal_(module.bias)
    return model.eval()


@pytest.mark.parametrize(
    "name", ["resnet10t", "resnet26d", "tf_efficientnet_lite0", "regnetx_002", "mobilenetv3_small_050"]
)
def test_features_equal_timms(name):
    """EfficientNets have an eps and an activation of their own in their norms."""
    wanted_model = with_statistics(timm.create_model(name, features_only=True, out_indices=(-1,)))
    model = copy.deepcopy(wanted_model)
    freeze_norms(model)
    images = torch.randn(2, 3, 67, 53)
    wanted = wanted_model(images)[-1]
    assert_close(model(images)[-1], wanted, rtol=1e-4, atol=1e-4)
    fuse_norms(model)
    model.train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.eval()
    assert_close(model(images)[-1], wanted, rtol=1e-3, atol=1e-3)
    with torch.no_grad():
        assert_close(model(images)[-1], wanted, rtol=1e-3, atol=1e-3)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    trained = {key for key, _ in model.named_parameters()}
    assert model.state_dict().keys() == {key for key in wanted_model.state_dict() if "num_batches" not in key}
    assert not any(key.rpartition(".")[0] in trained for key in trained)


def test_resnets_are_folded_whole():
    model = timm.create_model("resnet26d", features_only=True)
    freeze_norms(model)
    fuse_norms(model)
    norms = [module for module in model.modules() if isinstance(module, FrozenNorm)]
    fused = [module for module in model.modules() if isinstance(module, FusedConv)]
    assert len(fused) == sum(norm.fused for norm in norms) >= len(norms) - 1  # a deep stem's last conv is in a sequence


@pytest.fixture
def pair() -> tuple[nn.Sequential, nn.Sequential]:
    plain = with_statistics(nn.Sequential(nn.Conv2d(3, 5, 3, bias=True), nn.BatchNorm2d(5, eps=0.1)))
    frozen = copy.deepcopy(plain)
    freeze_norms(frozen)
    fuse_norms(frozen)
    assert isinstance(frozen[0], FusedConv)
    return plain, frozen


def test_gradients_of_a_folded_convolution(pair):
    x = torch.randn(2, 3, 7, 11)
    gradients = []
    for model in pair:
        model.zero_grad()
        model(x).square().sum().backward()
        gradients.append(model[0].weight.grad)
    assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-4)


def test_what_is_kept_for_inference_follows_every_change(pair):
    plain, frozen = pair
    x = torch.randn(2, 3, 7, 11)

    @torch.no_grad()
    def same() -> None:
        assert_close(frozen(x), plain(x), rtol=1e-4, atol=1e-4)

    same()
    with torch.no_grad():
        for model in pair:
            model[0].weight.mul_(1.5)
    same()
    with torch.no_grad():
        for model in pair:
            model[1].running_var.add_(0.5)
    same()
    state = {name: torch.randn_like(tensor).abs() for name, tensor in frozen.state_dict().items()}
    frozen.load_state_dict(state)
    plain.load_state_dict(state, strict=False)
    same()
    frozen.double()
    plain.double()
    with torch.no_grad():
        assert_close(frozen(x.double()), plain(x.double()))
