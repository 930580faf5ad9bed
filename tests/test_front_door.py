"""The front door: what a user of timm, torchvision, DINOv2 or transformers types works, or is told what to type."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jaxtyping
import pytest
import timm
import torch
from PIL import Image
from torch.testing import assert_close

import regard
from regard.errors import RegardError
from regard.models import PRESETS, SASAResNet, SASAResNetConfig, ViT, ViTConfig
from regard.weights import CATALOGUE
from regard.weights.hub import weights_folder

RUNS = Path(__file__).parent / "golden_runs"
TINY = {"img_size": 32, "patch_size": 8, "num_classes": 7, "embed_dim": 24, "depth": 4, "num_heads": 3}
ROOMS = (
    *("ops", "layers", "mixers", "models", "draw", "losses", "data", "weights", "recipes", "tasks", "training"),
    *("explain", "compare", "api", "cli", "errors", "files"),
)


@pytest.fixture
def pair():
    """pair(**timm's arguments) -> a tiny ViT of timm, and ours with its weights."""

    def make(**changed):
        theirs = timm.create_model("vit_tiny_patch16_224", **{**TINY, **changed}).eval()
        torch.nn.init.normal_(theirs.pos_embed)
        ours = regard.create_model("vit_tiny_patch16_224", **{**TINY, **changed}).eval()
        regard.load_weights(ours, theirs.state_dict())
        return theirs, ours

    return make


@pytest.fixture(scope="module")
def tiny():
    """A recipe's settings that take no time."""
    return {"embed_dim": 16, "depth": 1, "num_heads": 2, "max_steps": 2, "batch_size": 64}


def images(size=32):
    return torch.randn(2, 3, size, size)


# Names


def test_list_models_takes_timms_arguments():
    names = regard.list_models()
    assert {"vit_base_patch16_224", "mixer_b16_224", "detr_resnet50", "transformer_base"} <= set(names)
    assert all("." not in name for name in names)
    assert regard.list_models("vit*_patch16_224") == [
        f"vit_{size}_patch16_224" for size in ("base", "large", "small", "tiny")
    ]
    assert regard.list_models(["mixer*", "fnet*"], exclude_filters=["*32*", "*l16*"]) == [
        *("fnet_base", "fnet_large", "mixer_b16_224", "mixer_h14_224", "mixer_s16_224")
    ]
    assert regard.list_models("resnet*x") == []
    assert regard.list_models("sasa_resnet*0") == ["sasa_resnet50"]


def test_list_models_pretrained_has_tags():
    assert set(regard.list_models(pretrained=True)) == set(CATALOGUE)
    assert regard.list_models("vit_tiny_patch16_224", pretrained=True) == [
        "vit_tiny_patch16_224.augreg_in21k_ft_in1k",
        "vit_tiny_patch16_224.deit_in1k",
    ]
    untagged = regard.list_models("vit*", pretrained=True, include_tags=False)
    assert "vit_base_patch16_224" in untagged
    assert all("." not in name for name in untagged)


@pytest.fixture
def fetched(monkeypatch, tmp_path):
    """No network; fetched(repository) -> the folder where a file that was fetched by hand is looked for."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))

    def folder(repository):
        made = weights_folder() / repository.replace("/", "--")
        made.mkdir(parents=True)
        return made

    return folder


def test_pretrained_is_the_second_argument(fetched):
    with pytest.raises(RegardError, match=r"vit_tiny_patch16_224\.augreg_in21k_ft_in1k: cannot be downloaded"):
        regard.create_model("vit_tiny_patch16_224", True)
    assert regard.create_model("vit_tiny_patch16_224", False, num_classes=3).num_classes == 3


def test_a_name_with_its_tag(fetched):
    from safetensors.torch import save_file

    theirs = timm.create_model("vit_tiny_patch16_224", num_classes=1000).eval()
    save_file(theirs.state_dict(), fetched("timm/deit_tiny_patch16_224.fb_in1k") / "model.safetensors")
    x = images(224)[:1]
    with torch.no_grad():
        for name, pretrained in (
            ("vit_tiny_patch16_224.deit_in1k", True),
            ("hf-hub:timm/deit_tiny_patch16_224.fb_in1k", False),  # a hub's name is pretrained by nature
            ("hf_hub:timm/deit_tiny_patch16_224.fb_in1k", True),
        ):
            model = regard.create_model(name, pretrained).eval()
            assert_close(model(x), theirs(x), rtol=1e-4, atol=1e-4)
            assert model.pretrained_cfg["tag"] == "deit_in1k"
    assert isinstance(regard.load("hf-hub:timm/deit_tiny_patch16_224.fb_in1k").model, ViT)
    random = regard.create_model("vit_tiny_patch16_224.deit_in1k")
    assert not random.head.weight.equal(theirs.head.weight)


def test_a_model_of_timms_on_the_hub(fetched):
    """Of a repository that the catalogue does not have, timm's config.json says what it is."""
    from safetensors.torch import save_file

    theirs = timm.create_model("vit_tiny_patch16_224", num_classes=5).eval()
    folder = fetched("somebody/flowers")
    save_file(theirs.state_dict(), folder / "model.safetensors")
    cfg = {"mean": [0.1, 0.2, 0.3], "std": [1, 1, 1], "interpolation": "bilinear", "crop_pct": 1.0}
    config = {"architecture": "vit_tiny_patch16_224", "num_classes": 5, "pretrained_cfg": cfg}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    model = regard.create_model("hf-hub:somebody/flowers").eval()
    x = images(224)[:1]
    assert_close(model(x), theirs(x), rtol=1e-4, atol=1e-4)
    assert model.pretrained_cfg["mean"] == [0.1, 0.2, 0.3]
    (folder / "config.json").write_text('{"architecture": "resnet18"}', encoding="utf-8")
    with pytest.raises(RegardError, match=r"neither a run .* nor a model of timm's"):
        regard.create_model("hf-hub:somebody/flowers")


def test_an_unknown_tag_lists_the_tags_there_are():
    with pytest.raises(RegardError, match=r"unknown tag 'augreg'; its tags are: augreg_in21k_ft_in1k, deit_in1k"):
        regard.create_model("vit_base_patch16_224.augreg", pretrained=True)
    with pytest.raises(RegardError, match=r"mixer_s16_224: unknown tag 'goog'; it has none"):
        regard.create_model("mixer_s16_224.goog", pretrained=True)


@pytest.mark.parametrize(
    ("typed", "here"),
    [
        ("vit_small_patch14_dinov2.lvd142m", "dinov2_vits14"),
        ("vit_base_patch14_reg4_dinov2", "dinov2_vitb14_reg4"),
        ("deit_tiny_patch16_224.fb_in1k", "vit_tiny_patch16_224.deit_in1k"),
        ("vit_b_16", "vit_base_patch16_224"),
        ("google/vit-base-patch16-224", "vit_base_patch16_224"),
    ],
)
def test_other_libraries_names_are_answered_with_ours(typed, here):
    for pretrained in (False, True):
        with pytest.raises(RegardError, match=f"here it is '{here}'"):
            regard.create_model(typed, pretrained)
    assert here in regard.list_models() + regard.list_models(pretrained=True)


def test_a_local_dir_of_a_run_needs_no_pretrained():
    model = regard.create_model(f"local-dir:{RUNS / 'classification'}").eval()
    classifier = regard.load(f"local-dir:{RUNS / 'classification'}", device="cpu")
    x = torch.rand(2, 1, 8, 8)
    assert_close(model(x), classifier.model(x), rtol=0, atol=0)
    assert model.pretrained_cfg["label_names"] == classifier.class_names
    other = regard.create_model(f"local-dir:{RUNS / 'classification'}", num_classes=3)
    assert other(x).shape == (2, 3)
    assert_close(other.blocks[0].norm1.weight, model.blocks[0].norm1.weight, rtol=0, atol=0)
    with pytest.raises(RegardError, match=r"clasification: is not a folder .*did you mean .*/classification'"):
        regard.create_model(f"local-dir:{RUNS / 'clasification'}")
    with pytest.raises(RegardError, match="holds neither a run"):
        regard.create_model(f"local-dir:{RUNS.parent}")


# timm's arguments


def test_timms_arguments_are_taken():
    model = regard.create_model(
        "vit_pico_patch2_8", drop_path_rate=0.1, global_pool="token", init_values=1e-5, reg_tokens=4, drop_rate=0.0
    )
    config = model.config
    assert (config.drop_path, config.pool, config.layer_scale, config.num_registers) == (0.1, "token", 1e-5, 4)
    plain = regard.create_model("vit_pico_patch2_8", drop_path_rate=0.0, init_values=None, features_only=False)
    assert plain.config == PRESETS["vit_pico_patch2_8"]
    assert regard.create_model("sasa_resnet14_small", drop_path_rate=0.1, global_pool="avg").config.drop_path == 0.1
    assert regard.create_model("transformer_mini", drop_rate=0.1) is not None


@pytest.mark.parametrize(
    ("typed", "answer"),
    [
        ({"features_only": True}, r"features_only is timm's; model\.forward_intermediates\(x, indices=\[\.\.\.\]"),
        ({"out_indices": (1, 2)}, r"out_indices is timm's; model\.forward_intermediates"),
        ({"checkpoint_path": "a.pth"}, r"regard\.load_weights\(model, PATH\)"),
        ({"drop_rate": 0.1}, "vit_pico_patch2_8 has no dropout, which drop_rate would set"),
        ({"drop_path": 0.1, "drop_path_rate": 0.1}, "are one setting; give one of them"),
        ({"global_pool": "max"}, "'token', 'avg', 'token_avg' or 'distilled', got 'max'"),
        ({"embed_dims": 3}, r"unknown key '.*embed_dims'; did you mean '.*embed_dim'\?"),
        ({"mixer": "atention"}, r"unknown mixer 'atention'; did you mean 'attention'\?.* Known: attention, conv"),
    ],
)
def test_what_has_no_place_is_answered_with_what_to_type(typed, answer):
    with pytest.raises(RegardError, match=answer) as caught:
        regard.create_model("vit_pico_patch2_8", **typed)
    assert "class_token" not in str(caught.value).partition("Known")[0]


def test_arguments_that_a_model_lacks_are_named_as_typed():
    with pytest.raises(RegardError, match="fnet_base has no pool, which global_pool would set"):
        regard.create_model("fnet_base", global_pool="token")
    with pytest.raises(RegardError, match="unknown key 'num_classes'"):
        regard.create_model("tf_efficientnet_lite0", num_classes=3)


# timm's methods


def test_num_classes_and_the_classifier():
    model = ViT(ViTConfig(**TINY))
    assert model.num_classes == 7
    assert model.get_classifier() is model.head
    model.reset_classifier(11)
    assert model(images()).shape == (2, 11)
    assert (model.num_classes, model.config.num_classes) == (11, 11)
    model.reset_classifier(0)
    assert model(images()).shape == (2, 24)
    assert isinstance(model.get_classifier(), torch.nn.Identity)
    model.reset_classifier(num_classes=3, global_pool="avg")
    assert model(images()).shape == (2, 3)
    assert (model.config.pool, model.config.class_token) == ("avg", True)


def test_a_new_classifier_changes_nothing_else():
    model = regard.swap_mixer(ViT(ViTConfig(**TINY, fc_norm=True, num_registers=1)), "performer", [1])
    torch.nn.init.normal_(model.fc_norm.weight)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items() if not name.startswith("head")}
    model.reset_classifier(5)
    for name, tensor in before.items():
        assert_close(model.state_dict()[name], tensor, rtol=0, atol=0)
    model.reset_classifier(5, "token_avg")
    assert model.fc_norm.weight.shape == (48,)
    assert model(images()).shape == (2, 5)
    model.reset_classifier(5, "distilled")
    assert model.head_dist.out_features == 5
    assert model(images()).shape == (2, 5)
    model.reset_classifier(5, "token")
    assert not hasattr(model, "head_dist")
    assert ViT(model.config).state_dict().keys() == model.state_dict().keys()


