"""ViT as timm knows it: counts, outputs, gradients; and what it adds: mixers, intermediates, checkpointing, errors."""

import pytest
import safetensors.torch
import timm
import torch
from torch.testing import assert_close

from regard.errors import RegardError
from regard.layers import Grid
from regard.mixers import MIXERS
from regard.models import PRESETS, ViTConfig, build, configure
from regard.models.vit import DINOV2, LastBlock

VITS = [name for name in PRESETS if name.endswith("_224") and timm.is_model(name)]
# (36, 24) pixels in patches of 12: 3 × 2 of them.
TINY = {"img_size": (36, 24), "patch_size": 12, "num_classes": 7, "embed_dim": 20, "depth": 3, "num_heads": 5}


def tiny(**changes):
    return build(ViTConfig(**TINY | changes))


def pictures(height=36, width=24, batch=2, dtype=torch.float32):
    return torch.randn(batch, 3, height, width, dtype=torch.float64).to(dtype)


def from_timm(name, **kwargs):
    """timm's model with random weights in every parameter, and ours with the same; in float64."""
    theirs = timm.create_model(name, num_classes=7, **kwargs).double()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    changes = {key: kwargs[key] for key in ("img_size", "depth")} | {"num_classes": 7}
    if kwargs.get("global_pool") == "avg":
        changes["pool"] = "avg"
    ours = build(configure(name, changes)).double()
    ours.load_state_dict({renamed(key): tensor for key, tensor in theirs.state_dict().items()}, strict=True)
    return theirs, ours


def renamed(key):
    return key.replace(".attn.", ".mixer.").replace("pos_embed", "pos_embed.table")


# Against timm


def on_meta(function):
    with torch.device("meta"):
        return function()


@pytest.mark.parametrize("name", VITS)
def test_parameters_are_as_many_as_timms(name):
    ours = list(on_meta(lambda: build(PRESETS[name])).parameters())
    theirs = list(on_meta(lambda: timm.create_model(name, num_classes=1000)).parameters())
    assert sum(p.numel() for p in ours) == sum(p.numel() for p in theirs)
    assert sorted(p.shape for p in ours) == sorted(p.shape for p in theirs)


@pytest.mark.parametrize(
    ("name", "millions"),
    [("vit_base_patch16_224", 86.57), ("vit_large_patch16_224", 304.33), ("vit_huge_patch14_224", 632.05)],
)
def test_parameters_are_as_many_as_published(name, millions):
    model = on_meta(lambda: build(PRESETS[name]))
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 2) == millions


@pytest.mark.parametrize("mixer", MIXERS)
def test_every_mixer_can_be_built_without_memory(mixer):
    model = on_meta(lambda: tiny(mixer=mixer))
    assert all(tensor.is_meta for tensor in model.state_dict().values())


@pytest.mark.parametrize(
    "kwargs",
    [
        {"img_size": (48, 32), "depth": 4},
        {"img_size": (32, 80), "global_pool": "avg", "class_token": False, "fc_norm": False, "depth": 3},
    ],
    ids=["token", "avg"],
)
def test_same_weights_give_what_timm_gives(kwargs):
    """Features, pre-logits, logits and every gradient, in float64, of images that are not square."""
    theirs, ours = from_timm("vit_tiny_patch16_224", **kwargs)
    images = pictures(*kwargs["img_size"], dtype=torch.float64)
    every = ours.eval().intermediates(images)
    logits = every["logits"]
    features = theirs.eval().forward_features(images)
    assert_close(every["features"], features, rtol=1e-10, atol=1e-10)
    assert_close(every["pre_logits"], theirs.forward_head(features, pre_logits=True), rtol=1e-10, atol=1e-10)
    assert_close(logits, theirs(images), rtol=1e-10, atol=1e-10)
    assert_close(ours(images), logits, rtol=1e-10, atol=1e-10)
    assert ours.forward_features(images).equal(every["features"])
    assert ours.forward_head(every["features"]).equal(logits)

    for model in (ours, theirs):
        model(images).square().sum().backward()
    expected = {renamed(key): parameter.grad for key, parameter in theirs.named_parameters()}
    actual = {key: parameter.grad for key, parameter in ours.named_parameters()}
    assert actual.keys() == expected.keys()
    for key, gradient in actual.items():
        assert gradient.ne(0).any(), key
        assert_close(gradient, expected[key], rtol=1e-9, atol=1e-9, msg=lambda m, key=key: f"{key}: {m}")


