"""Intermediates by name: one mechanism for all models, which the forward pass knows nothing of."""

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from regard.errors import RegardError
from regard.layers import Tap, first_input, record
from regard.models import (
    DETRConfig,
    DNDETRConfig,
    LanguageModelConfig,
    SASAResNetConfig,
    TransformerConfig,
    ViTConfig,
    build,
)

DETECTOR = {"num_classes": 5, "embed_dim": 32, "num_heads": 4, "decoder_depth": 2, "num_queries": 7}
CONFIGS = {
    "vit": ViTConfig(img_size=(36, 24), patch_size=12, num_classes=7, embed_dim=20, depth=3, num_heads=5),
    "sasa": SASAResNetConfig(num_classes=7, embed_dim=12, depths=(1, 2), num_heads=3, window=3),
    "detr": DETRConfig(**DETECTOR, backbone="resnet10t", depth=2, dropout=0.0),
    "dn-detr": DNDETRConfig(**DETECTOR, backbone="resnet18_narrow", strides=(8, 16), num_denoising=4),
    "transformer": TransformerConfig(13, 17, embed_dim=22, num_heads=2, depth=2, decoder_depth=3, norm="pre"),
    "language": LanguageModelConfig(17, context=11, embed_dim=22, num_heads=2, depth=2),
}


def real(*sizes: tuple[int, int]) -> Tensor:
    mask = torch.zeros(len(sizes), 67, 97, dtype=torch.bool)
    for one, (rows, columns) in zip(mask, sizes, strict=True):
        one[:rows, :columns] = True
    return mask


def inputs(kind: str) -> tuple[list[Tensor], dict[str, Tensor]]:
    if kind in ("vit", "sasa"):
        return [torch.randn(2, 3, 36, 24)], {}
    if kind in ("detr", "dn-detr"):
        return [torch.rand(2, 3, 67, 97)], {"mask": real((67, 61), (41, 97))}
    if kind == "transformer":
        mask = torch.arange(7) < torch.tensor([7, 5])[:, None]
        return [torch.randint(13, (2, 7)), torch.randint(17, (2, 5))], {"source_mask": mask}
    return [torch.randint(17, (2, 11))], {}


def model_of(kind: str) -> nn.Module:
    torch.manual_seed(0)
    return build(CONFIGS[kind]).eval()


def mixer_and_layers(name: str, depth: int, inside: tuple[str, ...] = ()) -> list[str]:
    parts = (".mixer_input", ".mixer_output", *(f".{module}" for module in inside), "")
    return [f"{name}.{i}{part}" for i in range(depth) for part in parts]