def test_a_new_classifier_lies_where_the_model_is():
    model = ViT(ViTConfig(**TINY)).double()
    model.reset_classifier(3)
    assert model.head.weight.dtype == torch.float64
    assert model.head.weight.isfinite().all()


def test_a_classifier_that_cannot_be():
    model = ViT(ViTConfig(**TINY, pool="avg"))
    for num_classes, pool, told in (
        (-1, None, "num_classes"),
        (3, "max", "pool"),
        (3, "token", "reads a class token"),
        (3, "distilled", "reads a class token"),
    ):
        with pytest.raises(RegardError, match=told):
            model.reset_classifier(num_classes, pool)
    assert model.config.num_classes == 7
    resnet = regard.create_model("sasa_resnet14_small")
    with pytest.raises(RegardError, match="pools by 'avg' alone, got 'token'"):
        resnet.reset_classifier(3, "token")
    resnet.reset_classifier(3, "avg")
    assert resnet(torch.rand(2, 1, 8, 8)).shape == (2, 3)


@pytest.mark.parametrize("pool", ["token", "avg"])
def test_forward_head_is_timms(pair, pool):
    theirs, ours = pair(global_pool=pool, class_token=True, fc_norm=pool == "avg")
    x = images()
    features = theirs.forward_features(x)
    assert_close(ours.forward_features(x), features)
    assert_close(ours.forward_head(features), theirs.forward_head(features))
    assert_close(ours.forward_head(features, pre_logits=True), theirs.forward_head(features, pre_logits=True))


