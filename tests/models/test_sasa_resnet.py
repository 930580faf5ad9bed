"""SASA-ResNet: the paper's counts, any image, every gradient; and as a backbone of DETR."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from regard import RegardError, create_model
from regard.layers import LocalAttention2d
from regard.models import PRESETS, RENAMED, SASAResNet, SASAResNetConfig, build, current_name
from regard.models.backbone import SASABackbone, create_backbone

# Ramachandran et al. 2019, table 1: millions of parameters, 10⁹ operations (a multiply and an add are two).
PAPER = {
    "sasa_baseline_resnet26": (13.7, 4.7),
    "sasa_baseline_resnet38": (19.6, 6.5),
    "sasa_baseline_resnet50": (25.6, 8.2),
    "sasa_resnet26": (10.3, 4.5),
    "sasa_resnet38": (14.1, 5.7),
    "sasa_resnet50": (18.0, 7.0),
    "sasa_resnet26_stem": (10.3, 4.7),
    "sasa_resnet38_stem": (14.1, 6.0),
    "sasa_resnet50_stem": (18.0, 7.2),
}
# Where rounding does not give the paper's figure: (what it gives for parameters, for operations).
DIFFERENT = {
    "sasa_baseline_resnet38": (19.6, 6.4),
    "sasa_resnet38": (14.2, 5.7),
    "sasa_resnet38_stem": (14.2, 6.0),
}


def tiny(**changes) -> SASAResNet:
    values = {
        "img_size": (30, 22),
        "num_classes": 7,
        "embed_dim": 12,
        "depths": (1, 2),
        "num_heads": 3,
        "window": 3,
        **changes,
    }
    torch.manual_seed(0)
    return SASAResNet(SASAResNetConfig(**values))


@pytest.mark.parametrize("name", PAPER)
def test_counts_are_those_of_the_paper(name):
    with torch.device("meta"):
        model = build(PRESETS[name])
    found = (
        round(sum(parameter.numel() for parameter in model.parameters()) / 1e6, 1),
        round(model.flops() / 1e9, 1),
    )
    assert found == DIFFERENT.get(name, PAPER[name])


@pytest.mark.parametrize("stem", ["conv", "small"])
@pytest.mark.parametrize("size", [(64, 64), (37, 51)])
def test_operations_of_convolutions_are_those_that_torch_counts(stem, size):
    model = tiny(stem=stem, stages=("conv",)).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.randn(1, 3, *size))
    assert model.flops(*size) == counter.get_total_flops()


def test_operations_of_attention_by_hand():
    layer = LocalAttention2d(5, 12, num_heads=3, window=3)
    pixels, pairs = 7 * 11, 7 * 11 * 9
    assert layer.flops(7, 11) == 2 * pixels * 5 * 36 + 3 * 2 * pairs * 12


@pytest.mark.parametrize("stem", ["conv", "attention", "small"])
@pytest.mark.parametrize("stages", [("attention",), ("conv", "attention"), ("conv",)])
@pytest.mark.parametrize("size", [(30, 22), (31, 17), (8, 8)])
def test_any_image_and_every_gradient(stem, stages, size):
    model = tiny(stem=stem, stages=stages)
    logits = model(torch.randn(3, 3, *size))
    assert logits.shape == (3, 7)
    logits.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        if size != (8, 8):  # where the last map is one pixel, batch norm may leave nothing
            assert parameter.grad.ne(0).any(), name


def test_sizes_shrink_as_with_convolutions():
    images = torch.randn(2, 3, 61, 45)
    shapes = [tiny(stages=(kind,)).forward_features(images).shape for kind in ("conv", "attention")]
    assert shapes[0] == shapes[1] == (2, 96, 8, 6)
    assert tiny().reduction == 8


def test_intermediates_and_recomputing_blocks():
    model = tiny()
    images = torch.randn(2, 3, 30, 22)
    every = model.eval().intermediates(images)
    assert list(every) == model.intermediate_names()
    assert_close(every["logits"], model(images))
    assert_close(every["pre_logits"], every["blocks.2"].mean((2, 3)))
    assert list(model.intermediates(images, ["stem"])) == ["stem"]
    with pytest.raises(RegardError, match="unknown intermediate 'block'"):
        model.intermediates(images, ["block"])
    gradients = []
    for model.gradient_checkpointing in (False, True):
        model.zero_grad()
        model(images).square().sum().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for one, other in zip(*gradients, strict=True):
        assert_close(one, other)


def test_without_a_head():
    model = tiny(num_classes=0).eval()
    images = torch.randn(2, 3, 30, 22)
    assert_close(model(images), model.forward_features(images).mean((2, 3)))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"window": 4}, "window must be odd"),
        ({"num_heads": 5}, "12 channels do not divide into 5 heads"),
        ({"stages": ("conv", "conv", "attention")}, "must name one kind, or 2; got 3"),
    ],
)
def test_what_cannot_be_built(options, told):
    with pytest.raises(RegardError, match=told):
        tiny(**options)


def test_by_name():
    model = create_model("sasa_resnet14_small", num_classes=3, in_chans=2, img_size=16, window=3)
    assert model(torch.randn(2, 2, 16, 16)).shape == (2, 3)
    with pytest.raises(RegardError, match=r"model\.stem: input should be 'conv', 'attention' or 'small', got 'convv'"):
        create_model("sasa_resnet26", stem="convv")
    with pytest.raises(RegardError, match=r"unknown key 'model\.mixer'"):
        create_model("sasa_resnet26", mixer="local")


def test_an_old_name_says_what_to_type():
    with pytest.raises(
        RegardError, match=r"^unknown model 'resnet50'; type 'sasa_baseline_resnet50' for .* timm's resn"
    ):
        create_model("resnet50")
    assert all(new in PRESETS and old not in PRESETS for old, new in RENAMED.items())
    assert current_name("resnet50") == "sasa_baseline_resnet50"
    assert current_name("sasa_resnet50") == "sasa_resnet50"


def test_as_a_backbone_of_detr():
    model = create_model(
        "detr_mini",
        backbone="sasa_resnet14_small",
        dilated=False,
        embed_dim=32,
        depth=1,
        decoder_depth=1,
        num_queries=5,
    )
    assert isinstance(model.backbone, SASABackbone)
    images, mask = torch.randn(2, 3, 40, 56), torch.ones(2, 40, 56, dtype=torch.bool)
    mask[1, :, 33:] = False
    found = model(images, mask)
    assert found.boxes_cxcywh.shape == (1, 2, 5, 4)
    found.boxes_cxcywh.sum().backward()
    assert all(parameter.grad is not None for parameter in model.backbone.parameters())
    assert model.flops(40, 56) > model.backbone.flops(40, 56) > 0


def test_a_backbone_says_what_it_cannot():
    with pytest.raises(RegardError, match="pools where it would stride"):
        create_backbone("sasa_resnet26", dilated=True)
    frozen = create_backbone("sasa_resnet14_small", frozen_norm=True)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in frozen.modules())
    frozen.freeze_stem()
    assert not any(parameter.requires_grad for parameter in frozen.body.stem.parameters())
