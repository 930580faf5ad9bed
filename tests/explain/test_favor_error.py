"""The error of performers against exact attention."""

import pytest
import torch

import regard
from regard.errors import RegardError
from regard.explain import favor_error
from regard.ops import attention_weights, favor_weights


def model(**options):
    torch.manual_seed(0)
    return regard.create_model("vit_pico_patch2_8", **options)


IMAGES = torch.rand(5, 1, 8, 8)


def test_it_is_the_relative_error_of_each_layer():
    net = model(mixer=("performer", "conv", "performer")).eval()
    found = favor_error(net, IMAGES)
    assert [error.layer for error in found] == [0, 2]
    mixer = net.blocks[2].mixer
    q, k, v = mixer.heads(net.intermediates(IMAGES, ["blocks.2.mixer_input"])["blocks.2.mixer_input"])
    q, k, v = q.detach(), k.detach(), v.detach()
    exact, estimate = attention_weights(q, k), favor_weights(q, k, projection=mixer.projection)
    assert found[1].matrix == pytest.approx(float((estimate - exact).norm() / exact.norm()))
    assert found[1].output == pytest.approx(float(((estimate - exact) @ v).norm() / (exact @ v).norm()))
    mean = v.mean(2, keepdim=True) - exact @ v
    assert found[1].mean_of_values == pytest.approx(float(mean.norm() / (exact @ v).norm()))
    assert found[1].num_features == 32


def test_more_features_for_a_smaller_error():
    net = model(mixer="performer")
    for block in net.blocks:
        block.mixer.qkv.weight.data[:128] *= 0.3  # small queries and keys, which features can do something for
    loose, tight = favor_error(net, IMAGES, bound=0.5), favor_error(net, IMAGES, bound=0.002)
    for one, other in zip(loose, tight, strict=True):
        assert one.features_needed is not None
        assert other.features_needed is None or other.features_needed > one.features_needed
    assert favor_error(net, IMAGES) == favor_error(net, IMAGES)


def test_training_mode_stays():
    net = model(mixer="performer").train()
    favor_error(net, IMAGES)
    assert net.training


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"mixer": "conv"}, "no layer has performer or attention, but conv"),
        ({"mixer": "performer", "mixer_options": {"kind": "relu"}}, "ReLU features, which estimate no softmax"),
    ],
)
def test_what_has_no_such_error(options, told):
    with pytest.raises(RegardError, match=told):
        favor_error(model(**options), IMAGES)


def test_bad_arguments():
    with pytest.raises(RegardError, match="bound must be above 0"):
        favor_error(model(), IMAGES, bound=0.0)
    with pytest.raises(RegardError, match="SASAResNet has no token mixers"):
        favor_error(regard.create_model("resnet14_small"), IMAGES)
