"""Other libraries' weights under Regard's names and back, files of weights, and a catalogue of pretrained models."""

from regard.weights.backbone import load_pretrained_backbone
from regard.weights.catalogue import CATALOGUE, Pretrained, chosen_pretrained, class_names, find_pretrained, pretrained
from regard.weights.files import read_npz, read_safetensors, read_weights, require_fit
from regard.weights.formats.known import FORMATS, understand, written_as
from regard.weights.formats.original_detr import from_original_detr
from regard.weights.formats.torch_transformer import from_torch_transformer
from regard.weights.formats.transformers_detr import from_transformers_detr
from regard.weights.formats.transformers_fnet import from_transformers_fnet
from regard.weights.load import Loaded, find_weights, load_weights

__all__ = [
    "CATALOGUE",
    "FORMATS",
    "Loaded",
    "Pretrained",
    "chosen_pretrained",
    "class_names",
    "find_pretrained",
    "find_weights",
    "from_original_detr",
    "from_torch_transformer",
    "from_transformers_detr",
    "from_transformers_fnet",
    "load_pretrained_backbone",
    "load_weights",
    "pretrained",
    "read_npz",
    "read_safetensors",
    "read_weights",
    "require_fit",
    "understand",
    "written_as",
]
