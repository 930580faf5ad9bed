"""Attention to a few learned points around a reference, over several feature maps."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from regard.errors import RegardError
from regard.ops import deformable_attention


class DeformableAttention(nn.Module):
    """MSDeformAttn(z_q, p_q, {x^l})  (Zhu et al. 2020, eq. 3). The parameters have the names of the authors' code.

    Two linear maps of a query give the offsets of its points from its reference (`num_points` on each map, for each
    head) and the points' weights, a softmax over all points of a head. At the start the heads look in evenly spread
    directions, point k at k times the distance of the first, and all weights are equal.
    """

    def __init__(self, embed_dim: int, num_heads: int, *, num_levels: int = 4, num_points: int = 4) -> None:
        super().__init__()
        if num_heads < 1 or embed_dim % num_heads:
            raise RegardError(f"attention: embed_dim {embed_dim} does not divide into num_heads {num_heads}")
        self.num_heads, self.num_levels, self.num_points = num_heads, num_levels, num_points
        places = num_heads * num_levels * num_points
        self.sampling_offsets = nn.Linear(embed_dim, 2 * places)
        self.attention_weights = nn.Linear(embed_dim, places)
        self.value_proj = nn.Linear(embed_dim, embed_dim)
        self.output_proj = nn.Linear(embed_dim, embed_dim)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """The initial values of the authors' code."""
        for place in (self.sampling_offsets, self.attention_weights):
            nn.init.zeros_(place.weight)
            nn.init.zeros_(place.bias)
        for projection in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(projection.weight)
            nn.init.zeros_(projection.bias)
        angles = torch.arange(self.num_heads) * (2 * math.pi / self.num_heads)
        directions = torch.stack([angles.cos(), angles.sin()], dim=-1)
        directions = directions / directions.abs().amax(-1, keepdim=True)
        distances = torch.arange(1, self.num_points + 1)[:, None]
        offsets = (directions[:, None, None] * distances).expand(-1, self.num_levels, -1, -1)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(offsets.flatten())

    def forward(
        self,
        query: Float[Tensor, "batch queries embed_dim"],
        reference: Float[Tensor, "batch queries levels place"],
        memory: Float[Tensor, "batch tokens embed_dim"],
        shapes: Sequence[tuple[int, int]],
        *,
        key_mask: Bool[Tensor, "batch tokens"] | None = None,
    ) -> Float[Tensor, "batch queries embed_dim"]:
        """The output of each query. `memory` holds the tokens of all maps, one map after the other.

        `reference`, in [0, 1] of each map, is a point (x, y), with offsets in tokens of the map; or a box
        (cx, cy, w, h), with offsets from its centre in units of half a side / num_points. Where `key_mask` is False
        the value is zero. RegardError if `shapes` do not sum to the number of tokens.
        """
        if key_mask is not None and not torch.compiler.is_compiling():
            memory = memory.masked_fill(~key_mask[..., None], 0.0)  # for the gradients of the weights: 0 · NaN is NaN
        value = self.value_proj(memory)
        if key_mask is not None:
            value = value.masked_fill(~key_mask[..., None], 0.0)
        heads = value.unflatten(2, (self.num_heads, -1)).transpose(1, 2)
        weights, locations = self.weights(query), self.locations(query, reference, shapes)
        return self.output_proj(deformable_attention(heads, shapes, locations, weights).transpose(1, 2).flatten(2))

    def rows(
        self,
        query: Float[Tensor, "batch queries embed_dim"],
        reference: Float[Tensor, "batch queries levels place"],
        shapes: Sequence[tuple[int, int]],
        queries: Int64[Tensor, " some_queries"],
        *,
        key_mask: Bool[Tensor, "batch tokens"] | None = None,
        heads: Int64[Tensor, " some"] | None = None,
    ) -> Float[Tensor, "batch heads some_queries tokens"]:
        """What some queries take from each token of all maps: their points' weights, shared among the tokens beside.

        Row i is ∂/∂m of Σ_k weights[k] · m(locations[k]) for a map m of one channel: sampling is linear in it. A row
        sums to less than 1 where points lie outside the image.
        """
        query, reference = query[:, queries], reference[:, queries]
        weights, places = self.weights(query), self.locations(query, reference, shapes)
        if heads is not None:
            weights, places = weights[:, heads], places[:, heads]
        batch, count, num_tokens = len(query), weights.shape[1], sum(height * width for height, width in shapes)
        # Each query has a map of its own: (batch, heads · queries, tokens, 1).
        one_each = [part.detach().flatten(1, 2).unsqueeze(2) for part in (places, weights)]
        with torch.enable_grad():
            maps = one_each[1].new_zeros(batch, one_each[1].shape[1], num_tokens, 1, requires_grad=True)
            (rows,) = torch.autograd.grad(deformable_attention(maps, shapes, *one_each).sum(), maps)
        rows = rows.squeeze(-1).unflatten(1, (count, len(queries)))
        return rows if key_mask is None else rows.masked_fill(~key_mask[:, None, None, :], 0.0)

    def weights(
        self, query: Float[Tensor, "batch queries embed_dim"]
    ) -> Float[Tensor, "batch heads queries levels points"]:
        """How much each point counts; the weights of a head's points sum to one, over all maps."""
        weights = _precise(self.attention_weights(query)).unflatten(2, (self.num_heads, -1)).softmax(-1)
        return weights.unflatten(3, (self.num_levels, self.num_points)).transpose(1, 2)

    def locations(
        self,
        query: Float[Tensor, "batch queries embed_dim"],
        reference: Float[Tensor, "batch queries levels place"],
        shapes: Sequence[tuple[int, int]],
    ) -> Float[Tensor, "batch heads queries levels points 2"]:
        """Where each query looks: (x, y) in [0, 1] of each map."""
        offsets = _precise(self.sampling_offsets(query))
        offsets = offsets.unflatten(2, (self.num_heads, self.num_levels, self.num_points, 2)).transpose(1, 2)
        reference = reference[:, None, :, :, None]
        if reference.shape[-1] == 2:
            scale = offsets.new_tensor([[1 / width, 1 / height] for height, width in shapes])[:, None]
        else:
            scale = reference[..., 2:] * (0.5 / self.num_points)
        return reference[..., :2] + offsets * scale

    def flops(self, num_queries: int, num_keys: int) -> int:
        """Operations for one image: the projections, and four neighbours of each point."""
        dim = self.value_proj.in_features
        of_query = sum(part.weight.numel() for part in (self.sampling_offsets, self.attention_weights))
        places = self.num_levels * self.num_points
        return 2 * (num_queries * (of_query + dim**2) + num_keys * dim**2) + 2 * 5 * num_queries * places * dim


def _precise(x: Tensor) -> Tensor:
    """In float32 at least: bfloat16 could misplace a point by half a token."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
