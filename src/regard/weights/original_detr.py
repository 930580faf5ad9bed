"""The original DETR's names (facebookresearch/detr), and where each tensor goes."""

from collections.abc import Mapping

from torch import Tensor

from regard.weights.name_map import NameMap, renamed
from regard.weights.torch_transformer import torch_names

ORIGINAL_DETR: NameMap = {
    r"backbone\.0\.body\.(.+)": r"backbone.body.\1",
    r"input_proj\.(weight|bias)": r"project.\1",
    r"query_embed\.weight": "queries.weight",
    r"class_embed\.(weight|bias)": r"label_head.\1",
    r"bbox_embed\.(layers\.\d\.(?:weight|bias))": r"box_head.\1",
    **torch_names(r"transformer\."),
}


def from_original_detr(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The original's state dict as that of a `regard.models.DETR`. RegardError names what has no place here."""
    return renamed(state, ORIGINAL_DETR, "the original DETR")