def test_forward_head_of_a_resnet():
    model = regard.create_model("sasa_resnet14_small").eval()
    features = model.forward_features(torch.rand(2, 1, 8, 8))
    assert_close(model.head(model.forward_head(features, pre_logits=True)), model.forward_head(features))


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"indices": 2},
        {"indices": [3, 1, -1], "norm": True},
        {"indices": 1, "return_prefix_tokens": True, "output_fmt": "NLC"},
        {"indices": (0, 2), "return_prefix_tokens": True, "intermediates_only": True},
        {"indices": [0], "intermediates_only": True, "norm": True, "stop_early": True, "output_fmt": "NLC"},
    ],
)
@pytest.mark.parametrize(
    "kind",
    [
        {},
        {"reg_tokens": 2, "init_values": 0.1},
        {"global_pool": "avg", "class_token": False, "fc_norm": True},
        {"img_size": (16, 40)},
    ],
)
def test_forward_intermediates_gives_what_timm_gives(pair, kind, given):
    if "reg_tokens" in kind:
        # timm's table of positions has a row for each register, or none for the prefix at all: see the weights' tests.
        theirs = timm.create_model("vit_tiny_patch16_224", **{**TINY, **kind}, no_embed_class=True).eval()
        ours = regard.create_model("vit_tiny_patch16_224", **TINY, **kind).eval()
        regard.load_weights(ours, theirs.state_dict())
    else:
        theirs, ours = pair(**kind)
    height, width = kind.get("img_size", (32, 32))
    x = torch.randn(2, 3, height, width)
    same(ours.forward_intermediates(x, **given), theirs.forward_intermediates(x, **given))


def same(ours, theirs):
    assert type(ours) is type(theirs)
    if isinstance(theirs, torch.Tensor):
        assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    else:
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            same(one, other)


