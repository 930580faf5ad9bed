"""`transformers.DetrForObjectDetection`: its names, those of today and those before version 5."""

from collections.abc import Mapping

from torch import Tensor

from regard.weights.name_map import NameMap, Part, renamed

_LAYER = r"model\.(encoder|decoder)\.layers\.(\d+)\."
_CROSS = r"model\.decoder\.layers\.(\d+)\.encoder_attn"

TRANSFORMERS_DETR: NameMap = {
    r"model\.backbone\.(?:conv_encoder\.)?model\.(.+)": r"backbone.body.\1",
    r"model\.input_projection\.(weight|bias)": r"project.\1",
    r"model\.query_position_embeddings\.weight": "queries.weight",
    r"class_labels_classifier\.(weight|bias)": r"label_head.\1",
    r"bbox_predictor\.(layers\.\d\.(?:weight|bias))": r"box_head.\1",
    _LAYER + r"self_attn\.q_proj\.(weight|bias)": Part(r"\1.layers.\2.mixer.qkv.\3", 0),
    _LAYER + r"self_attn\.k_proj\.(weight|bias)": Part(r"\1.layers.\2.mixer.qkv.\3", 1),
    _LAYER + r"self_attn\.v_proj\.(weight|bias)": Part(r"\1.layers.\2.mixer.qkv.\3", 2),
    _LAYER + r"self_attn\.(?:o|out)_proj\.(weight|bias)": r"\1.layers.\2.mixer.proj.\3",
    _LAYER + r"(?:mlp\.)?fc([12])\.(weight|bias)": r"\1.layers.\2.mlp.fc\3.\4",
    _LAYER + r"self_attn_layer_norm\.(weight|bias)": r"\1.layers.\2.skip1.norm.\3",
    _CROSS + r"\.([qkv])_proj\.(weight|bias)": r"decoder.layers.\1.cross.\2.\3",
    _CROSS + r"\.(?:o|out)_proj\.(weight|bias)": r"decoder.layers.\1.cross.proj.\2",
    _CROSS + r"_layer_norm\.(weight|bias)": r"decoder.layers.\1.skip2.norm.\2",
    # The last norm of a layer is its second in the encoder, its third in the decoder.
    r"model\.encoder\.layers\.(\d+)\.final_layer_norm\.(weight|bias)": r"encoder.layers.\1.skip2.norm.\2",
    r"model\.decoder\.layers\.(\d+)\.final_layer_norm\.(weight|bias)": r"decoder.layers.\1.skip3.norm.\2",
    r"model\.decoder\.layernorm\.(weight|bias)": r"decoder.norm.\1",
}


def from_transformers_detr(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """transformers' state dict as that of a `regard.models.DETR`. RegardError names what has no place here."""
    return renamed(state, TRANSFORMERS_DETR, "transformers' DETR")