def test_another_image_size_equals_timms_dynamic_one():
    """Positions are resampled; in float32 on both sides, whence 1e-6."""
    theirs, ours = from_timm("vit_tiny_patch16_224", img_size=(48, 32), dynamic_img_size=True, depth=3)
    images = pictures(32, 80, dtype=torch.float64)
    assert_close(ours.eval()(images), theirs.eval()(images), rtol=1e-6, atol=1e-6)


# Forward


def test_num_classes_zero_gives_the_pooled_features():
    model = tiny(num_classes=0)
    images = pictures()
    assert_close(model(images), model.forward_features(images)[:, 0], rtol=1e-5, atol=1e-5)
    assert model.flops() == tiny().flops() - 2 * 20 * 7


@pytest.mark.parametrize("positions", ["learned", "sine", "none"])
def test_positions(positions):
    """With none of them, and attention, exchanging two patches does not change the logits."""
    model = tiny(positions=positions).eval()
    images = pictures()
    exchanged = images.clone()
    exchanged[:, :, :12, :12], exchanged[:, :, 24:, 12:] = images[:, :, 24:, 12:], images[:, :, :12, :12]
    same = torch.allclose(model(images), model(exchanged), atol=1e-5)
    assert same == (positions == "none")
    assert any("pos_embed" in key for key in model.state_dict()) == (positions == "learned")


