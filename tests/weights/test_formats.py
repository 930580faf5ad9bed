"""Others' models and ours with the same weights: the same features, logits and gradients; and back again."""

import pytest
import torch
from torch.testing import assert_close

import regard
from regard.models import PRESETS, ViT, ViTConfig, build
from regard.weights import written_as

SIZES = {"img_size": 21, "patch_size": 7, "num_classes": 11, "embed_dim": 24, "depth": 3, "num_heads": 3}
# What a preset is made of, at a grid of some patches, so that it fits in memory beside its peer.
SMALL_GRID = {16: 48, 32: 96, 14: 42}


def shaken(model, dtype=torch.float32):
    """Norms, biases and tokens that are not zero or one, so that none of them can be left out."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim < 2 or ("token" in name and "token_" not in name) or "head" in name:
                parameter.normal_(1.0 if "norm" in name and name.endswith("weight") else 0.0, 0.3)
    return model.to(dtype).eval()


def ours_like(**changed):
    return ViT(ViTConfig(**{**SIZES, **changed})).eval()


def timm_vit(**changed):
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(**{**SIZES, **changed})


def transformers_model(kind, head="ForImageClassification", *, mlp=None, **changed):
    import transformers

    sizes = {"image_size": 21, "patch_size": 7, "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 3}
    mlp = {"intermediate_size": 96} if mlp is None else mlp
    config = getattr(transformers, f"{kind}Config")(**sizes, **mlp, num_labels=11, layer_norm_eps=1e-6, **changed)
    return getattr(transformers, f"{kind}{head}")(config)


def dinov2(kind="Dinov2", **changed):
    return transformers_model(kind, mlp={"mlp_ratio": 4}, layerscale_value=0.7, **changed)


def torchvision_vit():
    from torchvision.models.vision_transformer import VisionTransformer

    model = VisionTransformer(21, 7, 3, 3, 24, 96, num_classes=11)
    torch.nn.init.normal_(model.heads.head.weight)
    return model


def timm_mixer():
    from timm.models.mlp_mixer import MlpMixer

    return MlpMixer(num_classes=11, img_size=21, patch_size=7, num_blocks=3, embed_dim=24)


def distilled():
    from timm.models.deit import VisionTransformerDistilled

    return VisionTransformerDistilled(**SIZES)


REGISTERS = {"num_registers": 4, "layer_scale": 0.5}
CASES = {
    "timm": (timm_vit, {}, "timm"),
    "timm, layer scale": (lambda: timm_vit(init_values=0.5), {"layer_scale": 0.5}, "timm"),
    "timm, registers": (
        lambda: timm_vit(init_values=0.5, reg_tokens=4, no_embed_class=True),
        REGISTERS,
        "timm",
    ),
    "timm, registers with positions": (lambda: timm_vit(init_values=0.5, reg_tokens=4), REGISTERS, "timm"),
    "timm, no class token": (
        lambda: timm_vit(class_token=False, global_pool="avg"),
        {"pool": "avg", "fc_norm": True},
        "timm",
    ),
    "timm, no class token, norm before": (
        lambda: timm_vit(class_token=False, global_pool="avg", fc_norm=False),
        {"pool": "avg"},
        "timm",
    ),
    "timm, class token and mean": (
        lambda: timm_vit(global_pool="avg"),
        {"pool": "avg", "class_token": True, "fc_norm": True},
        "timm",
    ),
    "timm, distilled": (distilled, {"pool": "distilled", "num_registers": 1}, "timm"),
    "timm, mixer": (timm_mixer, {"mixer": "mlp", "pool": "avg", "positions": "none"}, "timm"),
    "transformers, ViT": (lambda: transformers_model("ViT"), {}, "transformers"),
    "transformers, DeiT": (lambda: transformers_model("DeiT"), {"num_registers": 1}, "transformers"),
    "transformers, DeiT with a teacher": (
        lambda: transformers_model("DeiT", "ForImageClassificationWithTeacher"),
        {"num_registers": 1, "pool": "distilled"},
        "transformers",
    ),
    "transformers, DINOv2": (dinov2, {"pool": "token_avg", "layer_scale": 1.0}, "transformers"),
    "transformers, DINOv2 with registers": (
        lambda: dinov2("Dinov2WithRegisters", num_register_tokens=4),
        {"pool": "token_avg", **REGISTERS},
        "transformers",
    ),
    "torchvision": (torchvision_vit, {}, "torchvision"),
}


def logits_of(theirs, images):
    found = theirs(images)
    return getattr(found, "logits", found)


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize("case", CASES)
def test_the_same_outputs_and_gradients(case, dtype, atol):
    make, changed, format_ = CASES[case]
    theirs = shaken(make(), dtype)
    ours = ours_like(**changed).to(dtype)
    loaded = regard.load_weights(ours, theirs.state_dict())
    assert (loaded.format, loaded.notes) == (format_, ())
    images = torch.randn(2, 3, 21, 21, dtype=dtype)
    mine, wanted = images.clone().requires_grad_(), images.clone().requires_grad_()
    found, expected = ours(mine), logits_of(theirs, wanted)
    assert_close(found, expected, rtol=0, atol=atol)
    if hasattr(theirs, "forward_features"):
        assert_close(ours.forward_features(images), theirs.forward_features(images), rtol=0, atol=atol)
    if hasattr(theirs, "forward_head") and changed.get("pool") != "distilled":
        pre_logits = theirs.forward_head(theirs.forward_features(images), pre_logits=True)
        assert_close(ours.intermediates(images, ["pre_logits"])["pre_logits"], pre_logits, rtol=0, atol=atol)
    (found**2).sum().backward()
    (expected**2).sum().backward()
    scale = wanted.grad.abs().max()
    assert_close(mine.grad / scale, wanted.grad / scale, rtol=0, atol=atol)
    # Gradients are tensors under the same names: the map of the weights is theirs too.
    gradients = {name: p.grad for name, p in theirs.named_parameters() if p.grad is not None}
    for name, gradient in written_gradients(ours, format_).items():
        if name.endswith("register_tokens"):
            continue  # rows of the table that only ours has are added to them
        if name in gradients and gradient.shape == gradients[name].shape:
            top = gradients[name].abs().max().clamp(min=1)
            assert_close(gradient / top, gradients[name] / top, rtol=0, atol=atol, msg=name)


def written_gradients(ours, format_):
    return written_as({name: p.grad for name, p in ours.named_parameters()}, format_)


@pytest.mark.parametrize("case", CASES)
def test_a_round_trip_is_exact(case):
    make, changed, format_ = CASES[case]
    theirs, ours = shaken(make()), ours_like(**changed)
    state = theirs.state_dict()
    regard.load_weights(ours, state)
    back = written_as(ours.state_dict(), format_)
    assert back.keys() == state.keys()
    for name, tensor in state.items():
        if not name.endswith("mask_token"):  # nothing reads it
            assert torch.equal(back[name], tensor), name
    theirs.load_state_dict(back)
    again = ours_like(**changed)
    regard.load_weights(again, back, format=format_)
    assert all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), ours.state_dict().values(), strict=True))


@pytest.mark.parametrize("changed", [{}, {"mixer": "mlp", "pool": "avg", "positions": "none"}])
def test_google_npz(changed, tmp_path):
    """timm reads Google's files by itself: what we write, it must read as the same model."""
    import numpy as np

    ours = shaken(ours_like(**changed))
    arrays = written_as(ours.state_dict(), "google", num_heads=3)
    np.savez(tmp_path / "model.npz", **{name: tensor.numpy() for name, tensor in arrays.items()})
    theirs = (timm_mixer() if changed else timm_vit()).eval()
    if changed:
        from timm.models.mlp_mixer import checkpoint_filter_fn  # noqa: F401 (it knows no npz: ours alone)

        theirs.load_state_dict(written_as(ours.state_dict(), "timm"))
    else:
        theirs.load_pretrained(str(tmp_path / "model.npz"))
    images = torch.randn(2, 3, 21, 21)
    again = ours_like(**changed)
    loaded = regard.load_weights(again, tmp_path / "model.npz")
    assert loaded.format == "google"
    for name, tensor in ours.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    assert_close(again(images), theirs(images), rtol=0, atol=1e-5)


