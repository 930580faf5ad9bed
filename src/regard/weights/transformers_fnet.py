"""`transformers.FNetModel`: its names."""

from collections.abc import Mapping

from torch import Tensor

from regard.weights.name_map import NameMap, renamed

_LAYER = r"(?:fnet\.)?encoder\.layer\.(\d+)\."

TRANSFORMERS_FNET: NameMap = {
    r"(?:fnet\.)?embeddings\.word_embeddings\.weight": "words.weight",
    r"(?:fnet\.)?embeddings\.position_embeddings\.weight": "positions.weight",
    r"(?:fnet\.)?embeddings\.token_type_embeddings\.weight": "types.weight",
    r"(?:fnet\.)?embeddings\.LayerNorm\.(weight|bias)": r"norm.\1",
    r"(?:fnet\.)?embeddings\.projection\.(weight|bias)": r"project.\1",
    r"(?:fnet\.)?embeddings\.(?:position_ids|token_type_ids)": None,
    _LAYER + r"fourier\.output\.LayerNorm\.(weight|bias)": r"encoder.layers.\1.skip1.norm.\2",
    _LAYER + r"intermediate\.dense\.(weight|bias)": r"encoder.layers.\1.mlp.fc1.\2",
    _LAYER + r"output\.dense\.(weight|bias)": r"encoder.layers.\1.mlp.fc2.\2",
    _LAYER + r"output\.LayerNorm\.(weight|bias)": r"encoder.layers.\1.skip2.norm.\2",
    r"(?:fnet\.)?pooler\.dense\.(weight|bias)": r"pooler.\1",
    r"cls\..+": None,
}


def from_transformers_fnet(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """transformers' state dict as that of a `regard.models.FNet`. RegardError names what has no place here."""
    return renamed(state, TRANSFORMERS_FNET, "transformers' FNet")
