"""`regard.swap_mixer`, and performers whose features change."""

import pytest
import torch
from torch.testing import assert_close

import regard
from regard.errors import RegardError
from regard.mixers import redraw_features
from regard.models import build, configure


def model(**options):
    torch.manual_seed(0)
    return regard.create_model("vit_pico_patch2_8", **options).eval()


IMAGES = torch.rand(3, 1, 8, 8)


@pytest.mark.parametrize("first", ["attention", "local", "performer"])
@pytest.mark.parametrize("second", ["attention", "local", "performer"])
@pytest.mark.parametrize("fused", [False, True])
def test_there_and_back(first, second, fused):
    """The projections stay the same tensors; what is saved builds the model again."""
    net = model(mixer=first, mixer_options={first: {"fused_qkv": fused}})
    kept = {name: tensor for name, tensor in net.named_parameters() if ".rel_" not in name}
    assert regard.swap_mixer(net, second) is net
    assert net.config.mixer == (second,) * 3
    assert {name for name, _ in net.named_parameters() if ".rel_" not in name} == kept.keys()
    assert all(dict(net.named_parameters())[name] is tensor for name, tensor in kept.items())
    again = build(net.config) if fused else None
    if again is not None:
        again.load_state_dict(net.state_dict())
        assert_close(again.eval()(IMAGES), net(IMAGES))


def test_local_begins_as_attention_in_its_window():
    net = model()
    wanted = net(IMAGES)
    regard.swap_mixer(net, "local", options={"window": 7})  # over the whole grid of 4 × 4
    assert_close(net(IMAGES), wanted)


def test_many_features_come_close_to_attention():
    net = model()
    wanted = net(IMAGES)
    regard.swap_mixer(net, "performer", options={"num_features": 4096})
    assert (net(IMAGES) - wanted).norm() < 0.2 * wanted.norm()


def test_some_blocks():
    net = regard.swap_mixer(model(), "performer", [0, -1], options={"num_features": 8})
    assert net.config.mixer == ("performer", "attention", "performer")
    assert len(net.blocks[2].mixer.projection) == 8


def test_a_detr_and_a_language_model():
    detr = regard.create_model("detr_mini", embed_dim=32, num_queries=5)
    regard.swap_mixer(detr, "performer", [0, 1, 2])
    assert [layer.mixer.name for layer in detr.encoder.layers] == ["performer"] * 3
    language = regard.swap_mixer(regard.create_model("language_mini", depth=2), "performer")
    assert all(layer.mixer.causal for layer in language.decoder.layers)


@pytest.mark.parametrize(
    ("mixer", "name", "blocks", "told"),
    [
        (
            "attention",
            "fourier",
            None,
            "fourier has no projections of q, k and v; mixers that have them: attention, local",
        ),
        ("mlp", "attention", None, "block 0 has mlp, which shares no projections with attention"),
        ("attention", "performr", None, "unknown mixer 'performr'; did you mean 'performer'"),
        ("attention", "local", [3], "there is no block 3; the model has 3"),
    ],
)
def test_what_cannot_be_swapped(mixer, name, blocks, told):
    net = model(mixer=mixer)
    before = [block.mixer for block in net.blocks]
    with pytest.raises(RegardError, match=told):
        regard.swap_mixer(net, name, blocks)
    assert [block.mixer for block in net.blocks] == before


def test_a_model_without_mixers():
    with pytest.raises(RegardError, match="SASAResNet has no token mixers"):
        regard.swap_mixer(regard.create_model("resnet14_small"), "local")


def test_features_are_redrawn_by_step_alone():
    net = model(mixer="performer", mixer_options={"redraw_every": 3, "seed": 5})
    seen = []
    for step in range(7):
        redraw_features(net, step)
        seen.append(net.blocks[0].mixer.projection.clone())
    assert seen[0].equal(seen[2])
    assert seen[3].equal(seen[5])
    assert not seen[2].equal(seen[3])
    assert not seen[5].equal(seen[6])
    resumed = model(mixer="performer", mixer_options={"redraw_every": 3, "seed": 5})
    redraw_features(resumed, 6)
    assert resumed.blocks[0].mixer.projection.equal(seen[6])
    assert net(IMAGES).equal(net(IMAGES))


def test_without_the_option_nothing_is_redrawn():
    net = model(mixer="performer")
    before = net.blocks[0].mixer.projection.clone()
    redraw_features(net, 1000)
    assert net.blocks[0].mixer.projection.equal(before)


def test_options_of_the_configuration():
    with pytest.raises(RegardError, match="unknown kind of features 'sofmax'"):
        model(mixer="performer", mixer_options={"kind": "sofmax"})
    with pytest.raises(RegardError, match="num_features"):
        model(mixer="performer", mixer_options={"num_features": 0})
    assert configure("vit_pico_patch2_8", {"mixer": "performer"})
