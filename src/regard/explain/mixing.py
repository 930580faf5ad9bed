"""What each token of one layer takes from every other, for one image."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from regard.errors import RegardError
from regard.explain.influence import influence, influence_error
from regard.layers import Grid
from regard.mixers import Mixer
from regard.models import ViT

Kind = Literal["matrix", "influence"]

# Up to this many values in a mixer's input, influence is exact; beyond, an estimate from as many probes as given below.
EXACT_UP_TO = 64 * 256
NUM_PROBES = 64


def token_at(grid: Grid, row: int, col: int) -> int:
    """The number of the token that patch (row, col) became. RegardError where the grid has no such patch."""
    if not (0 <= row < grid.height and 0 <= col < grid.width):
        raise RegardError(f"patch ({row}, {col}) is not there: the grid is {grid.height} × {grid.width}")
    return grid.prefix + row * grid.width + col


def token_name(grid: Grid, token: int) -> str:
    """What to call a token: "class token", "register 1", "patch (2, 3)" (row, column). RegardError for none of them."""
    if not 0 <= token < grid.num_tokens:
        raise RegardError(f"token {token} is not there: the grid has tokens 0 to {grid.num_tokens - 1}")
    if token >= grid.prefix:
        row, col = divmod(token - grid.prefix, grid.width)
        return f"patch ({row}, {col})"
    return "class token" if token == 0 else f"register {token}"


def parse_token(text: str, grid: Grid) -> int:
    """The token that "ROW,COLUMN" names on a grid, or "class". RegardError where it is not there."""
    if text == "class":
        if grid.prefix:
            return 0
        raise RegardError("the model has no class token; name a patch as ROW,COLUMN")
    row, comma, column = (part.strip() for part in text.partition(","))
    if not comma or not row.isdigit() or not column.isdigit():
        raise RegardError(f"token {text!r}: expected ROW,COLUMN of a patch, as in 2,3, or class")
    return token_at(grid, int(row), int(column))


@dataclass(frozen=True)
class Mixing:
    """`row(i)[j]` is what token i takes from token j. `kind` says in which sense.

    `matrix`: the mixer's A, averaged over heads, in rows that sum to one. `influence`: the norm of ∂y_i/∂x_j.
    """

    kind: Kind
    tokens: tuple[int, ...]
    """The query tokens i, one a row of `weights`."""
    weights: Float[Tensor, "queries tokens"]
    heads: Float[Tensor, "heads queries tokens"] | None
    """The rows of A of each head; None for influence."""
    grid: Grid
    layer: int
    mixer: str
    error: float = 0.0
    """Relative standard error of the weights; 0 where they are exact."""

    def row(self, token: int) -> Float[Tensor, " tokens"]:
        return self.weights[self._index(token)]

    def head_row(self, head: int, token: int) -> Float[Tensor, " tokens"]:
        if self.heads is None:
            raise RegardError(f"{self.mixer}: influence is of a mixer as a whole; it cannot be shown head by head")
        return self.heads[head, self._index(token)]

    def _index(self, token: int) -> int:
        if token not in self.tokens:
            raise RegardError(f"{token_name(self.grid, token)} is not one of the tokens that were asked for")
        return self.tokens.index(token)


def mixing(
    model: ViT,
    image: Float[Tensor, "in_chans height width"],
    *,
    layer: int = -1,
    tokens: Sequence[int] | None = None,
    kind: Kind | None = None,
) -> Mixing:
    """What the mixer of block `layer` does with a preprocessed image, for some query tokens or for all.

    Unless `kind` says which, it is the mixing matrix where the mixer has one, else the influence: exact for small
    inputs, an estimate with its error for large ones.
    Raises RegardError for a layer or token that is not there, or `matrix` of a mixer that has none.
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
        raise RegardError(f"{mixer.name}: has no mixing matrix; its influence can be shown")
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