@pytest.mark.parametrize("pool", ["token", "avg"])
def test_intermediates(pool):
    model = tiny(pool=pool, layer_scale=0.1).eval()
    images = pictures()
    every = model.intermediates(images)
    inside = [f"blocks.{i}{part}" for i in range(3) for part in (".mixer_input", ".mixer_output", "")]
    assert (
        list(every)
        == model.intermediate_names()
        == ["patches", "embedding", *inside, "features", "pre_logits", "logits"]
    )
    tokens = 6 + (pool == "token")
    assert every["patches"].shape == (2, 6, 20)
    assert all(every[name].shape == (2, tokens, 20) for name in ["embedding", *inside, "features"])
    assert every["pre_logits"].shape == (2, 20)
    assert_close(every["logits"], model(images), rtol=1e-5, atol=1e-5)
    assert every["patches"].equal(model.patch_embed(images))
    assert every["blocks.1.mixer_input"].equal(model.blocks[1].norm1(every["blocks.0"]))
    mixer, grid = model.blocks[1].mixer, Grid(3, 2, prefix=tokens - 6)
    assert every["blocks.1.mixer_output"].equal(mixer(every["blocks.1.mixer_input"], grid=grid))
    assert every["features"].equal(model.norm(every["blocks.2"]))
    some = model.intermediates(images, ["logits", "blocks.1"])
    assert list(some) == ["logits", "blocks.1"]
    assert some["blocks.1"].equal(every["blocks.1"])
    assert model.intermediates(images, []) == {}


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("pool", ["token", "avg"])
@pytest.mark.parametrize("mixer", MIXERS)
def test_what_the_head_does_not_read_may_be_left_out(mixer, pool, training):
    """The last block finishes every token, or the class token alone: the same logits and gradients."""
    model = tiny(mixer=mixer, pool=pool, drop_path=0.5, layer_scale=0.1).double().train(training)
    images, results = pictures(batch=5, dtype=torch.float64), []
    for forward in (model, lambda images: model.forward_head(model.forward_features(images))):
        model.zero_grad()
        torch.manual_seed(5)
        logits = forward(images)
        logits.square().sum().backward()
        results.append([logits, *(parameter.grad for parameter in model.parameters())])
    for short, full in zip(*results, strict=True):
        assert_close(short, full, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("first", [1, 5, None])
def test_the_last_block_can_finish_its_first_tokens_alone(first):
    """They are mixed with all the others."""
    model, grid, x = tiny(layer_scale=0.1).eval(), Grid(3, 2, 1), torch.randn(2, 7, 20)
    whole = super(LastBlock, model.blocks[-1]).forward(x, grid=grid)
    assert_close(model.blocks[-1](x, grid=grid, first=first), whole[:, :first], rtol=1e-5, atol=1e-5)


def test_an_unknown_intermediate():
    with pytest.raises(
        RegardError, match=r"^unknown intermediate 'block\.1'; did you mean 'blocks\.1'\? Known: blocks\.0"
    ):
        tiny().intermediates(pictures(), ["block.1"])


def test_gradient_checkpointing_changes_nothing():
    """Not a gradient, and with drop path not the images that it leaves out; and it does run blocks again."""
    model = tiny(drop_path=0.5, layer_scale=0.1).train()
    images, gradients, calls = pictures(batch=5), [], []
    model.blocks[1].register_forward_pre_hook(lambda *_: calls.append(1))
    for on in (False, True):
        model.gradient_checkpointing = on
        model.zero_grad()
        torch.manual_seed(5)
        model(images).square().sum().backward()
        gradients.append({key: parameter.grad for key, parameter in model.named_parameters()})
    assert len(calls) == 1 + 2
    for key, gradient in gradients[0].items():
        assert gradient.ne(0).any(), key
        assert_close(gradients[1][key], gradient, rtol=1e-6, atol=1e-7)


def test_drop_path_is_for_training_and_rises_linearly():
    model = tiny(drop_path=0.4)
    images = pictures(batch=13)
    assert [block.drop_path.rate for block in model.blocks] == pytest.approx([0, 0.2, 0.4])
    assert not model.train()(images).equal(model(images))
    assert model.eval()(images).equal(model(images))
    twin = tiny()
    twin.load_state_dict(model.state_dict(), strict=True)
    assert twin(images).equal(model(images))


# Mixers


@pytest.mark.parametrize("pool", ["token", "avg"])
@pytest.mark.parametrize("mixer", MIXERS)
def test_every_mixer_makes_a_model(mixer, pool):
    """It runs forward and backward, the logits depend on the image, and two evaluations give the same bits.

    That each parameter matters is asked of each mixer alone: a class token may see none of what the last block does.
    """
    model, images = tiny(mixer=mixer, pool=pool).train(), pictures().requires_grad_()
    model(images).square().sum().backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
    sees = (mixer, pool) != ("none", "token")  # without mixing, a class token sees nothing of the image
    assert images.grad.ne(0).any() == sees
    assert model.patch_embed.proj.weight.grad.ne(0).any() == sees
    assert model.head.weight.grad.ne(0).all()
    assert model.eval()(images).equal(model(images))
    assert model(images).shape == (2, 7)


def test_a_mixer_for_each_block_with_options_of_its_own():
    model = tiny(mixer=("conv", "local", "conv"), mixer_options={"conv": {"kernel_size": 5}, "local": {"window": 3}})
    assert [block.mixer.name for block in model.blocks] == ["conv", "local", "conv"]
    assert model.blocks[0].mixer.depthwise.kernel_size == model.blocks[2].mixer.depthwise.kernel_size == (5, 5)
    assert model.blocks[1].mixer.window == 3
    assert model(pictures()).isfinite().all()


def test_options_go_straight_to_the_one_mixer():
    for mixer in ("local", ("local",) * 3):
        model = tiny(mixer=mixer, mixer_options={"window": 5})
        assert [block.mixer.window for block in model.blocks] == [5, 5, 5]


def test_options_may_be_tables_of_more_mixers_than_the_model_has():
    """One table serves a comparison of several."""
    tables = {"conv": {"kernel_size": 5}, "local": {"window": 3}}
    assert tiny(mixer="local", mixer_options=tables).blocks[0].mixer.window == 3
    assert tiny(mixer="attention", mixer_options=tables)(pictures()).isfinite().all()


def test_options_beside_tables_are_not_swallowed():
    with pytest.raises(RegardError, match="windw"):
        tiny(mixer="local", mixer_options={"local": {"window": 3}, "windw": 5})


@pytest.mark.parametrize("mixer", ["attention", "local", "performer", "fourier", "conv", "lstm", "none"])
def test_models_take_other_image_sizes(mixer):
    model = tiny(mixer=mixer, positions="sine")
    assert model(pictures(24, 60)).shape == (2, 7)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mixer": ("attention", "conv")}, r"^model: 2 mixers for a depth of 3; name one, or one a block"),
        ({"mixer": "atention"}, r"^unknown mixer 'atention'; did you mean 'attention'\?"),
        (
            {"mixer": "local", "mixer_options": {"windw": 3}},
            r"^mixer local: unknown option 'windw'; did you mean 'window'",
        ),
        (
            {"mixer": ("local", "conv", "conv"), "mixer_options": {"locl": {"window": 3}}},
            r"^mixer local: unknown option 'locl'",
        ),
        ({"img_size": (36, 25)}, r"36 × 25 pixels is not whole patches of 12"),
        ({"num_heads": 3}, r"^attention: embed_dim 20 does not divide into num_heads 3"),
        ({"embed_dim": 25, "positions": "sine"}, r"embed_dim must be a multiple of 4, got 25"),
    ],
)
def test_errors_of_build(changes, message):
    with pytest.raises(RegardError, match=message):
        tiny(**changes)(pictures())


