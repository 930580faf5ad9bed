"""Whole models, made of layers and mixers, and the names of their presets."""

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError
from torch import nn

from regard.errors import RegardError, unknown
from regard.models.backbone import Backbone, SASABackbone, TimmBackbone, ViTBackbone, create_backbone
from regard.models.detr import DETR, DETRConfig, DETROutput
from regard.models.dn_detr import DNDETR, DNDETRConfig, DNDETROutput
from regard.models.encoder_decoder import TransformerDecoder, TransformerEncoder
from regard.models.fnet import FNet, FNetConfig
from regard.models.image_model import ImageModel
from regard.models.language import LanguageModel, LanguageModelConfig, LanguageState
from regard.models.presets import PRESETS, ModelConfig
from regard.models.recurrent import RecurrentConfig, RecurrentSeq2Seq
from regard.models.sasa_resnet import SASAResNet, SASAResNetConfig
from regard.models.transformer import Transformer, TransformerConfig, TransformerState
from regard.models.vit import ViT, ViTConfig

__all__ = [
    "DETR",
    "DNDETR",
    "PRESETS",
    "Backbone",
    "DETRConfig",
    "DETROutput",
    "DNDETRConfig",
    "DNDETROutput",
    "FNet",
    "FNetConfig",
    "ImageModel",
    "LanguageModel",
    "LanguageModelConfig",
    "LanguageState",
    "ModelConfig",
    "RecurrentConfig",
    "RecurrentSeq2Seq",
    "SASABackbone",
    "SASAResNet",
    "SASAResNetConfig",
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
    "configure",
    "create_backbone",
]


def configure(name: str, overrides: Mapping[str, Any], where: str = "model") -> ModelConfig:
    """The configuration of a preset with some values replaced; RegardError for an unknown name, key or type."""
    if name not in PRESETS:
        raise unknown("model", name, PRESETS, where="" if where == "model" else where)
    values = dict(vars(PRESETS[name]))
    for key in overrides:
        if key not in values:
            raise unknown("key", f"{where}.{key}", [f"{where}.{known}" for known in values])
    values |= overrides
    try:
        config: ModelConfig = _VALIDATORS[type(PRESETS[name])].validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"][:1])
        raise RegardError(f"{where}.{key}: {first['msg'].lower()}, got {values[key]!r}") from None
    return config


def build(config: ModelConfig) -> nn.Module:
    """The model of a configuration, with random weights."""
    if isinstance(config, ViTConfig):
        return ViT(config)
    if isinstance(config, SASAResNetConfig):
        return SASAResNet(config)
    return _MODELS[type(config)](**vars(config))


_MODELS: dict[type, type[nn.Module]] = {
    DETRConfig: DETR,
    DNDETRConfig: DNDETR,
    FNetConfig: FNet,
    TransformerConfig: Transformer,
    LanguageModelConfig: LanguageModel,
    RecurrentConfig: RecurrentSeq2Seq,
}
_VALIDATORS: dict[type, TypeAdapter[Any]] = {
    kind: TypeAdapter(kind) for kind in (ViTConfig, SASAResNetConfig, *_MODELS)
}