VITS = [
    name
    for name, config in PRESETS.items()
    if isinstance(config, ViTConfig) and name.startswith(("vit_", "mixer_", "dinov2_")) and "mini" not in name
    if "pico" not in name
]


def timm_name(name):
    if not name.startswith("dinov2"):
        return name
    size = {"s": "small", "b": "base", "l": "large"}[name[10]]
    return f"vit_{size}_patch14_{'reg4_' if 'reg4' in name else ''}dinov2"


@pytest.mark.slow
@pytest.mark.parametrize("name", VITS)
def test_every_preset_is_timms(name):
    import timm

    config = PRESETS[name]
    big = config.embed_dim * config.depth > 12 * 768
    dtype, atol = (torch.float32, 1e-5) if big else (torch.float64, 1e-10)
    size = SMALL_GRID[config.patch_size]
    torch.manual_seed(0)
    if not timm.is_model(timm_name(name)):
        pytest.skip("timm has no such model")
    theirs = timm.create_model(timm_name(name), img_size=size, num_classes=config.num_classes).to(dtype).eval()
    ours = regard.create_model(name, img_size=size).to(dtype).eval()
    regard.load_weights(ours, theirs.state_dict())
    assert sum(p.numel() for p in ours.parameters()) >= sum(p.numel() for p in theirs.parameters())
    images = torch.randn(1, 3, size, size, dtype=dtype)
    found, wanted = ours.forward_features(images), theirs.forward_features(images)
    scale = wanted.abs().max()
    assert_close(found / scale, wanted / scale, rtol=0, atol=atol)
    assert_close(ours(images), theirs(images), rtol=0, atol=atol)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vit_b_16", "vit_l_32"])