@pytest.mark.parametrize("reshape", [False, True])
@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("n", [1, 3, [0, 2]])
def test_get_intermediate_layers_is_timms_and_dinov2s(pair, n, norm, reshape):
    theirs, ours = pair()
    x = images()
    wanted = theirs.get_intermediate_layers(x, n, reshape=reshape, return_prefix_tokens=True, norm=norm)
    same(list(ours.get_intermediate_layers(x, n, reshape=reshape, return_prefix_tokens=True, norm=norm)), list(wanted))
    same(list(ours.get_intermediate_layers(x, n, reshape, norm=norm)), [patches for patches, _ in wanted])
    # DINOv2's gives the class token as (batch, channels), and normalises unless told otherwise.
    found = ours.get_intermediate_layers(x, n=n, reshape=reshape, return_class_token=True, norm=norm)
    assert isinstance(found, tuple)
    same(list(found), [(patches, prefix[:, 0]) for patches, prefix in wanted])
    assert_close(ours.get_intermediate_layers(x)[0], ours.get_intermediate_layers(x, norm=True)[0], rtol=0, atol=0)


def test_intermediates_have_gradients_and_any_size(pair):
    _, ours = pair()
    x = torch.randn(1, 3, 16, 24, requires_grad=True)
    (found,) = ours.forward_intermediates(x, indices=1, intermediates_only=True)
    assert found.shape == (1, 24, 2, 3)
    found.sum().backward()
    assert x.grad.abs().sum() > 0


@pytest.mark.parametrize("indices", [0, 5, [4], [-5]])
def test_intermediates_that_are_not_there(indices):
    model = ViT(ViTConfig(**TINY))
    with pytest.raises(RegardError, match="intermediates: "):
        model.forward_intermediates(images(), indices=indices)


def test_intermediates_in_no_known_format():
    model = ViT(ViTConfig(**TINY, pool="avg"))
    with pytest.raises(RegardError, match="no class token"):
        model.get_intermediate_layers(images(), return_class_token=True)


def test_feature_info_is_timms(pair):
    theirs, ours = pair()
    assert ours.feature_info == [dict(info) for info in theirs.feature_info]


