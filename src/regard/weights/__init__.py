"""Other libraries' weights under Regard's names, and files of weights."""

from regard.weights.classifier import load_classifier_weights
from regard.weights.detr import load_detr_weights
from regard.weights.files import read_safetensors, read_weights, require_fit
from regard.weights.original_detr import from_original_detr
from regard.weights.timm_backbone import load_pretrained_backbone
from regard.weights.torch_transformer import from_torch_transformer
from regard.weights.transformers_detr import from_transformers_detr
from regard.weights.transformers_fnet import from_transformers_fnet

__all__ = [
    "from_original_detr",
    "from_torch_transformer",
    "from_transformers_detr",
    "from_transformers_fnet",
    "load_classifier_weights",
    "load_detr_weights",
    "load_pretrained_backbone",
    "read_safetensors",
    "read_weights",
    "require_fit",
]
