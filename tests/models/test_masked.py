"""Masked image modelling: what is hidden goes nowhere, what is taken returns to its place, and each mixer's part."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from regard.errors import RegardError
from regard.losses import feature_loss, masked_loss
from regard.mixers import MIXERS
from regard.models import MaskedAutoencoder, SelfDistilled, SimMIM, ViT, ViTConfig, build, mixers_that_need_all
from regard.models.masked import put_back, taken
from regard.ops import hidden_patches, patches_of

# (15, 21) pixels in patches of 3: 5 × 7 of them.
SIZE, PATCHES = (15, 21), 35
SMALL = {"img_size": SIZE, "patch_size": 3, "num_classes": 0, "embed_dim": 22, "depth": 2, "num_heads": 2}
TAKES_SETS = ("attention", "performer", "none")
# Why a set of tokens is no input of the others: what breaks where some are left out or come in another order.
NEEDS_ALL = {
    "local": "who is a neighbour is read from the grid",
    "fourier": "it transforms the sequence of all tokens, whose order is what it means",
    "mlp": "its weights belong to one number of tokens, and to each place",
    "conv": "it mixes the neighbours on the grid",
    "lstm": "it reads the tokens in their order",
}


def vit(**changes: object) -> ViT:
    model = build(ViTConfig(**SMALL | changes))  # type: ignore[arg-type]
    assert isinstance(model, ViT)
    return model


def lessons(batch: int = 2) -> tuple[Tensor, Tensor]:
    """Images, and their patches in random orders."""
    return torch.randn(batch, 3, *SIZE), torch.stack([torch.randperm(PATCHES) for _ in range(batch)])


def mae(model: ViT, depth: int = 1) -> MaskedAutoencoder:
    return MaskedAutoencoder(model, mask_ratio=0.75, decoder_dim=32, decoder_depth=depth)


def with_hidden(images: Tensor, order: Tensor, ratio: float, value: float) -> Tensor:
    """The images with one value in all that is hidden."""
    _, hidden = hidden_patches(order, ratio)
    places = hidden.unflatten(1, (SIZE[0] // 3, SIZE[1] // 3)).repeat_interleave(3, 1).repeat_interleave(3, 2)
    return images.masked_fill(places[:, None], value)


# Shuffle and unshuffle


def test_what_is_taken_returns_to_its_place_in_every_order():
    tokens, mask_token = torch.randn(1, 4, 3), torch.full((1, 1, 3), 7.0)
    for order in itertools.permutations(range(4)):
        for visible in range(1, 5):
            places = torch.tensor([order[:visible]])
            found = put_back(taken(tokens, places), places, mask_token, 4)
            for place in range(4):
                wanted = tokens[0, place] if place in order[:visible] else mask_token[0, 0]
                assert torch.equal(found[0, place], wanted)


def test_each_image_of_a_batch_has_an_order_of_its_own():
    tokens, order = torch.randn(3, PATCHES, 5), torch.stack([torch.randperm(PATCHES) for _ in range(3)])
    assert torch.equal(put_back(taken(tokens, order), order, torch.zeros(1, 1, 5), PATCHES), tokens)
    visible = order[:, :11]
    for image in range(3):
        assert torch.equal(taken(tokens, visible)[image], tokens[image, visible[image]])


# The encoder


@pytest.mark.parametrize("changes", [{}, {"pool": "avg", "num_registers": 3}, {"mixer": "performer"}], ids=str)
def test_mae_is_the_encoder_on_the_visible_tokens_and_a_decoder_on_all(changes):
    encoder = vit(**changes).double()
    model, (images, order) = mae(encoder, depth=2).double(), lessons()
    images = images.double()
    found, hidden = model(images, order)
    tokens, _ = encoder._embedded(images)
    prefix, kept = encoder.grid.prefix, 9  # a quarter of 35
    for image in range(len(images)):
        places = order[image, :kept].tolist()
        x = tokens[image : image + 1, [*range(prefix), *(prefix + place for place in places)]]
        for block in encoder.blocks:
            x = block(x)
        x = model.decoder_embed(encoder.norm(x))
        rows = [model.mask_token[0, 0]] * PATCHES
        for number, place in enumerate(places):
            rows[place] = x[0, prefix + number]
        x = torch.cat([x[:, :prefix], torch.stack(rows)[None]], dim=1) + model.decoder_positions(encoder.grid)
        for block in model.decoder_blocks:
            x = block(x)
        assert_close(found[image], model.decoder_head(model.decoder_norm(x))[0, prefix:])
        assert sorted(places) == (~hidden[image]).nonzero()[:, 0].tolist()
    assert found.shape == patches_of(images, 3).shape


def test_simmims_tokens_are_the_vits_own_but_for_the_mask_tokens():
    """With the embedding of the only hidden patch as the mask token, they are those that a classifier reads."""
    model, (images, order) = SimMIM(vit(), mask_ratio=1e-3).double(), lessons()
    images = images.double()
    with torch.no_grad():
        model.mask_token.copy_(model.vit.patch_embed(images)[0, order[0, -1]])
    found, hidden = model(images, order)
    assert hidden.nonzero().tolist() == [[0, order[0, -1]], [1, order[1, -1]]]
    wanted = model.decoder_head(model.vit.forward_features(images)[:, 1:])
    assert_close(found[0], wanted[0])
    assert not torch.allclose(found[1], wanted[1])  # whose hidden patch is another


# What is hidden


def trained(model: torch.nn.Module, images: Tensor, order: Tensor) -> dict[str, Tensor]:
    """What a model makes of images, and the gradients of all weights that learn."""
    model.zero_grad()
    expected, told = model(images, order)
    if isinstance(model, SelfDistilled):
        loss = feature_loss(expected, torch.ones_like(told))  # the teacher sees the whole image
    else:
        loss, expected = masked_loss(expected, torch.ones_like(expected), told, power=1), expected[told]
    loss.backward()
    found = {name: value.grad for name, value in model.named_parameters() if value.requires_grad}
    return found | {"expected": expected.detach()}


@pytest.mark.parametrize("mixer", MIXERS)
@pytest.mark.parametrize("kind", ["mae", "simmim", "self"])
def test_what_is_hidden_reaches_neither_outputs_nor_gradients(kind, mixer):
    if kind == "mae" and mixer not in TAKES_SETS:
        pytest.skip("it needs all tokens")
    encoder = vit(mixer=mixer)
    if kind == "self":
        model = SelfDistilled(encoder, mask_ratio=0.6, momentum=0.9)
    else:
        model = mae(encoder) if kind == "mae" else SimMIM(encoder, mask_ratio=0.6)
    images, order = lessons()
    black, poisoned, other = (
        trained(model, with_hidden(images, order, model.mask_ratio, value), order) for value in (0.0, torch.nan, 1e30)
    )
    assert black.keys() == poisoned.keys()
    assert len(black) > 10
    for name, wanted in black.items():
        assert wanted is not None, name
        assert wanted.isfinite().all(), name
        assert torch.equal(poisoned[name], wanted), name
        assert torch.equal(other[name], wanted), name
    # And what is visible reaches them, unless no token learns of another.
    seen = trained(model, images + 1.0, order)
    assert torch.equal(seen["expected"], black["expected"]) == (mixer == "none" and kind != "mae")
    assert (black["vit.patch_embed.proj.weight"].abs().max() > 0) == (mixer != "none" or kind == "mae")


@pytest.mark.parametrize("mixer", MIXERS)
def test_simmim_learns_with_every_mixer(mixer):
    model, (images, order) = SimMIM(vit(mixer=mixer, depth=1), mask_ratio=0.6), lessons(3)
    wanted = patches_of(images, 3)
    optimizer, losses = torch.optim.AdamW(model.parameters(), lr=1e-2), []
    for _ in range(20):
        expected, hidden = model(images, order)
        loss = masked_loss(expected, wanted, hidden, power=1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.95 * losses[0]


def test_what_is_recomputed_in_the_backward_pass_is_the_same():
    for kind in (mae, lambda encoder: SimMIM(encoder, mask_ratio=0.6)):
        model, (images, order) = kind(vit()), lessons()
        plain = trained(model, images, order)
        calls = []
        model.vit.blocks[0].register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
        model.vit.gradient_checkpointing = True
        again = trained(model, images, order)
        assert len(calls) == 2
        assert all(torch.equal(again[name], value) for name, value in plain.items())


# Mixers and sets


def test_every_mixer_takes_sets_or_says_why_not():
    assert MIXERS.keys() == {*TAKES_SETS, *NEEDS_ALL}


@pytest.mark.parametrize("mixer", MIXERS)
def test_which_mixers_can_leave_tokens_out(mixer):
    config = ViTConfig(**SMALL | {"mixer": mixer})
    assert mixers_that_need_all(config) == ([] if mixer in TAKES_SETS else [mixer])


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"mixer": ("attention", "conv")}, ["conv"]),
        ({"mixer": ("mlp", "lstm")}, ["mlp", "lstm"]),
        ({"mixer": ("performer", "attention")}, []),
        ({"mixer_options": {"causal": True}}, ["attention"]),
        ({"mixer": "performer", "mixer_options": {"causal": True}}, ["performer"]),
        ({"mixer": "performer", "mixer_options": {"kind": "relu"}}, []),
        ({"mixer": ("attention", "conv"), "mixer_options": {"conv": {"kernel_size": 5}}}, ["conv"]),
    ],
    ids=str,
)
def test_options_and_mixed_blocks_count(changes, wanted):
    before = torch.random.get_rng_state()
    assert mixers_that_need_all(ViTConfig(**SMALL | changes)) == wanted
    assert torch.equal(torch.random.get_rng_state(), before)  # asking draws nothing from the run's own numbers


@pytest.mark.parametrize("mixer", NEEDS_ALL)
def test_mae_says_what_serves_a_mixer_that_needs_all(mixer):
    with pytest.raises(RegardError) as error:
        mae(vit(mixer=mixer))
    assert str(error.value) == (
        f"pretrain.method: mae leaves tokens out, which the mixer {mixer} cannot do without; simmim serves every mixer"
    )


# The target of self-distillation


def test_a_target_is_the_mean_of_the_last_blocks_each_normalised():
    student = vit(depth=5, num_registers=2).double()
    model, (images, order) = SelfDistilled(student, mask_ratio=0.6, momentum=0.9).double(), lessons()
    images = images.double()
    expected, wanted = model(images, order)
    _, hidden = hidden_patches(order, 0.6)
    x, grid = model.teacher._embedded(images)
    outputs = []
    for block in model.teacher.blocks:
        x = block(x, grid=grid)
        outputs.append(F.layer_norm(x, (22,))[:, 3:])
    assert model.layers == 2  # of 5
    assert_close(wanted, ((outputs[3] + outputs[4]) / 2)[hidden])
    assert expected.shape == wanted.shape == (2 * 21, 22)
    assert not wanted.requires_grad
    (expected - wanted).square().sum().backward()
    assert all(parameter.grad is None for parameter in model.teacher.parameters())
    assert all(parameter.grad is not None for name, parameter in student.named_parameters() if name != "norm"), "all"


def test_the_teacher_drops_no_paths():
    model, (images, order) = SelfDistilled(vit(drop_path=0.5), mask_ratio=0.6, momentum=0.9), lessons()
    model.train()
    assert torch.equal(model(images, order)[1], model(images, order)[1])
    assert model.vit.training


def distance(a: torch.nn.Module, b: torch.nn.Module) -> float:
    return max((x - y).abs().max().item() for x, y in zip(a.parameters(), b.parameters(), strict=True))


def moved() -> SelfDistilled:
    """A teacher whose student has gone on, in float64."""
    model = SelfDistilled(vit(), mask_ratio=0.6, momentum=0.93).double()
    with torch.no_grad():
        for parameter in model.vit.parameters():
            parameter.add_(torch.randn_like(parameter))
    return model


def test_the_teacher_begins_as_the_student_and_follows_it():
    model = moved()
    before = {name: tensor.clone() for name, tensor in model.teacher.named_parameters()}
    model.follow()
    for name, tensor in model.teacher.named_parameters():
        assert_close(tensor.data, 0.93 * before[name] + 0.07 * model.vit.get_parameter(name).data)
        assert not tensor.requires_grad
    for _ in range(500):
        model.follow()
    assert distance(model.teacher, model.vit) < 1e-12
