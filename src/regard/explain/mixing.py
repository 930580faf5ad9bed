"""What each token of one layer takes from every other, for one image."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from regard.draw.png import png_bytes
from regard.errors import RegardError
from regard.explain.influence import influence, influence_error
from regard.explain.tokens import token_name
from regard.layers import Grid
from regard.mixers import Mixer
from regard.models import ViT

Kind = Literal["matrix", "influence"]

# Influence is exact for a mixer's input of up to so many values; for a larger one it is estimated from random probes.
EXACT_UP_TO = 64 * 256
NUM_PROBES = 64


@dataclass(frozen=True)
class Mixing:
    """`row(i)[j]` says how much token i takes from token j; a notebook shows it as a heat map.

    kind: `matrix` is the mixer's A, averaged over heads, whose rows sum to one; `influence` is the norm of ∂y_i/∂x_j.
    """

    kind: Kind
    tokens: tuple[int, ...]
    """The query tokens i, one for each row of `weights`."""
    weights: Float[Tensor, "queries tokens"]
    heads: Float[Tensor, "heads queries tokens"] | None
    """The rows of A of each head; None for influence."""
    grid: Grid
    layer: int
    mixer: str
    error: float = 0.0
    """Relative standard error of the weights; 0 if they are exact."""

    def row(self, token: int) -> Float[Tensor, " tokens"]:
        return self.weights[self._index(token)]

    def head_row(self, head: int, token: int) -> Float[Tensor, " tokens"]:
        return self.each_head()[head, self._index(token)]

    def each_head(self) -> Float[Tensor, "heads queries tokens"]:
        """The rows of A of each head. RegardError for influence."""
        if self.heads is None:
            raise RegardError(f"{self.mixer}: influence is of a mixer as a whole; it cannot be shown head by head")
        return self.heads

    def _repr_png_(self) -> bytes:
        from regard.explain.mixing_pictures import matrix_figure

        return png_bytes(matrix_figure(self))

    def _index(self, token: int) -> int:
        if token not in self.tokens:
            raise RegardError(f"{token_name(self.grid, token)} is not among the tokens of this mixing")
        return self.tokens.index(token)


def mixing(
    model: ViT,
    image: Float[Tensor, "in_chans height width"],
    *,
    layer: int = -1,
    tokens: Sequence[int] | None = None,
    kind: Kind | None = None,
) -> Mixing:
    """What the query `tokens` (all unless given) take from every token in block `layer`, for a preprocessed image.

    Unless `kind` is given, it is the mixing matrix if the mixer has one, and else the influence. Influence is exact for
    small inputs, and an estimate with its error for large ones.
    RegardError for a layer or token that does not exist, and for `matrix` if the mixer has none.
    """
    depth = len(model.blocks)
    if not -depth <= layer < depth:
        raise RegardError(f"layer {layer} is not there: the model has blocks 0 to {depth - 1} (-1 is the last)")
    layer %= depth
    mixer = model.blocks[layer].mixer
    if not isinstance(mixer, Mixer):
        raise RegardError(f"block {layer} has no token mixer but a {type(mixer).__name__}")
    matrix_of = getattr(mixer, "mixing_matrix", None)
    if kind == "matrix" and matrix_of is None:
        raise RegardError(f"{mixer.name}: has no mixing matrix; ask for its influence")
    grid = model.patch_embed.grid(image.shape[1], image.shape[2], prefix=model.grid.prefix)
    chosen = tuple(range(grid.num_tokens) if tokens is None else tokens)
    for token in chosen:
        token_name(grid, token)  # raises for one that is not there
    with torch.no_grad():
        x = model.intermediates(image.unsqueeze(0), [f"blocks.{layer}.mixer_input"])[f"blocks.{layer}.mixer_input"]
        if matrix_of is not None and kind != "influence":
            heads = matrix_of(x, grid=grid)[0][:, list(chosen)]
            return Mixing("matrix", chosen, heads.mean(0), heads, grid, layer, mixer.name)
    num_probes = None if x.numel() <= EXACT_UP_TO else NUM_PROBES
    weights = influence(mixer, x, grid=grid, tokens=list(chosen), num_probes=num_probes)[0]
    error = 0.0 if num_probes is None else influence_error(num_probes)
    return Mixing("influence", chosen, weights, None, grid, layer, mixer.name, error)