def test_torchvisions_presets(name):
    import torchvision

    ours_name = {"vit_b_16": "vit_base_patch16_224", "vit_l_32": "vit_large_patch16_224"}[name]
    patch = int(name[-2:])
    theirs = getattr(torchvision.models, name)(image_size=3 * patch).eval()
    torch.nn.init.normal_(theirs.heads.head.weight, std=0.05)
    ours = regard.create_model(ours_name, img_size=3 * patch, patch_size=patch).eval()
    regard.load_weights(ours, theirs.state_dict())
    images = torch.randn(2, 3, 3 * patch, 3 * patch)
    with torch.no_grad():
        assert_close(ours(images), theirs(images), rtol=0, atol=1e-5)


def test_older_names_of_transformers():
    """What most files on the hub have."""
    theirs = shaken(transformers_model("ViT"))
    older = {}
    for name, tensor in theirs.state_dict().items():
        for new, old in (
            ("vit.layers", "vit.encoder.layer"),
            ("attention.q_proj", "attention.attention.query"),
            ("attention.k_proj", "attention.attention.key"),
            ("attention.v_proj", "attention.attention.value"),
            ("attention.o_proj", "attention.output.dense"),
            ("mlp.fc1", "intermediate.dense"),
            ("mlp.fc2", "output.dense"),
        ):
            name = name.replace(new, old)
        older[name] = tensor
    ours = ours_like()
    assert regard.load_weights(ours, older).format == "transformers"
    images = torch.randn(2, 3, 21, 21)
    assert_close(ours(images), theirs(images).logits, rtol=0, atol=1e-5)


def test_presets_are_built_without_data():
    with torch.device("meta"):
        assert all(isinstance(build(PRESETS[name]), ViT) for name in VITS)


def test_fnet_goes_back_to_transformers():
    import transformers

    config = transformers.FNetConfig(
        vocab_size=101, hidden_size=24, num_hidden_layers=3, intermediate_size=96, max_position_embeddings=37
    )
    theirs = shaken(transformers.FNetModel(config))
    ours = regard.create_model("fnet_base", vocab_size=101, embed_dim=24, depth=3, max_tokens=37)
    assert regard.load_weights(ours, theirs.state_dict()).what == "transformers' FNet"
    back = written_as(ours.state_dict(), "transformers")
    wanted = {name: tensor for name, tensor in theirs.state_dict().items() if not name.endswith("_ids")}
    assert back.keys() == wanted.keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in wanted.items())
