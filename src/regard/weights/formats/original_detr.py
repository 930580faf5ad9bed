"""The original DETR's names (facebookresearch/detr), and where each tensor goes."""

from collections.abc import Mapping

from torch import Tensor

from regard.weights.formats.torch_transformer import torch_rules
from regard.weights.rules import Names, Rule, renamed

ORIGINAL_DETR = Names(
    "the original DETR",
    (
        Rule("backbone.0.body.{rest}", "backbone.body.{rest}"),
        Rule("input_proj.{w}", "project.{w}"),
        Rule("query_embed.weight", "queries.weight"),
        Rule("class_embed.{w}", "label_head.{w}"),
        Rule("bbox_embed.layers.{n}.{w}", "box_head.layers.{n}.{w}"),
        *torch_rules("transformer."),
    ),
)


def from_original_detr(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The original state dict as that of a `regard.models.DETR`. RegardError lists names that have no place here."""
    return renamed(state, ORIGINAL_DETR)