ENCODER = ["encoder.input", *mixer_and_layers("encoder.layers", 2), "encoder"]
NAMES = {
    "vit": ["patches", "embedding", *mixer_and_layers("blocks", 3), "features", "pre_logits", "logits"],
    "sasa": ["stem", "blocks.0", "blocks.1", "blocks.2", "pre_logits", "logits"],
    "detr": [
        "features",
        *ENCODER,
        *mixer_and_layers("decoder.layers", 2, ("cross",)),
        *("decoder", "logits", "boxes_cxcywh"),
    ],
    "dn-detr": [
        *("features.0", "features.1", "pyramid.encoder.input"),
        *mixer_and_layers("pyramid.encoder.layers", 1),
        *("pyramid.encoder", "memory", "decoder.input"),
        *(f"decoder.layers.{i}{part}" for i in range(2) for part in (".attention", ".cross", "")),
        *("proposals.logits", "proposals.boxes_cxcywh", "chosen_boxes", "logits", "boxes_cxcywh"),
    ],
    "transformer": [
        *ENCODER,
        "decoder.input",
        *mixer_and_layers("decoder.layers", 3, ("cross",)),
        *("decoder", "logits"),
    ],
    "language": ["decoder.input", *mixer_and_layers("decoder.layers", 2), "decoder", "logits"],
}
# 67 × 97 pixels are 3 × 4 tokens of stride 32; of strides 8 and 16, 9 × 13 and 5 × 7.
SHAPES = {
    "vit": {"patches": (2, 6, 20), "embedding": (2, 7, 20), "blocks.2": (2, 7, 20), "pre_logits": (2, 20)},
    "sasa": {"stem": (2, 12, 9, 6), "blocks.2": (2, 96, 5, 3), "pre_logits": (2, 96)},
    "detr": {
        "features": (2, 512, 3, 4),
        "encoder.layers.1.mixer_output": (2, 12, 32),
        "decoder.layers.1.cross": (2, 7, 32),
        "decoder": (2, 2, 7, 32),
        "boxes_cxcywh": (2, 2, 7, 4),
    },
    "dn-detr": {
        "features.0": (2, 64, 9, 13),
        "features.1": (2, 128, 5, 7),
        "pyramid.encoder": (2, 35, 32),
        "memory": (2, 9 * 13 + 5 * 7, 32),
        "decoder.layers.1.cross": (2, 7, 32),
        "chosen_boxes": (2, 7, 4),
        "logits": (2, 2, 7, 5),
    },
    "transformer": {
        "encoder.input": (2, 7, 22),
        "decoder.layers.2.cross": (2, 5, 22),
        "decoder": (2, 5, 22),
        "logits": (2, 5, 17),
    },
    "language": {"decoder.input": (2, 11, 22), "decoder.layers.1.mixer_input": (2, 11, 22), "logits": (2, 11, 17)},
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_names_and_shapes(kind):
    model, (given, options) = model_of(kind), inputs(kind)
    every = model.intermediates(*given, **options)
    assert list(every) == model.intermediate_names() == NAMES[kind]
    assert {name: tuple(every[name].shape) for name in SHAPES[kind]} == SHAPES[kind]
    assert all(tensor.isfinite().all() for tensor in every.values())


def results(kind: str, output: Tensor | tuple[Tensor, ...]) -> dict[str, Tensor]:
    """What a plain forward pass gives, by the names of the intermediates."""
    if isinstance(output, Tensor):
        return {"logits": output}
    found = {"logits": output.logits, "boxes_cxcywh": output.boxes_cxcywh}
    if kind == "dn-detr":
        found |= {f"proposals.{name}": value for name, value in output.proposals._asdict().items()}
        found["chosen_boxes"] = output.chosen_boxes
    return found


@pytest.mark.parametrize("kind", CONFIGS)
def test_they_are_those_of_a_plain_forward_pass(kind):
    """The results are equal to the bit; a ViT's but for the tokens that its last block need not finish."""
    model, (given, options) = model_of(kind), inputs(kind)
    every = model.intermediates(*given, **options)
    for name, value in results(kind, model(*given, **options)).items():
        assert_close(every[name], value, rtol=1e-5 if kind == "vit" else 0, atol=1e-6 if kind == "vit" else 0)


@pytest.mark.parametrize("kind", CONFIGS)
def test_the_last_one_feeds_the_output(kind):
    model, (given, options) = model_of(kind), inputs(kind)
    every = model.intermediates(*given, **options)
    if kind in ("vit", "sasa"):
        assert model.head(every["pre_logits"]).equal(every["logits"])
    elif kind == "detr":
        assert model.label_head(every["decoder"]).equal(every["logits"])
        assert model.box_head(every["decoder"]).equal(every["boxes_cxcywh"])
    elif kind == "dn-detr":
        for layer, head in enumerate(model.decoder.label_heads):
            assert head(every[f"decoder.layers.{layer}"]).equal(every["logits"][layer])
    elif kind == "transformer":
        assert model.tgt_embed.logits(every["decoder"]).equal(every["logits"])
    else:
        assert model.embed.logits(every["decoder"]).equal(every["logits"])


def test_layers_of_a_detr_hang_together():
    """Post-norm layers, by hand out of what is recorded."""
    model, (given, options) = model_of("detr"), inputs("detr")
    every = model.intermediates(*given, **options)
    assert every["features"].equal(model.backbone(given[0]))
    first, last = (model.encoder.layers[i] for i in range(2))
    assert every["encoder.layers.0.mixer_input"].equal(every["encoder.input"])
    x = first.skip1.post_norm(every["encoder.input"], every["encoder.layers.0.mixer_output"])
    assert_close(every["encoder.layers.0"], first.skip2.post_norm(x, first.mlp(x)))
    assert every["encoder.layers.1.mixer_input"].equal(every["encoder.layers.0"])
    assert every["encoder"].equal(every["encoder.layers.1"])
    x = last.skip1.post_norm(every["encoder.layers.0"], every["encoder.layers.1.mixer_output"])
    assert_close(every["encoder"], last.skip2.post_norm(x, last.mlp(x)))
    layer = model.decoder.layers[1]
    x = layer.skip1.post_norm(every["decoder.layers.0"], every["decoder.layers.1.mixer_output"])
    x = layer.skip2.post_norm(x, every["decoder.layers.1.cross"])
    assert_close(every["decoder.layers.1"], layer.skip3.post_norm(x, layer.mlp(x)))
    assert every["decoder"][1].equal(model.decoder.norm(every["decoder.layers.1"]))


def test_the_memory_of_a_dn_detr_is_what_its_decoder_reads():
    model, (given, options) = model_of("dn-detr"), inputs("dn-detr")
    seen = []
    model.decoder.register_forward_pre_hook(lambda _, given: seen.append(given[2].tokens))
    assert model.intermediates(*given, **options, names=["memory"])["memory"].equal(seen[0])


@pytest.mark.parametrize("kind", CONFIGS)
def test_gradient_checkpointing_gives_the_same_intermediates_and_gradients(kind):
    model, (given, options) = model_of(kind), inputs(kind)
    found = []
    for on in (False, True):
        for module in model.modules():
            if hasattr(type(module), "gradient_checkpointing"):
                module.gradient_checkpointing = on
        every = model.intermediates(*given, **options)
        model.zero_grad()
        sum(tensor.sin().sum() for tensor in every.values() if tensor.requires_grad).backward()
        found.append((every, {name: parameter.grad for name, parameter in model.named_parameters()}))
    for name, value in found[0][0].items():
        assert value.equal(found[1][0][name]), name
    for name, gradient in found[0][1].items():
        assert_close(gradient, found[1][1][name], msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("kind", CONFIGS)
def test_some_of_them(kind):
    model, (given, options) = model_of(kind), inputs(kind)
    every = model.intermediates(*given, **options)
    names = [NAMES[kind][-1], NAMES[kind][1]]
    some = model.intermediates(*given, **options, names=names)
    assert list(some) == names
    assert all(some[name].equal(every[name]) for name in names)
    assert model.intermediates(*given, **options, names=[]) == {}
    with pytest.raises(RegardError, match=r"^unknown intermediate 'logit'; did you mean 'logits'\? Known: "):
        model.intermediates(*given, **options, names=["logit"])


def hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def test_nothing_stays_behind():
    """Not even when the forward pass raises."""
    model = model_of("vit")
    model.intermediates(torch.randn(2, 3, 36, 24))
    assert hooks(model) == 0
    with pytest.raises(RegardError, match="is not whole patches"):
        model.intermediates(torch.randn(2, 3, 35, 24))
    assert hooks(model) == 0


def test_record_by_hand():
    first, second = nn.Linear(3, 5), nn.Linear(5, 7)
    x = torch.randn(2, 3)
    found = record({"in": Tap(first, first_input), "middle": Tap(first)}, ["out"], lambda: [second(first(x))], None)
    assert list(found) == ["in", "middle", "out"]
    assert found["in"] is x
    assert second(found["middle"]).equal(found["out"])
