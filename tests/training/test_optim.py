"""Which parameters decay, and the moving average."""

import pytest
import torch
from safetensors.torch import load_file

from regard.models import build, configure
from regard.recipes import TrainSection
from regard.training.optim import create_average, create_optimizer

SMALL = {"img_size": 4, "patch_size": 2, "embed_dim": 8, "depth": 1, "num_heads": 2, "num_classes": 3}

DECAYING = [
    "blocks.0.mixer.proj.weight",
    "blocks.0.mixer.qkv.weight",
    "blocks.0.mlp.fc1.weight",
    "blocks.0.mlp.fc2.weight",
    "head.weight",
    "patch_embed.proj.weight",
]
OTHERS = [
    "blocks.0.ls1.gamma",
    "blocks.0.ls2.gamma",
    "blocks.0.mixer.proj.bias",
    "blocks.0.mixer.qkv.bias",
    "blocks.0.mixer.rel_cols",
    "blocks.0.mixer.rel_rows",
    "blocks.0.mlp.fc1.bias",
    "blocks.0.mlp.fc2.bias",
    "blocks.0.norm1.bias",
    "blocks.0.norm1.weight",
    "blocks.0.norm2.bias",
    "blocks.0.norm2.weight",
    "cls_token",
    "head.bias",
    "norm.bias",
    "norm.weight",
    "patch_embed.proj.bias",
    "pos_embed.table",
]


def groups(model, train):
    """The names of the parameters that decay, and of the others."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    decaying, others = create_optimizer(model, train).param_groups
    assert (decaying["weight_decay"], others["weight_decay"]) == (0.3, 0.0)
    return sorted(names[p] for p in decaying["params"]), sorted(names[p] for p in others["params"])


def test_matrices_decay_and_nothing_else():
    model = build(configure("vit_pico_patch2_8", {**SMALL, "mixer": "local", "pool": "token", "layer_scale": 0.1}))
    assert groups(model, TrainSection(epochs=1, weight_decay=0.3)) == (DECAYING, OTHERS)


@pytest.mark.parametrize(
    ("mixer", "decaying"),
    [
        ("lstm", {"weight_ih_l0", "weight_hh_l0", "weight_ih_l0_reverse", "weight_hh_l0_reverse"}),
        ("conv", {"weight"}),
        ("fourier", set()),
    ],
)
def test_of_every_mixer_only_the_matrices_decay(mixer, decaying):
    model = build(configure("vit_pico_patch2_8", {**SMALL, "mixer": mixer}))
    found, others = groups(model, TrainSection(epochs=1, weight_decay=0.3))
    in_mixer = {name for name in found if ".mixer." in name}
    assert decaying <= {name.rpartition(".")[2] for name in in_mixer}
    assert all(dict(model.named_parameters())[name].ndim > 1 for name in found)
    assert len(found) + len(others) == len(list(model.parameters()))


def test_the_optimiser_takes_the_recipes_values():
    train = TrainSection(epochs=1, lr=0.25, betas=(0.5, 0.75))
    optimizer = create_optimizer(torch.nn.Linear(2, 3), train)
    assert all((group["lr"], group["betas"]) == (0.25, (0.5, 0.75)) for group in optimizer.param_groups)


@pytest.mark.parametrize("decay", [0.15, 0.999])
def test_the_average_follows_its_formula(decay):
    model = torch.nn.Linear(3, 5)
    model.register_buffer("count", torch.zeros(2))
    average = create_average(model, decay)
    expected = None
    for n in range(12):
        with torch.no_grad():
            model.weight.normal_()
            model.count.add_(1)
        average.update_parameters(model)
        weight = model.weight.detach().double()
        now = min(decay, (1 + n) / (10 + n))
        expected = weight if expected is None else now * expected + (1 - now) * weight
        torch.testing.assert_close(average.module.weight.double(), expected, rtol=1e-5, atol=1e-6)
        assert torch.equal(average.module.count, model.count)


def test_the_average_is_what_is_evaluated_and_saved_and_the_raw_weights_stay_in_the_state(trained):
    plain = trained("plain", "train.ema_decay=0")
    averaged = trained("averaged", "train.ema_decay=0.9")

    # The average does not change what is trained.
    losses = [[r["loss"] for r in run.history() if r["kind"] == "train"] for run in (plain, averaged)]
    assert losses[0] == losses[1]
    raw, kept = load_file(averaged.path / "state/step-6/model.safetensors"), load_file(averaged.weights_file)
    without = load_file(plain.weights_file)
    assert raw.keys() == kept.keys() == without.keys()
    assert all(torch.equal(raw[name], without[name]) for name in raw)
    assert not torch.equal(raw["head.weight"], kept["head.weight"])
    state = load_file(averaged.path / "state/step-6/average.safetensors")
    assert state.pop("n_averaged") == 6
    assert all(torch.equal(state[f"module.{name}"], tensor) for name, tensor in kept.items())
    assert averaged.summary()["loss"] != plain.summary()["loss"]
    assert averaged.summary()["parameters"] == plain.summary()["parameters"]
