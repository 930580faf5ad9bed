"""Weights of a DETR from others: transformers' give transformers' outputs; what does not fit says so on both sides."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.testing import assert_close

from regard.errors import RegardError
from regard.models import DETR, DETRConfig
from regard.weights import load_pretrained_backbone, load_weights, read_weights

SMALL = {"backbone": "resnet18", "embed_dim": 32, "num_heads": 4, "depth": 2, "decoder_depth": 3, "num_queries": 7}


def small(num_classes: int = 5, **changed: object) -> DETR:
    torch.manual_seed(0)
    return DETR(DETRConfig(num_classes=num_classes, mlp_ratio=2.0, **{**SMALL, **changed})).eval()


@pytest.fixture(scope="module")
def peer():
    """transformers' DETR with random weights, and norms that have seen something."""
    from transformers import DetrConfig, DetrForObjectDetection

    torch.manual_seed(1)
    config = DetrConfig(
        backbone="resnet18",
        use_timm_backbone=True,
        use_pretrained_backbone=False,
        d_model=32,
        encoder_layers=2,
        decoder_layers=3,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        num_queries=7,
        num_labels=5,
    )
    model = DetrForObjectDetection(config).eval()
    for name, buffer in model.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 2)
        elif name.endswith("running_mean"):
            buffer.normal_(0, 0.1)
    return model


def older(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Under the names that transformers had before version 5, as most files on the hub have them."""
    changes = (
        ("model.backbone.model.", "model.backbone.conv_encoder.model."),
        (".o_proj.", ".out_proj."),
        (".mlp.fc", ".fc"),
    )
    renamed = {}
    for name, tensor in state.items():
        for new, old in changes:
            name = name.replace(new, old)
        renamed[name] = tensor
    return renamed


@pytest.mark.parametrize("names", [dict, older])
def test_transformers_weights_give_transformers_outputs(peer, names):
    model = small()
    load_weights(model, names(peer.state_dict()))
    images = torch.rand(2, 3, 83, 97)
    mask = torch.zeros(2, 83, 97, dtype=torch.bool)
    mask[0], mask[1, :61, :71] = True, True
    images = images * mask[:, None]
    with torch.no_grad():
        wanted = peer(images, pixel_mask=mask.long())
        found = model(images, mask)
    assert_close(found.logits[-1], wanted.logits, rtol=0, atol=1e-5)
    assert_close(found.boxes_cxcywh[-1], wanted.pred_boxes, rtol=0, atol=1e-5)


@pytest.mark.parametrize("ending", ["safetensors", "pth"])
def test_files(tmp_path, ending):
    state = small().state_dict()
    file = tmp_path / f"weights.{ending}"
    if ending == "safetensors":
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, file)
    else:
        torch.save({"model": state, "epoch": 3}, file)
    torch.manual_seed(3)
    model = DETR(DETRConfig(num_classes=5, mlp_ratio=2.0, **SMALL))
    load_weights(model, file)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[name]), name


def test_another_number_of_classes():
    state = small(num_classes=5).state_dict()
    model = small(num_classes=3)
    with pytest.raises(RegardError, match=r"5 classes, the data have 3; --set model\.reset_head=true"):
        load_weights(model, state, classes="keep")
    before = model.label_head.weight.clone()
    state["project.bias"] = state["project.bias"] + 1
    load_weights(model, state, classes="reset")
    assert torch.equal(model.label_head.weight, before)
    assert torch.equal(model.project.bias, state["project.bias"])


@pytest.mark.parametrize(
    ("changed", "parts"),
    [
        ({"num_queries": 9}, ["queries.weight (7, 32) (9, 32)"]),
        ({"depth": 3}, ["missing from the file", "encoder.layers.2"]),
        ({"depth": 1}, ["not in the model", "encoder.layers.1"]),
    ],
)
def test_another_model(changed, parts):
    with pytest.raises(RegardError, match="does not match this model") as caught:
        load_weights(small(**changed), small().state_dict())
    for part in parts:
        assert part in str(caught.value)


def test_unexpected_names(peer):
    with pytest.raises(RegardError, match=r"does not match this model: 1 not in the model: model\.neck"):
        load_weights(small(), {**peer.state_dict(), "model.neck": torch.zeros(1)})
    incomplete = {
        name: value for name, value in peer.state_dict().items() if "layers.0.self_attn.k_proj.bias" not in name
    }
    with pytest.raises(
        RegardError, match=r"missing from the file: (en|de)coder\.layers\.0\.mixer\.qkv\.bias.*without its other parts"
    ):
        load_weights(small(), incomplete)


class Evil:
    def __reduce__(self):
        return (print, ("ran",))


def test_files_that_hold_no_weights(tmp_path, capsys):
    cases: dict[str, tuple[object, str]] = {
        "none.pth": (None, "is missing"),
        "code.pth": (Evil(), "holds only weights"),
        "list.pth": ([1, 2], "holds no state dict"),
        "text.pth": ("text", "holds only weights"),
        "cut.safetensors": ("text", "cut short or not a safetensors file"),
    }
    for name, (content, told) in cases.items():
        file = Path(tmp_path / name)
        if isinstance(content, str):
            file.write_text(content, encoding="utf-8")
        elif content is not None:
            torch.save(content, file)
        with pytest.raises(RegardError, match=told) as caught:
            read_weights(file)
        assert str(file) in str(caught.value)
        assert "\n" not in str(caught.value)
    assert capsys.readouterr().out == ""


def test_a_pretrained_backbone_is_timms(monkeypatch, tmp_path):
    import timm

    from regard.models import backbone

    saved = timm.create_model("resnet18", features_only=True, out_indices=(-1,))
    create = backbone.create_body

    def fetched(name, *, dilated, in_chans, pretrained):
        assert pretrained
        body = create(name, dilated=dilated, in_chans=in_chans, pretrained=False)
        body.load_state_dict(saved.state_dict())
        return body

    monkeypatch.setattr("regard.weights.backbone.create_body", fetched)
    for frozen in (True, False):
        model = small(frozen_norm=frozen)
        load_pretrained_backbone(model.backbone)
        for name, tensor in model.backbone.body.state_dict().items():
            assert torch.equal(tensor, saved.state_dict()[name]), name


def test_without_a_network_it_says_so(monkeypatch):
    def fails(*_: object, **__: object):
        raise OSError("no route to host")

    monkeypatch.setattr("regard.weights.backbone.create_body", fails)
    with pytest.raises(
        RegardError, match=r"model\.pretrained_backbone: timm's weights of resnet18 .* no route to host"
    ):
        load_pretrained_backbone(small().backbone)
