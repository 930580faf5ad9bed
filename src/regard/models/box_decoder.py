"""A decoder whose queries are boxes that each layer refines (DAB-DETR; Deformable DETR, appendix A.4)."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from regard.errors import unknown
from regard.layers import MLP, Activation, DeformableAttention, Grid, MultiHeadAttention, Residual, checkpointed
from regard.models.hybrid_encoder import Memory, matrix_weights
from regard.ops import sine_boxes

CROSS_ATTENTIONS = ("deformable", "dense")
# A box's coordinates are clamped to this distance from 0 and 1 before their logit is taken.
EPSILON = 1e-4


class BoxDelta(nn.Module):
    """The box delta of a query: three linear maps with ReLU between, zero at the start; added to the box's logits."""

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(embed_dim, out) for out in (embed_dim, embed_dim, 4))
        for parameter in self.layers[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(
        self, x: Float[Tensor, "*shape embed_dim"], boxes_cxcywh: Float[Tensor, "*shape 4"]
    ) -> Float[Tensor, "*shape 4"]:
        """sigmoid(logit(box) + delta(x)), in float32."""
        return _add_delta(boxes_cxcywh, self.delta(x))

    def delta(self, x: Float[Tensor, "*shape embed_dim"]) -> Float[Tensor, "*shape 4"]:
        """What is added to the logits, in float32."""
        first, second, last = self.layers
        return last(second(first(x).relu()).relu()).float()


def _add_delta(boxes_cxcywh: Tensor, delta: Tensor) -> Tensor:
    return (boxes_cxcywh.float().clamp(EPSILON, 1 - EPSILON).logit() + delta).sigmoid()


class BoxDecoderLayer(nn.Module):
    """Queries attend to each other, then to the memory (around their boxes, or to all of it); then comes the MLP."""

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        *,
        mlp_ratio: float = 4.0,
        cross_attention: str = "deformable",
        num_levels: int = 2,
        num_points: int = 4,
        activation: Activation = "relu",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if cross_attention not in CROSS_ATTENTIONS:
            raise unknown("model.cross_attention", cross_attention, CROSS_ATTENTIONS)
        self.embed_dim = embed_dim
        self.attention = MultiHeadAttention(embed_dim, num_heads)
        self.skip1 = Residual(embed_dim, "post", dropout)
        self.cross: DeformableAttention | MultiHeadAttention
        if cross_attention == "deformable":
            self.cross = DeformableAttention(embed_dim, num_heads, num_levels=num_levels, num_points=num_points)
        else:
            self.cross = MultiHeadAttention(embed_dim, num_heads)
        self.skip2 = Residual(embed_dim, "post", dropout)
        self.mlp = MLP(embed_dim, int(embed_dim * mlp_ratio), activation)
        self.skip3 = Residual(embed_dim, "post", dropout)

    def forward(
        self,
        x: Float[Tensor, "batch queries embed_dim"],
        positions: Float[Tensor, "batch queries embed_dim"],
        boxes_cxcywh: Float[Tensor, "batch queries 4"],
        memory: Memory,
        attn_mask: Bool[Tensor, "batch 1 queries queries"] | None = None,
    ) -> Float[Tensor, "batch queries embed_dim"]:
        """Boxes are in [0, 1] of the image without padding; `attn_mask` is True where a query may attend to another."""
        value = self.skip1.pre_norm(x)
        query = value + positions
        x = self.skip1.post_norm(x, self.attention(query, query, value, attn_mask=attn_mask))
        query = self.skip2.pre_norm(x) + positions
        if isinstance(self.cross, DeformableAttention):
            reference = boxes_cxcywh[:, :, None] * memory.extents.repeat(1, 1, 2)[:, None]
            added = self.cross(query, reference, memory.tokens, memory.shapes, key_mask=memory.mask)
        else:
            keys = memory.tokens if memory.positions is None else memory.tokens + memory.positions
            added = self.cross(query, keys, memory.tokens, key_mask=memory.mask)
        x = self.skip2.post_norm(x, added)
        return self.skip3.post_norm(x, self.mlp(self.skip3.pre_norm(x)))

    def flops(self, num_queries: int, num_keys: int) -> int:
        own = self.attention.flops(num_queries, num_queries) + self.mlp.flops(Grid(1, num_queries, 0))
        return own + self.cross.flops(num_queries, num_keys)


class Predictions(NamedTuple):
    """The predictions of every layer for every query."""

    logits: Float[Tensor, "layers batch queries classes"]
    boxes_cxcywh: Float[Tensor, "layers batch queries 4"]


class BoxDecoder(nn.Module):
    """Layers one after the other, each with heads of its own for classes and boxes.

    With `refine` a query's position is the sine embedding of its box (DAB-DETR, eq. 6), and each layer refines the box
    of the layer before. A box's loss trains the delta of its own layer and that of the layer before, but of none
    earlier (DINO's "look forward twice", section 3.5). Without `refine` every layer starts from a query's first box,
    and its position is learned.
    """

    gradient_checkpointing = False
    """Recompute each layer in the backward pass instead of keeping its activations."""

    def __init__(self, layers: Sequence[BoxDecoderLayer], num_classes: int, *, refine: bool = True) -> None:
        super().__init__()
        embed_dim = layers[0].embed_dim
        self.embed_dim, self.refine = embed_dim, refine
        self.layers: Sequence[BoxDecoderLayer] = nn.ModuleList(layers)  # type: ignore[assignment] # it is one, but not by name
        self.label_heads = nn.ModuleList(label_head(embed_dim, num_classes) for _ in layers)
        self.box_heads: Sequence[BoxDelta] = nn.ModuleList(  # type: ignore[assignment]
            BoxDelta(embed_dim) for _ in layers
        )
        if refine:
            self.place = nn.Sequential(nn.Linear(2 * embed_dim, embed_dim), nn.ReLU(), nn.Linear(embed_dim, embed_dim))

    def forward(
        self,
        x: Float[Tensor, "batch queries embed_dim"],
        boxes_cxcywh: Float[Tensor, "batch queries 4"],
        memory: Memory,
        *,
        positions: Float[Tensor, "batch queries embed_dim"] | None = None,
        attn_mask: Bool[Tensor, "batch 1 queries queries"] | None = None,
    ) -> Predictions:
        """`positions` are needed without `refine` alone; `attn_mask` is True where a query may attend to another."""
        logits, boxes = [], []
        # The same boxes twice: constants, which the layer reads; and with the gradient of the delta before.
        reference = start = boxes_cxcywh
        for layer, labels, head in zip(self.layers, self.label_heads, self.box_heads, strict=True):
            if self.refine:
                positions = self.place(sine_boxes(reference, self.embed_dim).to(x.dtype))
            x = checkpointed(self.gradient_checkpointing, layer, x, positions, reference, memory, attn_mask)
            logits.append(labels(x))
            delta = head.delta(x)
            boxes.append(_add_delta(start, delta))
            if self.refine:
                start, reference = _add_delta(reference, delta), boxes[-1].detach()
        return Predictions(torch.stack(logits), torch.stack(boxes))

    def flops(self, num_queries: int, num_keys: int) -> int:
        heads = matrix_weights(self.label_heads) + sum(map(matrix_weights, self.box_heads))
        positions = len(self.layers) * matrix_weights(self.place) if self.refine else 0
        return 2 * num_queries * (heads + positions) + sum(layer.flops(num_queries, num_keys) for layer in self.layers)


def label_head(embed_dim: int, num_classes: int) -> nn.Linear:
    """A logit of each class, whose sigmoid begins at 0.01 (Lin et al. 2017, section 4.1)."""
    head = nn.Linear(embed_dim, num_classes)
    nn.init.constant_(head.bias, -4.595)
    return head