def test_features_of_a_resnet():
    model = SASAResNet(SASAResNetConfig(depths=(1, 2), embed_dim=8, num_heads=2, num_classes=3)).eval()
    assert model.feature_info == [
        {"module": "blocks.0", "num_chs": 32, "reduction": 4},
        {"module": "blocks.2", "num_chs": 64, "reduction": 8},
    ]
    x = images()
    final, maps = model.forward_intermediates(x)
    for info, found in zip(model.feature_info, maps, strict=True):
        assert found.shape == (2, info["num_chs"], *(32 // info["reduction"],) * 2)
    assert_close(maps[-1], final, rtol=0, atol=0)
    assert_close(final, model.forward_features(x), rtol=0, atol=0)
    (tokens,) = model.forward_intermediates(x, indices=[0], output_fmt="NLC", intermediates_only=True)
    assert_close(tokens, maps[0].flatten(2).transpose(1, 2), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["vit_pico_patch2_8", "sasa_resnet14_small"])
def test_set_grad_checkpointing(name):
    model = regard.create_model(name).train()
    x = torch.rand(4, 1, 8, 8)
    gradients = []
    for enable in (False, True):
        model.set_grad_checkpointing(enable)
        assert model.gradient_checkpointing is enable
        model.zero_grad()
        model(x).square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    for one, other in zip(*gradients, strict=True):
        assert_close(one, other)


def test_pretrained_cfg_is_what_the_catalogue_knows():
    cfg = regard.create_model("vit_tiny_patch16_224").pretrained_cfg
    timms = timm.create_model("vit_tiny_patch16_224").pretrained_cfg
    for key in ("architecture", "tag", "mean", "std", "input_size", "crop_pct", "interpolation", "num_classes"):
        assert cfg[key] == timms[key], key
    assert cfg["hf_hub_id"] == timms["hf_hub_id"]
    assert (cfg["license"], cfg["classifier"]) == ("apache-2.0", timms["classifier"])
    assert cfg["url"].startswith("https://huggingface.co/timm/")
    bare = ViT(ViTConfig(**TINY)).pretrained_cfg
    assert (bare["input_size"], bare["num_classes"]) == ((3, 32, 32), 7)


# Preprocessing, saving


def test_transform_for_is_timms_up_to_a_grey_level():
    from sklearn.datasets import load_sample_image
    from timm.data import create_transform, resolve_data_config

    name, photograph = "vit_tiny_patch16_224", Image.fromarray(load_sample_image("flower.jpg")[:400, :400])
    ours, theirs = regard.create_model(name), timm.create_model(name)
    assert regard.transform_for(ours)(photograph).shape == (3, 224, 224)
    # Without a crop both take the same pixels; of 224 / 0.9, timm rounds down to 248.
    ours.pretrained_cfg = {**ours.pretrained_cfg, "crop_pct": 1.0}
    wanted = create_transform(**resolve_data_config({**theirs.pretrained_cfg, "crop_pct": 1.0}))(photograph)
    found = regard.transform_for(ours)(photograph)
    assert (found.shape, found.dtype) == (wanted.shape, wanted.dtype) == ((3, 224, 224), torch.float32)
    assert (found - wanted).abs().max() < 1.5 / 127.5


def test_transform_for_a_model_of_another_size():
    grey = regard.transform_for(regard.create_model("vit_tiny_patch16_224", img_size=64, in_chans=1))
    assert grey(Image.new("RGB", (90, 70), "white")).shape == (1, 64, 64)
    assert_close(grey(Image.new("RGB", (90, 70), "white")), torch.ones(1, 64, 64))  # mean and deviation are a half
    digit = Image.new("L", (20, 20), 80)
    for task in ("classification", "detection"):
        predictor = regard.load(RUNS / task, device="cpu")
        assert_close(regard.transform_for(predictor)(digit), predictor.prepare(digit), rtol=0, atol=0)
    model = regard.create_model("vit_pico_patch2_8").train()
    regard.transform_for(model)
    assert model.training
    for other in (regard.create_model("transformer_mini"), torch.nn.Linear(1, 1)):
        with pytest.raises(RegardError, match="does not say how it wants its images"):
            regard.transform_for(other)


def test_save_and_load(tmp_path):
    model = regard.create_model("vit_pico_patch2_8", num_classes=2, drop_path_rate=0.1, mixer="performer").train()
    folder = regard.save(model, tmp_path / "new" / "model", class_names=["cat", "dog"])
    assert model.training
    assert {file.name for file in folder.iterdir()} == {"metadata.json", "model.safetensors"}
    assert [path.name for path in folder.parent.iterdir()] == ["model"]
    predictor = regard.load(folder, device="cpu")
    assert predictor.class_names == ("cat", "dog")
    assert predictor.model.config == model.config
    digit = Image.new("L", (20, 20), 80)
    assert_close(predictor.prepare(digit), regard.transform_for(model)(digit), rtol=0, atol=0)
    x = predictor.prepare(digit)[None]
    assert_close(predictor.model(x), model.eval()(x), rtol=0, atol=0)
    (answer,) = predictor.predict([digit])
    assert set(answer.class_names) == {"cat", "dog"}
    again = regard.create_model(f"local-dir:{folder}").eval()
    assert_close(again(x), model(x), rtol=0, atol=0)
    assert again.pretrained_cfg["label_names"] == ("cat", "dog")
    assert regard.load(regard.save(again, tmp_path / "again"), device="cpu").class_names == ("cat", "dog")


@pytest.mark.parametrize("task", ["classification", "detection", "seq2seq", "next_token"])
def test_what_load_gives_can_be_saved(task, tmp_path):
    before = regard.load(RUNS / task, device="cpu")
    after = regard.load(regard.save(before, tmp_path / "saved"), device="cpu")
    assert type(after) is type(before)
    old, new = (
        json.loads((folder / "metadata.json").read_text(encoding="utf-8"))
        for folder in (RUNS / task, tmp_path / "saved")
    )
    for key in ("task", "class_names", "category_ids", "preprocessing", "tokenizer", "max_new_tokens"):
        assert new.get(key) == old.get(key), key
    assert new["model"]["config"] == old["model"]["config"]
    for name, tensor in before.model.state_dict().items():
        assert_close(after.model.state_dict()[name], tensor, rtol=0, atol=0)


def test_save_after_reset_classifier(tmp_path):
    model = regard.create_model("vit_pico_patch2_8").eval()
    model.reset_classifier(3, "token_avg") if model.config.class_token else model.reset_classifier(3)
    loaded = regard.load(regard.save(model, tmp_path / "saved"), device="cpu")
    assert loaded.class_names == ("0", "1", "2")
    x = torch.rand(1, 1, 8, 8)
    assert_close(loaded.model(x), model(x), rtol=0, atol=0)


def test_save_refuses(tmp_path, monkeypatch):
    model = regard.create_model("vit_pico_patch2_8")
    with pytest.raises(RegardError, match="exists already; choose another folder"):
        regard.save(model, tmp_path)
    with pytest.raises(RegardError, match="2 class names for a model of 10 classes"):
        regard.save(model, tmp_path / "a", class_names=["cat", "dog"])
    with pytest.raises(RegardError, match="knows no preprocessing and no tokenizer"):
        regard.save(regard.create_model("fnet_base", depth=1, embed_dim=8), tmp_path / "a")

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(RegardError, match=r"could not be saved: .*No space left"):
        regard.save(model, tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_a_saved_model_has_no_data_of_its_own(tmp_path):
    folder = regard.save(regard.load(RUNS / "classification", device="cpu"), tmp_path / "saved")
    with pytest.raises(RegardError, match="no data of its own; name some with --data"):
        regard.evaluate(folder)
    assert regard.evaluate(folder, "digits", device="cpu").metrics() == (
        regard.evaluate(RUNS / "classification", "digits", device="cpu").metrics()
    )


# Runs


def test_load_answers_an_unknown_name_with_runs_and_the_catalogue(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("vit-digits-1", "vit-digits-2"):
        regard.save(regard.create_model("vit_pico_patch2_8"), tmp_path / "runs" / name)
    with pytest.raises(RegardError, match=r"did you mean 'runs/vit-digits-\d'.* Runs near: runs/vit-digits-1, runs/"):
        regard.load("vit-digit-1")
    with pytest.raises(RegardError, match=r"did you mean .*'dinov2_vits14'.*Pretrained models: vit_tiny.* and 19 more"):
        regard.load("dinov2_vits")
    with pytest.raises(RegardError, match="is a model without weights; train it"):
        regard.load("vit_mini_patch4_32")
    with pytest.raises(RegardError) as caught:
        regard.load("zzz")
    assert "did you mean" not in str(caught.value)


def test_train_returns_the_predictor_of_its_run(tmp_path, tiny):
    out = tmp_path / "run"
    classifier = regard.train("vit-digits", data="digits", out=out, device="cpu", **tiny)
    assert (out / "report.html").is_file()
    assert isinstance(classifier.model, ViT)
    assert (classifier.model.config.embed_dim, classifier.model.config.depth) == (16, 1)
    loaded = regard.load(out, device="cpu")
    assert_close(loaded.model.head.weight, classifier.model.head.weight, rtol=0, atol=0)
    with pytest.raises(RegardError, match="exists already"):
        regard.train("vit-digits", out=out, **tiny)


@pytest.mark.parametrize(
    "settings",
    [
        {"max_steps": 7, "lr": 0.5, "mixer": "fourier", "seed": 3},
        {"train": {"max_steps": 7, "lr": 0.5}, "model": {"mixer": "fourier"}, "seed": 3},
        {"settings": {"train.max_steps": 7, "train.lr": 0.5, "model.mixer": "fourier", "seed": 3}},
        {"settings": {"train": {"max_steps": 7, "lr": 0.5}, "model": {"mixer": "fourier"}, "seed": 3}},
        {"settings": ["train.max_steps=7", "train.lr=0.5", "model.mixer=fourier", "seed=3"]},
    ],
)
def test_settings_in_any_form_that_a_user_guesses(monkeypatch, settings):
    seen = []

    def stop(name, recipe, out, **_):
        seen.append(recipe)
        raise KeyboardInterrupt

    monkeypatch.setattr("regard.api.training.train_run", stop)
    with pytest.raises(KeyboardInterrupt):
        regard.train("vit-digits", device="cpu", **settings)
    (recipe,) = seen
    assert (recipe.train.max_steps, recipe.train.lr, recipe.seed) == (7, 0.5, 3)
    assert recipe.model.config().mixer == "fourier"
    assert recipe.train.device == "cpu"


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"learning_rat": 1}, "unknown setting 'learning_rat'"),
        ({"epoch": 1}, r"unknown setting 'epoch'; did you mean 'epochs'\?"),
        ({"train": {"epoch": 1}}, r"vit-digits: unknown key 'train\.epoch'; did you mean 'train\.epochs'\?"),
        ({"lr": "fast"}, r"vit-digits: train\.lr: .*number, .*got 'fast'"),
        ({"lr": object()}, "a setting is a number, a text, true or false"),
        ({"device": "gpu"}, "unknown device 'gpu'"),
        ({"data": "folder:/no/such"}, "folder:/no/such: no such folder"),
    ],
)
def test_settings_that_are_not_right(tmp_path, settings, told):
    with pytest.raises(RegardError, match=told):
        regard.train("vit-digits", out=tmp_path / "run", **settings)
    assert not (tmp_path / "run").exists()