@pytest.mark.parametrize(
    ("height", "width", "channels", "message"),
    [
        (36, 25, 3, "36 × 25 pixels is not whole patches of 12"),
        (36, 24, 1, "the images have 1 channels, the model takes 3"),
    ],
)
def test_errors_of_forward(height, width, channels, message):
    with pytest.raises(RegardError, match=message):
        tiny()(torch.randn(2, channels, height, width))


def test_token_mlp_says_that_the_image_size_cannot_change():
    with pytest.raises(RegardError, match=r"mlp: was built for 7 tokens and got 11; .* the image size cannot change"):
        tiny(mixer="mlp", positions="sine")(pictures(24, 60))


# Configurations


def test_configure_replaces_values():
    config = configure("vit_base_patch16_224", {"img_size": [36, 24], "mixer": ["conv"] * 12, "drop_path": 0})
    assert config == ViTConfig(img_size=(36, 24), mixer=("conv",) * 12)
    assert configure("vit_base_patch16_224", {}) == PRESETS["vit_base_patch16_224"]


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        (
            "vit_bse_patch16_224",
            {},
            r"^unknown model 'vit_bse_patch16_224'; did you mean 'vit_base_patch16_224'\? Known: ",
        ),
        (
            "vit_base_patch16_224",
            {"dept": 3},
            r"^unknown key 'model\.dept'; did you mean 'model\.depth'\? Known: model\.",
        ),
        ("vit_base_patch16_224", {"depth": "many"}, r"^model\.depth: input should be a valid integer.*, got 'many'$"),
        ("vit_base_patch16_224", {"depth": 0}, r"^model\.depth: input should be greater than 0, got 0$"),
        ("vit_base_patch16_224", {"depth": 2.5}, r"^model\.depth: .*integer.*, got 2\.5$"),
        ("vit_base_patch16_224", {"drop_path": 1.0}, r"^model\.drop_path: input should be less than 1, got 1\.0$"),
        ("vit_base_patch16_224", {"drop_path": -0.1}, r"^model\.drop_path: input should be greater than or equal to 0"),
        (
            "vit_base_patch16_224",
            {"pool": "max"},
            r"^model\.pool: input should be 'token', 'avg', 'token_avg' or 'distilled', got 'max'$",
        ),
        ("vit_base_patch16_224", {"img_size": (3, 5, 7)}, r"^model\.img_size: .*, got \(3, 5, 7\)$"),
        ("vit_base_patch16_224", {"mixer_options": 3}, r"^model\.mixer_options: .*dictionary.*, got 3$"),
    ],
)
def test_errors_of_configure(name, overrides, message):
    with pytest.raises(RegardError, match=message):
        configure(name, overrides)


