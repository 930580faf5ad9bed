"""What is asked of every preset: a new line in PRESETS is tested without a line here."""

from dataclasses import replace
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from regard.models import (
    PRESETS,
    DETRConfig,
    DNDETRConfig,
    FNet,
    FNetConfig,
    LanguageModelConfig,
    RecurrentConfig,
    SASAResNetConfig,
    TransformerConfig,
    ViTConfig,
    build,
)

MOST_PARAMETERS = 60e6
QUICK = ("mini", "pico", "small", "tiny")
IN_FULL = [
    name if any(word in name for word in QUICK) else pytest.param(name, marks=pytest.mark.slow) for name in PRESETS
]
# timm's EfficientNets keep the stages behind the last map that is asked for.
UNUSED = {"dn_detr_mini_lite0": ("backbone.body.blocks.5.", "backbone.body.blocks.6.")}


def config_of(name: str) -> Any:
    """The preset's; a ViT with 3 × 2 patches."""
    config = PRESETS[name]
    return replace(config, img_size=(3 * config.patch_size, 2 * config.patch_size)) if is_vit(config) else config


def is_vit(config: Any) -> bool:
    return isinstance(config, ViTConfig)


def inputs(config: Any) -> tuple[Tensor, ...]:
    """A small input, of a height that is not its width."""
    if is_vit(config):
        return (torch.randn(2, config.in_chans, *config.img_size),)
    if isinstance(config, SASAResNetConfig):
        return (torch.randn(2, config.in_chans, 40, 24),)
    if isinstance(config, DETRConfig | DNDETRConfig):
        return (torch.rand(2, config.in_chans, 64, 96),)
    if isinstance(config, FNetConfig | LanguageModelConfig):
        return (torch.randint(config.vocab_size, (2, 7)),)
    assert isinstance(config, TransformerConfig | RecurrentConfig)
    return torch.randint(config.src_vocab, (2, 7)), torch.randint(config.tgt_vocab, (2, 5))


def output_shapes(config: Any, images: Tensor) -> list[tuple[int, ...]]:
    if is_vit(config):
        return [(2, config.num_classes or config.embed_dim)]
    if isinstance(config, SASAResNetConfig):
        return [(2, config.num_classes)]
    if isinstance(config, DETRConfig):
        queries = (config.decoder_depth, 2, config.num_queries)
        return [(*queries, config.num_classes + 1), (*queries, 4)]
    if isinstance(config, DNDETRConfig):
        height, width = images.shape[2:]
        tokens = sum(-(-height // stride) * -(-width // stride) for stride in config.strides)
        count = min(config.num_queries, tokens)
        queries = (config.decoder_depth, 2, count)
        return [
            *((*queries, config.num_classes), (*queries, 4)),
            *((1, 2, tokens, config.num_classes), (1, 2, tokens, 4), (2, count, 4)),
        ]
    if isinstance(config, FNetConfig):
        return [(2, 7, config.embed_dim)]
    if isinstance(config, LanguageModelConfig):
        return [(2, 7, config.vocab_size)]
    return [(2, 5, config.tgt_vocab)]


def tensors(output: Any) -> list[Tensor]:
    """Those of a model's output, whatever it is."""
    if isinstance(output, Tensor):
        return [output]
    return [tensor for part in output or () for tensor in tensors(part)] if isinstance(output, tuple) else []


def made(name: str, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in build(PRESETS[name]).parameters())
    if count > MOST_PARAMETERS:
        pytest.skip(f"{count / 1e6:.0f} M parameters: on the meta device alone")
    return build(config_of(name))


def run(model: nn.Module, given: tuple[Tensor, ...], config: Any) -> list[Tensor]:
    """All outputs of a step of training, with the same draws of dropout each time."""
    torch.manual_seed(1)
    if isinstance(config, DNDETRConfig):  # denoising asks for objects
        objects = ([torch.tensor([2]), torch.tensor([0, 1])], [torch.rand(1, 4) / 2, torch.rand(2, 4) / 2])
        return [part for part in tensors(model(*given, None, *objects)) if part.is_floating_point()]
    output = model(*given)
    return [*tensors(output), model.pool(output)] if isinstance(model, FNet) else tensors(output)


@pytest.mark.parametrize("name", PRESETS)
def test_forward_on_the_meta_device(name):
    config = config_of(name)
    with torch.device("meta"):
        model = build(config).eval()
        given = inputs(config)
        found = tensors(model(*given))
    assert model.config is config
    assert [tuple(tensor.shape) for tensor in found] == output_shapes(config, given[0])


@pytest.mark.parametrize("name", IN_FULL)
def test_forward_backward_and_checkpointing(name):
    """Shapes, finite numbers, a gradient for every parameter; and layers that are computed again give the same."""
    config, model = config_of(name), made(name).train()
    torch.manual_seed(2)
    given, results = inputs(config), []
    with torch.no_grad():
        found = tensors(model.eval()(*given))
    assert [tuple(tensor.shape) for tensor in found] == output_shapes(config, given[0])
    for on in (False, True):
        switched = [module for module in model.modules() if hasattr(type(module), "gradient_checkpointing")]
        assert switched or isinstance(config, RecurrentConfig)
        for module in switched:
            module.gradient_checkpointing = on
        model.train().zero_grad()
        outputs = run(model, given, config)
        assert all(tensor.isfinite().all() for tensor in outputs)
        sum(tensor.sin().sum() for tensor in outputs if tensor.requires_grad).backward()
        gradients = {key: p.grad for key, p in model.named_parameters() if p.grad is not None}
        results.append((outputs, gradients))
    for key, parameter in model.named_parameters():
        if not key.startswith(UNUSED.get(name, "nothing is unused")):
            assert parameter.grad is not None, key
            assert parameter.grad.isfinite().all(), key
    assert sum(gradient.abs().sum() for gradient in results[0][1].values()) > 0
    assert_close(results[1][0], results[0][0])
    assert_close(results[1][1], results[0][1])


@pytest.mark.parametrize("name", IN_FULL)
def test_intermediates(name):
    config, model = config_of(name), made(name).eval()
    if isinstance(config, FNetConfig | RecurrentConfig):
        assert not hasattr(model, "intermediates")
        return
    given = inputs(config)
    with torch.no_grad():
        every, output = model.intermediates(*given), tensors(model(*given))
    assert list(every) == model.intermediate_names()
    assert all(tensor.isfinite().all() for tensor in every.values())
    last = every["boxes_cxcywh"] if isinstance(config, DETRConfig | DNDETRConfig) else every["logits"]
    assert any(last.shape == tensor.shape and torch.allclose(last, tensor, atol=1e-5) for tensor in output)


@pytest.mark.parametrize("name", IN_FULL)
def test_saved_and_loaded_it_gives_the_same_bits(name):
    config, model, other = config_of(name), made(name).eval(), made(name, seed=3).eval()
    given = inputs(config)
    with torch.no_grad():
        wanted = tensors(model(*given))
        assert not all(a.equal(b) for a, b in zip(tensors(other(*given)), wanted, strict=True))
        saved = safetensors.torch.save({key: tensor.contiguous() for key, tensor in model.state_dict().items()})
        other.load_state_dict(safetensors.torch.load(saved), strict=True)
        for found, tensor in zip(tensors(other(*given)), wanted, strict=True):
            assert found.equal(tensor)
