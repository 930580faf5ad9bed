"""Other libraries' weights under Regard's names and back, files of weights, and a catalogue of pretrained models.

The journey of weights, from a name to a model:

    catalogue.py      a pretrained model's name -> where its weights are, their format, preprocessing, licence and paper
    hub.py            -> a file of the Hugging Face hub; package_file.py: a file inside an installed package
    files.py          file -> what it holds, without running code; checkpoint.py: the files of torch.save
    wrapped.py        -> the state dict in it, among all that a training saves
    formats/          a table of names for each source; known.py recognises a state dict's format
    rules.py          what a table is made of: names there, names here, and what is changed between them
    prefix_tokens.py  rows of the table of positions for class token and registers
    adapt.py          -> fitted to the model's image size, channels and classes
    fit.py            whether they do fit: the error that lists where not, and the one for NaN
    described.py      whether a stranger's weights are those of the model that its metadata.json describes
    auto.py           which of a model's weights are at hand, where a recipe says `auto`
    load.py           all of this: `load_weights(model, source)`; backbone.py: for a backbone alone
    convert.py        a source -> a file in another library's format
"""

from regard.weights.adapt import OtherClasses
from regard.weights.auto import AUTO, Chosen, choose_weights, is_at_hand, names_at_hand, weights_hash
from regard.weights.backbone import load_pretrained_backbone
from regard.weights.catalogue import CATALOGUE, Pretrained, chosen_pretrained, class_names, find_pretrained, pretrained
from regard.weights.files import read_npz, read_safetensors
from regard.weights.fit import require_fit
from regard.weights.formats.known import FORMATS, understand, written_as
from regard.weights.formats.original_detr import from_original_detr
from regard.weights.formats.torch_transformer import from_torch_transformer
from regard.weights.formats.transformers_detr import from_transformers_detr
from regard.weights.formats.transformers_fnet import from_transformers_fnet
from regard.weights.hub import PREFIX
from regard.weights.load import LOCAL, Loaded, find_weights, load_weights
from regard.weights.wrapped import read_weights

__all__ = [
    "AUTO",
    "CATALOGUE",
    "FORMATS",
    "LOCAL",
    "PREFIX",
    "Chosen",
    "Loaded",
    "OtherClasses",
    "Pretrained",
    "choose_weights",
    "chosen_pretrained",
    "class_names",
    "find_pretrained",
    "find_weights",
    "from_original_detr",
    "from_torch_transformer",
    "from_transformers_detr",
    "from_transformers_fnet",
    "is_at_hand",
    "load_pretrained_backbone",
    "load_weights",
    "names_at_hand",
    "pretrained",
    "read_npz",
    "read_safetensors",
    "read_weights",
    "require_fit",
    "understand",
    "weights_hash",
    "written_as",
]
