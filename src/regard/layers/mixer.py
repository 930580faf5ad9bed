"""The base of every token mixer, with its checks of inputs."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from regard.errors import RegardError
from regard.layers.grid import Grid

Tokens = Float[Tensor, "batch tokens embed_dim"]
TokenMask = Bool[Tensor, "batch tokens"]


class Mixer(nn.Module, ABC):
    """Maps tokens to tokens: the only place in a model where tokens see each other.

    `grid` says how the tokens lie on the image; `mask` is True where a token is real, False where it is padding;
    `positions` are added to queries and keys, not to values. A mixer raises RegardError for an input that it does not
    support, and names itself and the input. What a token of padding holds, NaN even, does not matter to the others.

    `name` is its key in MIXERS.
    If the output is y_i = out(Σ_j A_ij(x) value(x)_j), the mixer also has `mixing_matrix`, `value` and `out`.
    `rows` gives some rows of that matrix; of a mixer without one those of its influence, where a formula gives them.
    """

    name: ClassVar[str]

    @abstractmethod
    def forward(
        self, x: Tokens, *, grid: Grid | None = None, mask: TokenMask | None = None, positions: Tokens | None = None
    ) -> Tokens: ...

    @abstractmethod
    def flops(self, grid: Grid) -> int:
        """Operations for one image: a multiply-add counts as two; softmax, norms and biases are not counted."""

    def step(
        self, x: Float[Tensor, "batch new embed_dim"], state: Any = None
    ) -> tuple[Float[Tensor, "batch new embed_dim"], Any]:
        """The causal output for new tokens, given the `state` of the tokens before them; and the new state."""
        raise RegardError(f"{self.name}: cannot be causal, so it cannot go step by step")

    def rows(
        self,
        x: Tokens,
        queries: Int64[Tensor, " queries"],
        *,
        grid: Grid | None = None,
        mask: TokenMask | None = None,
        positions: Tokens | None = None,
        heads: Int64[Tensor, " some"] | None = None,
        chunk: int | None = None,
    ) -> Float[Tensor, "batch heads queries tokens"]:
        """What each query takes from every token, and nothing of tokens × tokens: row i of A, or ‖∂y_i/∂x_j‖.

        heads: some of them; a mixer whose rows are an influence has one. chunk: keys that are computed at a time.
        """
        raise RegardError(f"{self.name}: has no formula for its rows; `regard.explain.influence` measures them")

    def require_grid(self, x: Tensor, grid: Grid | None) -> Grid:
        if grid is None:
            raise RegardError(f"{self.name}: needs a grid, to know how the tokens lie on the image")
        self.check_grid(x, grid)
        return grid

    def check_grid(self, x: Tensor, grid: Grid | None) -> None:
        if grid is not None and grid.num_tokens != x.shape[1]:
            raise RegardError(f"{self.name}: got {x.shape[1]} tokens, but the grid has {grid.num_tokens}: {grid}")

    def require_no(self, *, mask: Tensor | None = None, positions: Tensor | None = None) -> None:
        """Raises RegardError for an input that is given and that this mixer does not support."""
        for value, what in ((mask, "a mask"), (positions, "positions")):
            if value is not None:
                raise RegardError(f"{self.name}: does not support {what}")

    @staticmethod
    def harmless(x: Tensor, mask: Tensor | None) -> Tensor:
        """x with zeros for NaN and infinity in padding: even masked they would spoil the gradients of the weights."""
        if mask is None or torch.compiler.is_compiling():
            return x
        return x.where(mask[..., None], x.nan_to_num(0.0, 0.0, 0.0))

    def require_causal(self, causal: bool) -> None:
        if not causal:
            raise RegardError(f"{self.name}: only a causal mixer can go step by step; build it with causal=True")
