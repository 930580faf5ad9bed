"""Backbones that give the maps of several strides, and the narrow ResNet."""

import pytest
import torch
from torch.testing import assert_close

from regard.errors import RegardError
from regard.models.backbone import NARROW, create_backbone, create_body


@pytest.mark.parametrize("name", ["resnet10t", "resnet18_narrow", "tf_efficientnet_lite0"])
@pytest.mark.parametrize("reductions", [(8, 16, 32), (8, 16), (4, 8), (16,), (32,)])
def test_each_map_has_its_channels_and_its_stride(name, reductions):
    backbone = create_backbone(name, reductions=reductions).eval()
    assert backbone.reductions == reductions
    assert (backbone.out_chans, backbone.reduction) == (backbone.level_chans[-1], reductions[-1])
    found = backbone.every_level(torch.rand(1, 3, 67, 97))
    wanted = [(1, chans, -(-67 // r), -(-97 // r)) for chans, r in zip(backbone.level_chans, reductions, strict=True)]
    assert [tuple(one.shape) for one in found] == wanted
    assert torch.equal(backbone(torch.ones(1, 3, 64, 96)), backbone.every_level(torch.ones(1, 3, 64, 96))[-1])


def test_the_maps_are_those_of_the_whole_network():
    images = torch.rand(1, 3, 67, 97)
    whole = create_body("resnet10t", dilated=False, in_chans=3, pretrained=False, indices=None).eval()
    backbone = create_backbone("resnet10t", reductions=(8, 16), frozen_norm=False).eval()
    wanted = dict(zip(whole.feature_info.reduction(), whole(images), strict=True))
    told = backbone.body.load_state_dict(whole.state_dict(), strict=False)
    assert not told.missing_keys
    for reduction, one in zip((8, 16), backbone.every_level(images), strict=True):
        assert wanted[reduction].abs().sum() > 0
        assert_close(one, wanted[reduction], rtol=1e-4, atol=1e-5)


def test_what_comes_after_the_last_map_is_left_out():
    counts = [
        sum(parameter.numel() for parameter in create_backbone("resnet10t", reductions=reductions).parameters())
        for reductions in ((8,), (8, 16), (8, 16, 32), (32,))
    ]
    assert counts[0] < counts[1] < counts[2] == counts[3]
    flops = [create_backbone("resnet10t", reductions=r).flops(64, 96) for r in ((8,), (8, 16), (8, 16, 32))]
    assert flops[0] < flops[1] < flops[2]


def test_without_reductions_it_is_the_last_map_alone():
    backbone = create_backbone("resnet10t")
    assert backbone.level_chans == (512,)
    assert backbone.reductions == (32,)
    assert len(backbone.every_level(torch.rand(1, 3, 64, 96))) == 1


def test_strides_coarser_than_the_network_are_for_others_to_make():
    assert create_backbone("resnet10t", reductions=(16, 32, 64)).reductions == (16, 32)
    assert create_backbone("sasa_resnet26", reductions=(32, 64)).reductions == (32,)


@pytest.mark.parametrize(
    ("name", "reductions", "told"),
    [
        ("resnet10t", (64,), r"resnet10t has no feature map of stride 64; it has 2, 4, 8, 16, 32"),
        ("resnet10t", (8, 12, 16), r"resnet10t has no feature map of stride 12"),
        ("sasa_resnet26", (16, 32), r"sasa_resnet26 has one feature map, of stride 32: begin with it"),
        ("dinov2_vits14", (7, 14), r"dinov2_vits14 has one feature map, of stride 14: begin with it"),
    ],
)
def test_a_map_that_there_is_not(name, reductions, told):
    with torch.device("meta"), pytest.raises(RegardError, match=told):
        create_backbone(name, reductions=reductions)


def test_the_narrow_resnet():
    narrow = create_backbone("resnet18_narrow", reductions=(4, 8, 16, 32))
    assert narrow.level_chans == (32, 64, 128, 256)
    with torch.device("meta"):
        full = create_backbone("resnet18", reductions=(4, 8, 16, 32))
    assert full.level_chans == (64, 128, 256, 512)
    assert 3.5 < full.flops(128, 128) / narrow.flops(128, 128) < 4.5  # half the channels each side
    assert narrow.every_level(torch.rand(2, 3, 67, 97))[1].shape == (2, 64, 9, 13)


def test_the_narrow_resnet_in_grey_dilated_and_with_norms_that_learn():
    backbone = create_backbone("resnet18_narrow", in_chans=1, dilated=True, frozen_norm=False)
    assert backbone.reduction == 16
    assert backbone(torch.rand(2, 1, 64, 96)).shape == (2, 256, 4, 6)
    assert any(isinstance(module, torch.nn.BatchNorm2d) for module in backbone.modules())


def test_nobody_has_trained_a_narrow_one():
    for name in NARROW:
        with pytest.raises(
            RegardError, match=f"{name}: there are no pretrained weights; it is timm's resnet18 with fewer channels"
        ):
            create_body(name, dilated=False, in_chans=3, pretrained=True)


@pytest.mark.parametrize("name", ["resnet18_narrow", "resnet10t"])
def test_the_stem_can_be_frozen(name):
    backbone = create_backbone(name, reductions=(8, 16))
    backbone.freeze_stem()
    frozen = {part for part, parameter in backbone.body.named_parameters() if not parameter.requires_grad}
    assert frozen == {part for part, _ in backbone.body.named_parameters() if part.startswith(("conv1", "layer1"))}
    assert frozen
