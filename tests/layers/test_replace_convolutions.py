"""`regard.replace_convolutions`: attention in other libraries' models."""

import pytest
import timm
import torch
import torchvision
from torch import nn

import regard
from regard.errors import RegardError
from regard.layers import LocalAttention2d


def attentions(model):
    return [name for name, module in model.named_modules() if isinstance(module, LocalAttention2d)]


@pytest.mark.parametrize("make", [lambda: timm.create_model("resnet18"), torchvision.models.resnet18])
def test_all_but_the_stem(make):
    model = make()
    spatial = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3) and name != "conv1"
    ]
    assert regard.replace_convolutions(model, num_heads=4, window=3) is model
    assert attentions(model) == spatial
    assert isinstance(model.conv1, nn.Conv2d)
    out = model(torch.randn(2, 3, 45, 61))
    assert out.shape == (2, 1000)
    out.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_the_shapes_stay_everywhere():
    model, image = torchvision.models.resnet18().eval(), torch.randn(1, 3, 77, 59)

    def shapes():
        found = []
        hooks = [
            block.register_forward_hook(lambda _, __, out: found.append(out.shape)) for block in model.layer2.children()
        ]
        with torch.no_grad():
            model(image)
        for hook in hooks:
            hook.remove()
        return found

    before = shapes()
    regard.replace_convolutions(model, num_heads=4)
    assert shapes() == before


def test_where_is_a_glob_or_a_function():
    model = torchvision.models.resnet50()
    regard.replace_convolutions(model, "layer4.*.conv2")
    assert attentions(model) == [f"layer4.{i}.conv2" for i in range(3)]
    regard.replace_convolutions(model, where=lambda name, conv: name == "layer3.1.conv2")
    assert len(attentions(model)) == 4


def test_it_goes_where_the_model_is():
    model = nn.Sequential(nn.Conv2d(8, 16, 3, padding=1)).double().eval()
    attention = regard.replace_convolutions(model)[0]
    assert attention.qkv.weight.dtype == torch.float64
    assert not attention.training


@pytest.mark.parametrize(
    ("conv", "told"),
    [
        (nn.Conv2d(8, 16, 3, padding=1, groups=8), "0: it has 8 groups"),
        (nn.Conv2d(8, 12, 3, padding=1), "its 12 channels do not divide into 8 heads"),
        (nn.Conv2d(8, 16, 3), "does not keep the image's size"),
        (nn.Conv2d(8, 16, 3, padding=1, stride=(1, 2)), "it strides by"),
    ],
)
def test_what_cannot_be_replaced_is_named(conv, told):
    model = nn.Sequential(conv)
    with pytest.raises(RegardError, match=told):
        regard.replace_convolutions(model, "0")
    assert model[0] is conv


def test_nothing_found():
    with pytest.raises(RegardError, match=r"no convolution is meant by 'layer9\.\*'"):
        regard.replace_convolutions(nn.Sequential(nn.Conv2d(8, 16, 3, padding=1)), "layer9.*")