def test_an_unknown_recipe_offers_the_nearest():
    with pytest.raises(RegardError, match=r"unknown recipe 'detr-smal'; did you mean 'detr-small'\?"):
        regard.train("detr-smal")


def test_compare_mixers(tmp_path, tiny):
    few = {**tiny, "max_steps": 1, "device": "cpu"}
    found = regard.compare_mixers(["attention", "none"], seeds=1, out=tmp_path / "compared", **few)
    assert [contender.name for contender in found] == ["attention", "none"]
    assert (tmp_path / "compared" / "report.html").is_file()
    assert regard.load(tmp_path / "compared" / "none-seed-0", device="cpu").model.config.mixer == "none"


def test_an_unknown_mixer_is_answered_with_mixers_before_models(tmp_path):
    with pytest.raises(
        RegardError, match=r"unknown mixer 'atention'; did you mean 'attention'\?.* Known: attention, conv"
    ):
        regard.compare_mixers(["atention"], out=tmp_path / "compared")


def test_explain_image(tmp_path):
    digit = tmp_path / "digit.png"
    Image.effect_noise((20, 20), 90).save(digit)
    found = regard.explain_image(RUNS / "classification", digit, tmp_path / "new" / "why.png", layer=0, device="cpu")
    assert found._repr_png_()[:4] == b"\x89PNG"  # what a notebook asks for
    assert (tmp_path / "new" / "why.png").read_bytes() == found._repr_png_()
    alone = regard.explain_image(RUNS / "classification", digit, tokens=["0,0"], kind="influence", device="cpu")
    assert alone.figure is not None
    with pytest.raises(RegardError, match="is a run of seq2seq, not of classification"):
        regard.explain_image(RUNS / "seq2seq", digit)


# Devices


@pytest.mark.parametrize(
    ("device", "told"),
    [
        ("gpu", "unknown device 'gpu'"),
        ("cuda:9", r"device 'cuda:9': PyTorch has (no CUDA device|only cuda:0.*) here"),
        pytest.param(
            "mps",
            "device 'mps': PyTorch has no Apple GPU here",
            marks=pytest.mark.skipif(torch.backends.mps.is_available(), reason="there is an Apple GPU"),
        ),
        ("meta", "unknown device 'meta'"),
    ],
)
def test_a_device_that_is_not_there(device, told, tmp_path):
    run = RUNS / "classification"
    for call in (
        lambda: regard.load(run, device=device),
        lambda: regard.evaluate(run, device=device),
        lambda: regard.evaluate_knn(run, device=device),
        lambda: regard.explain_image(run, tmp_path / "a.png", device=device),
        lambda: regard.train("vit-digits", device=device),
        lambda: regard.compare_mixers("attention", device=device),
    ):
        with pytest.raises(RegardError, match=told):
            call()