def test_errors_of_configure_say_where():
    with pytest.raises(RegardError, match=r"^my\.toml \[model\]\.depth: "):
        configure("vit_base_patch16_224", {"depth": "many"}, where="my.toml [model]")
    with pytest.raises(RegardError, match=r"^my\.toml: unknown model 'zzz'"):
        configure("zzz", {}, where="my.toml")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow) if name == "mixer_h14_224" else name
        for name in PRESETS
        if isinstance(PRESETS[name], ViTConfig) and name not in (*VITS, *DINOV2)
    ],
)
def test_the_small_presets_run(name):
    config = PRESETS[name]
    images = torch.randn(2, config.in_chans, config.img_size, config.img_size)
    assert build(config)(images).shape == (2, config.num_classes)


@pytest.mark.parametrize(
    "changes", [{}, {"mixer": "performer", "layer_scale": 0.1, "positions": "sine", "pool": "avg"}]
)
def test_saved_and_loaded_it_gives_the_same_bits(changes):
    model, images = tiny(**changes).eval(), pictures()
    saved = safetensors.torch.save(model.state_dict())
    other = tiny(**changes).eval()
    assert not other(images).equal(model(images))
    other.load_state_dict(safetensors.torch.load(saved), strict=True)
    assert other(images).equal(model(images))


def test_state_dict_has_no_surprises():
    """Parameters, under timm's names but for `mixer` and `pos_embed.table`; and performer's features."""
    names = set(tiny().state_dict())
    assert names == {renamed(k) for k in timm.create_model("vit_tiny_patch16_224", depth=3, img_size=32).state_dict()}
    model = tiny(mixer="performer", layer_scale=0.1)
    extra = set(model.state_dict()) - names
    assert extra == {f"blocks.{i}.{part}" for i in range(3) for part in ("mixer.projection", "ls1.gamma", "ls2.gamma")}
    assert {key for key in extra if "projection" in key} == set(model.state_dict()) - {
        k for k, _ in model.named_parameters()
    }


# Operations


def test_flops_of_vit_base_equal_the_hand_count():
    """Multiplies and adds, of 14 × 14 patches and a class token at a width of 768, in each of 12 blocks

    q, k, v, out       4 · 768² a token
    MLP                2 · 4 · 768² a token
    q kᵀ, weights v    2 · 768 a pair of tokens

    and 768 · (3 · 16²) for each patch before, 768 · 1000 after: 35.1 GFLOP with an add and a multiply as two.
    """
    tokens = 14 * 14 + 1
    block = tokens * (4 + 8) * 768**2 + tokens**2 * 2 * 768
    expected = 2 * (14 * 14 * 768 * 3 * 16**2 + 12 * block + 768 * 1000)
    assert round(expected / 1e9, 1) == 35.1
    # A build of the full width takes a second and memory; the blocks are alike, so two depths tell.
    one, two = (build(configure("vit_base_patch16_224", {"depth": depth})).flops() for depth in (1, 2))
    assert one + 11 * (two - one) == expected


@pytest.mark.parametrize("mixer", MIXERS)
def test_flops_are_the_sum_of_the_parts(mixer):
    model = tiny(mixer=mixer)
    grid = Grid(3, 2, 1)
    assert model.grid == grid
    mlp = 2 * 7 * 20 * 80 * 2
    expected = 2 * 6 * 20 * 3 * 144 + sum(block.mixer.flops(grid) + mlp for block in model.blocks) + 2 * 20 * 7
    assert model.flops() == expected


def test_initial_weights():
    """Linear maps and the patches' have a variance of 1 / fan-in, and no bias; positions the deviation asked for."""
    model = build(ViTConfig(img_size=80, embed_dim=96, depth=2, num_heads=3, position_std=0.3))
    linear = [module for module in model.modules() if isinstance(module, torch.nn.Linear | torch.nn.Conv2d)]
    assert len(linear) == 2 + 2 * 4
    for module in linear:
        fan_in = module.weight[0].numel()
        assert module.weight.std().item() * fan_in**0.5 == pytest.approx(1, rel=0.03)
        assert module.bias.eq(0).all()
    assert model.pos_embed.table.std().item() == pytest.approx(0.3, rel=0.05)
