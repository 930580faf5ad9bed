"""MLP-Mixer: the paper's sizes, timm's outputs, and its one number of tokens."""

import pytest
import timm
import torch
from torch.testing import assert_close

from regard import RegardError, create_model
from regard.models import PRESETS, build

# Tolstikhin et al. 2021, table 1: millions of parameters, without the head.
PAPER = {
    "mixer_s32_224": 19,
    "mixer_s16_224": 18,
    "mixer_b32_224": 60,
    "mixer_b16_224": 59,
    "mixer_l32_224": 206,
    "mixer_l16_224": 207,
    "mixer_h14_224": 431,
}


@pytest.mark.parametrize("name", PAPER)
def test_parameters_are_those_of_the_paper(name):
    with torch.device("meta"):
        model = build(PRESETS[name])
    count = sum(parameter.numel() for key, parameter in model.named_parameters() if not key.startswith("head."))
    assert round(count / 1e6) == PAPER[name]


def renamed(key):
    for theirs, ours in (
        ("stem.", "patch_embed."),
        (".mlp_tokens.", ".mixer.mlp."),
        (".mlp_channels.", ".mlp."),
    ):
        key = key.replace(theirs, ours)
    return key


def test_same_weights_give_what_timm_gives():
    theirs = timm.create_model("mixer_b16_224", num_classes=7).eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    ours = create_model("mixer_b16_224", num_classes=7).eval()
    ours.load_state_dict({renamed(key): tensor for key, tensor in theirs.state_dict().items()})
    images = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        wanted = theirs(images)
        assert_close(ours(images), wanted, rtol=1e-4, atol=1e-5 * float(wanted.abs().max()))


def test_another_image_size_says_why_not():
    model = create_model("mixer_s32_224", img_size=64)
    with pytest.raises(
        RegardError, match="built for 4 tokens and got 9; its weights belong to token indices"
    ) as caught:
        model(torch.rand(1, 3, 96, 96))
    assert "attention, local, performer and conv can" in str(caught.value)