def test_a_device_of_any_form():
    for device in ("cpu", torch.device("cpu"), "cpu:0", None, "auto"):
        assert regard.load(RUNS / "classification", device=device).device.type in ("cpu", "cuda")


# The house


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_is_reachable(room):
    assert room in dir(regard)
    assert getattr(regard, room).__name__ == f"regard.{room}"


def test_every_room_is_reachable_in_a_fresh_interpreter():
    """A function of a room's name would take its place; so would a room that was only imported by another."""
    code = "import regard\n" + "\n".join(f"assert regard.{room}.__name__ == 'regard.{room}'" for room in ROOMS)
    one_by_one = (
        "import sys, regard\n"
        "for room in sys.argv[1:]:\n"
        "    for name in [n for n in sys.modules if n.startswith('regard.')]: del sys.modules[name]\n"
        "    vars(regard).pop(room, None)\n"
        "    assert getattr(regard, room).__name__ == 'regard.' + room\n"
    )
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    for program, arguments in ((code, ()), (one_by_one, ("compare", "explain", "weights", "losses", "draw", "cli"))):
        done = subprocess.run(
            [sys.executable, "-c", program, *arguments], env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr


def test_the_door_names_what_it_offers():
    for name in regard._NAMES:
        assert callable(getattr(regard, name))
        assert name in dir(regard)
    with pytest.raises(AttributeError, match=r"no attribute 'creat_model'; did you mean create_model\?"):
        regard.creat_model  # noqa: B018
    with pytest.raises(AttributeError, match=r"no attribute 'zzz'$"):
        regard.zzz  # noqa: B018


def test_a_new_head_begins_as_the_models_own_did():
    model = regard.create_model("vit_tiny_patch16_224", img_size=32, embed_dim=192, depth=1)
    model.reset_classifier(500)
    built = regard.create_model("vit_tiny_patch16_224", img_size=32, embed_dim=192, depth=1, num_classes=500)
    assert model.head.bias.eq(0).all()
    torch.testing.assert_close(model.head.weight.std(), built.head.weight.std(), rtol=0.02, atol=0)


def test_what_its_configuration_does_not_describe_is_not_saved(tmp_path):
    """A swapped decoder of a DETR has no place there, and a fused detector neither."""
    from regard.data import DetectionPreprocessing
    from regard.tasks import Detector

    tiny = {"backbone": "resnet10t", "embed_dim": 32, "num_heads": 2, "depth": 1, "decoder_depth": 1, "num_classes": 2}
    preprocessing = DetectionPreprocessing(64, 64, 3, (0.5,) * 3, (0.5,) * 3)
    for number, blocks in enumerate(([0], None)):
        model = regard.swap_mixer(regard.create_model("detr_mini", **tiny), "performer", blocks)
        detector = Detector(model, ("a", "b"), (1, 2), preprocessing)
        if blocks is None:
            with pytest.raises(RegardError, match="save: what the model's configuration describes: does not match"):
                regard.save(detector, tmp_path / str(number))
            assert list(tmp_path.iterdir()) == [tmp_path / "0"]
        else:
            regard.save(detector, tmp_path / str(number))
            assert regard.load(tmp_path / str(number), device="cpu").class_names == ("a", "b")


@pytest.mark.parametrize("repeated", [False, True], ids=["config alone", "model_args too"])
@pytest.mark.parametrize(
    "arguments",
    [
        {"global_pool": "avg", "fc_norm": False},
        {"global_pool": "avg"},
        {"global_pool": "avg", "class_token": False},
        {"img_size": 48},
        {"in_chans": 1},
        {"reg_tokens": 3},
        {"init_values": 0.3},
        {"num_classes": 0},
        {"num_classes": 5},
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore")
def test_a_folder_that_timm_saved_gives_timms_numbers(arguments, repeated, tmp_path):
    """timm's config.json says little of how a model was made: the tensors say the rest."""
    theirs = timm.create_model("vit_tiny_patch16_224", **{"img_size": 32, **arguments}).eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    given = {"model_args": {"img_size": 32, **arguments}} if repeated else {}
    timm.models.save_for_hf(theirs, tmp_path / "theirs", **given)
    ours = regard.create_model(f"local-dir:{tmp_path / 'theirs'}").eval()
    size = arguments.get("img_size", 32)
    images = torch.rand(3, arguments.get("in_chans", 3), size, size)
    wanted = theirs(images)
    assert wanted.std(0).mean() > 1e-3
    assert_close(ours(images), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore")
def test_what_timm_made_otherwise_is_named(tmp_path):
    made = timm.create_model("vit_tiny_patch16_224", img_size=32, qk_norm=True)
    timm.models.save_for_hf(made, tmp_path / "a", model_args={"img_size": 32, "qk_norm": True})
    with pytest.raises(RegardError, match="qk_norm is timm's; a ViT here does not have it"):
        regard.create_model(f"local-dir:{tmp_path / 'a'}")
    pooled = timm.create_model("vit_tiny_patch16_224", img_size=32, global_pool="max")
    timm.models.save_for_hf(pooled, tmp_path / "b")
    with pytest.raises(RegardError, match=r"config.json: global_pool is 'max'; a ViT pools by 'token' or 'avg' here"):
        regard.create_model(f"local-dir:{tmp_path / 'b'}")


GOLDEN = Path(__file__).parent / "golden_runs"


def test_the_model_of_a_run_knows_its_preprocessing(tmp_path):
    """So that the bare model, saved and loaded, sees images as it was trained to."""
    classifier = regard.load(GOLDEN / "classification", device="cpu")
    image = Image.fromarray((torch.rand(9, 11) * 255).byte().numpy())
    assert regard.transform_for(classifier.model)(image).equal(classifier.prepare(image))
    again = regard.load(regard.save(classifier.model, tmp_path / "saved"), device="cpu")
    assert again.preprocessing == classifier.preprocessing
    assert again.class_names == classifier.class_names
    assert again(image) == classifier(image)


@pytest.mark.parametrize("task", ["classification", "detection", "seq2seq", "next_token"])
def test_a_saved_model_keeps_its_name(task, tmp_path):
    named = json.loads((GOLDEN / task / "metadata.json").read_text(encoding="utf-8"))["model"]["name"]
    folder = regard.save(regard.load(GOLDEN / task, device="cpu"), tmp_path / "saved")
    assert json.loads((folder / "metadata.json").read_text(encoding="utf-8"))["model"]["name"] == named


def test_each_training_of_a_process_has_its_own_device(monkeypatch):
    """Accelerate would keep that of the first."""
    from regard.training.machine import create_accelerator

    monkeypatch.setenv("ACCELERATE_TORCH_DEVICE", "meta")
    assert create_accelerator("auto").device.type == "meta"
    monkeypatch.delenv("ACCELERATE_TORCH_DEVICE")
    assert create_accelerator("cpu").device.type == "cpu"
    monkeypatch.setenv("ACCELERATE_TORCH_DEVICE", "meta")
    assert create_accelerator("auto").device.type == "meta"
    monkeypatch.delenv("ACCELERATE_TORCH_DEVICE")
    assert create_accelerator("cpu").device.type == "cpu"


@pytest.fixture
def as_users_have_it():
    """Without the tests' checks of types: what a user gets who gives a wrong one. The next test sets them anew."""
    jaxtyping.config.update("jaxtyping_disable", True)


def test_explain_takes_what_is_in_hand(as_users_have_it):
    classifier = regard.load(GOLDEN / "classification", device="cpu")
    image = Image.fromarray((torch.rand(9, 11) * 255).byte().numpy())
    assert regard.explain_image(classifier, image)._repr_png_()[:4] == b"\x89PNG"
    with pytest.raises(RegardError, match="is named by a text or a path, not by a ViT"):
        regard.explain_image(classifier.model, image)
    with pytest.raises(RegardError, match="is named by a text or a path, not by a Classifier"):
        regard.evaluate(classifier)


@pytest.mark.parametrize("wrong", ["three", 2.5, None])
def test_a_wrong_number_of_classes_is_one_line(wrong, as_users_have_it):
    model = regard.create_model("vit_tiny_patch16_224", img_size=32, depth=1)
    with pytest.raises(RegardError, match="reset_classifier: num_classes: "):
        model.reset_classifier(wrong)
    assert model.num_classes == 1000


def test_a_model_without_classes_says_so(tmp_path):
    model = regard.create_model("vit_tiny_patch16_224", img_size=32, depth=1, num_classes=0)
    loaded = regard.load(regard.save(model, tmp_path / "features"), device="cpu")
    with pytest.raises(RegardError, match="the model has no classes"):
        loaded(torch.zeros(3, 32, 32, dtype=torch.uint8))


@pytest.mark.parametrize("order", [("reg_tokens", "num_registers"), ("num_registers", "reg_tokens")])
def test_both_names_of_one_setting_are_said(order):
    with pytest.raises(RegardError, match=f"{order[0]} and {order[1]} are one setting"):
        regard.create_model("vit_tiny_patch16_224", **dict.fromkeys(order, 4))


@pytest.mark.parametrize("typed", ["mlp_dim", "dropout"])
def test_no_hint_where_nothing_is_near(typed):
    with pytest.raises(RegardError) as caught:
        regard.create_model("vit_tiny_patch16_224", **{typed: 1})
    assert "did you mean" not in str(caught.value)


@pytest.mark.parametrize(("typed", "meant"), [("amp", "precision"), ("grad_clip", "clip_grad")])
def test_a_hint_knows_what_others_call_it(typed, meant):
    with pytest.raises(RegardError, match=f"did you mean '{meant}'"):
        regard.train("vit-digits", **{typed: 1})


def test_the_report_of_a_function_shows_a_command(tmp_path):
    small = {"depth": 1, "embed_dim": 16, "num_heads": 2, "max_steps": 2, "batch_size": 64}
    regard.train("vit-digits", out=tmp_path / "run", device="cpu", **small)
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "regard train vit-digits --set" in page
    assert "--set train.max_steps=2" in page
    assert "train.device=" in page
