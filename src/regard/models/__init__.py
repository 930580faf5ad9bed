"""Whole models, made of layers and mixers, and the names of their presets."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from typing import Any

from pydantic import TypeAdapter, ValidationError
from torch import nn

from regard.errors import RegardError, shown, unknown
from regard.models.backbone import Backbone, SASABackbone, TimmBackbone, ViTBackbone, create_backbone, vit_stride
from regard.models.detr import DETR, DETRConfig, DETROutput
from regard.models.distilled import Features, SelfDistilled, Student, features_of
from regard.models.dn_detr import DNDETR, DNDETRConfig, DNDETROutput
from regard.models.encoder_decoder import TransformerDecoder, TransformerEncoder
from regard.models.fnet import FNet, FNetConfig
from regard.models.image_model import ImageModel
from regard.models.language import LanguageModel, LanguageModelConfig, LanguageState
from regard.models.masked import MaskedAutoencoder, SimMIM, mixers_that_need_all
from regard.models.presets import PRESETS, RENAMED, ModelConfig
from regard.models.recurrent import RecurrentConfig, RecurrentSeq2Seq
from regard.models.sasa_resnet import SASAResNet, SASAResNetConfig
from regard.models.transformer import Transformer, TransformerConfig, TransformerState
from regard.models.vit import ViT, ViTConfig

__all__ = [
    "DETR",
    "DNDETR",
    "PRESETS",
    "RENAMED",
    "Backbone",
    "DETRConfig",
    "DETROutput",
    "DNDETRConfig",
    "DNDETROutput",
    "FNet",
    "FNetConfig",
    "Features",
    "ImageModel",
    "LanguageModel",
    "LanguageModelConfig",
    "LanguageState",
    "MaskedAutoencoder",
    "ModelConfig",
    "RecurrentConfig",
    "RecurrentSeq2Seq",
    "SASABackbone",
    "SASAResNet",
    "SASAResNetConfig",
    "SelfDistilled",
    "SimMIM",
    "Student",
    "TimmBackbone",
    "Transformer",
    "TransformerConfig",
    "TransformerDecoder",
    "TransformerEncoder",
    "TransformerState",
    "ViT",
    "ViTBackbone",
    "ViTConfig",
    "build",
    "config_values",
    "configure",
    "create_backbone",
    "current_name",
    "features_of",
    "mixers_that_need_all",
    "unknown_model",
    "vit_stride",
]


def configure(name: str, overrides: Mapping[str, Any], where: str = "model") -> ModelConfig:
    """The configuration of a preset with some values replaced; RegardError for an unknown name, key or type."""
    if name not in PRESETS:
        raise unknown_model("model", name, PRESETS, where="" if where == "model" else where)
    values = dict(vars(PRESETS[name]))
    for key in overrides:
        if key not in values:
            raise unknown("key", f"{where}.{str(key)[:60]}", [f"{where}.{known}" for known in values])
    values |= overrides
    try:
        config: ModelConfig = _VALIDATORS[type(PRESETS[name])].validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"][:1])
        raise RegardError(f"{where}.{key}: {first['msg'].lower()}, got {shown(values[key])}") from None
    return config


# Newer fields of configurations, with the value at which metadata leave them out: older runs hold none.
_LEFT_OUT: dict[str, Any] = {"backbone_blocks": ()}


def config_values(config: ModelConfig) -> dict[str, Any]:
    """A configuration as metadata hold it, which `configure` reads."""
    return {key: value for key, value in asdict(config).items() if key not in _LEFT_OUT or value != _LEFT_OUT[key]}


def current_name(name: str) -> str:
    """Today's name of a preset, for the name that a run folder holds, which may be an old one."""
    return RENAMED.get(name, name)


def unknown_model(what: str, name: str, known: Iterable[str], where: str = "", then: Iterable[str] = ()) -> RegardError:
    """`unknown`, but for an old name the error gives today's."""
    if name not in RENAMED:
        return unknown(what, name, known, where, then)
    prefix = f"{where}: " if where else ""
    return RegardError(
        f"{prefix}unknown {what} {name!r}; type {RENAMED[name]!r} for the convolutional baseline of the SASA paper, "
        f"which is not timm's {name}"
    )


def build(config: ModelConfig) -> nn.Module:
    """The model of a configuration, with random weights."""
    return _MODELS[type(config)](config)


_MODELS: dict[type, Callable[[Any], nn.Module]] = {
    ViTConfig: ViT,
    SASAResNetConfig: SASAResNet,
    DETRConfig: DETR,
    DNDETRConfig: DNDETR,
    FNetConfig: FNet,
    TransformerConfig: Transformer,
    LanguageModelConfig: LanguageModel,
    RecurrentConfig: RecurrentSeq2Seq,
}
_VALIDATORS: dict[type, TypeAdapter[Any]] = {kind: TypeAdapter(kind) for kind in _MODELS}
