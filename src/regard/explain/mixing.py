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
from regard.explain.row_engine import EXACT_UP_TO, NUM_PROBES, rows
from regard.explain.tokens import token_name
from regard.layers import Grid
from regard.mixers import Mixer
from regard.models import ViT

Kind = Literal["matrix", "influence"]


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
    small inputs and where a formula gives it, and otherwise an estimate with its error.
    RegardError for a layer or token that does not exist, and for `matrix` if the mixer has none.
    """
    return mixings(model, image, layers=[layer], tokens=tokens, kind=kind)[0]


def mixings(
    model: ViT,
    image: Float[Tensor, "in_chans height width"],
    *,
    layers: Sequence[int],
    tokens: Sequence[int] | None = None,
    kind: Kind | None = None,
) -> list[Mixing]:
    """`mixing` for several blocks, from one forward pass. The rows of `tokens` alone are computed."""
    numbers = [_block_number(model, layer, kind) for layer in layers]
    grid = model.patch_embed.grid(image.shape[1], image.shape[2], prefix=model.grid.prefix)
    chosen = tuple(range(grid.num_tokens) if tokens is None else tokens)
    for token in chosen:
        token_name(grid, token)  # raises for one that is not there
    found: dict[int, Mixing] = {}
    own = [number for number in numbers if kind == "influence" and hasattr(model.blocks[number].mixer, "mixing_matrix")]
    if own:  # a mixer that has a matrix has an influence, too, for which there is no formula
        names = [f"blocks.{number}.mixer_input" for number in own]
        with torch.no_grad():
            inputs = model.intermediates(image.unsqueeze(0), names)
        for number, name in zip(own, names, strict=True):
            found[number] = _measured(model.blocks[number].mixer, inputs[name], grid, chosen, number)
    others = [f"blocks.{number}" for number in numbers if number not in found]
    for one in rows(model, image.unsqueeze(0), queries=list(chosen), layers=others) if others else ():
        heads = one.weights[0] if one.kind == "matrix" else None
        number = int(one.name.rpartition(".")[2])
        found[number] = Mixing(one.kind, chosen, one.mean[0], heads, grid, number, one.mixer, one.error)
    return [found[number] for number in numbers]


def _block_number(model: ViT, layer: int, kind: Kind | None) -> int:
    depth = len(model.blocks)
    if not -depth <= layer < depth:
        raise RegardError(f"layer {layer} is not there: the model has blocks 0 to {depth - 1} (-1 is the last)")
    mixer = model.blocks[layer % depth].mixer
    if not isinstance(mixer, Mixer):
        raise RegardError(f"block {layer % depth} has no token mixer but a {type(mixer).__name__}")
    if kind == "matrix" and not hasattr(mixer, "mixing_matrix"):
        raise RegardError(f"{mixer.name}: has no mixing matrix; ask for its influence")
    return layer % depth


def _measured(mixer: Mixer, x: Tensor, grid: Grid, chosen: tuple[int, ...], layer: int) -> Mixing:
    num_probes = None if x.numel() <= EXACT_UP_TO else NUM_PROBES
    weights = influence(mixer, x, grid=grid, tokens=list(chosen), num_probes=num_probes)[0]
    error = 0.0 if num_probes is None else influence_error(num_probes)
    return Mixing("influence", chosen, weights, None, grid, layer, mixer.name, error)
