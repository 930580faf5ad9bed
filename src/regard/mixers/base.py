"""The base of every token mixer, with its checks of inputs; and the base of those with the projections of attention."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from jaxtyping import Bool, Float
from torch import Tensor, nn

from regard.errors import RegardError
from regard.layers.grid import Grid

Tokens = Float[Tensor, "batch tokens embed_dim"]
TokenMask = Bool[Tensor, "batch tokens"]


class Mixer(nn.Module, ABC):
    """Maps tokens to tokens: the only place in a model where tokens see each other.

    `grid` says how the tokens lie on the image; `mask` is True where a token is real, False where it is padding;
    `positions` are added to queries and keys, not to values. A mixer raises RegardError for an input that it does not
    support, and names itself and the input.

    `name` is its key in MIXERS.
    If the output is y_i = out(Σ_j A_ij(x) value(x)_j), the mixer also has `mixing_matrix`, `value` and `out`.
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

    def require_causal(self, causal: bool) -> None:
        if not causal:
            raise RegardError(f"{self.name}: only a causal mixer can go step by step; build it with causal=True")


class HeadMixer(Mixer):
    """The projections of multi-head attention: q, k, v = W x + b, and the output's (Vaswani et al. 2017, 3.2.2).

    With `fused_qkv` one matrix holds q, k and v, as in timm; without, there are three. Mixers that share these
    projections (attention, local, performer) can take each other's place in a trained model.
    """

    def __init__(self, embed_dim: int, num_heads: int, *, qkv_bias: bool = True, fused_qkv: bool = True) -> None:
        super().__init__()
        if num_heads < 1 or embed_dim % num_heads:
            raise RegardError(f"{self.name}: embed_dim {embed_dim} does not divide into num_heads {num_heads}")
        self.num_heads = num_heads
        self.head_dim = embed_dim // num_heads
        self.fused_qkv = fused_qkv
        if fused_qkv:
            self.qkv = nn.Linear(embed_dim, 3 * embed_dim, bias=qkv_bias)
        else:
            self.q = nn.Linear(embed_dim, embed_dim, bias=qkv_bias)
            self.k = nn.Linear(embed_dim, embed_dim, bias=qkv_bias)
            self.v = nn.Linear(embed_dim, embed_dim, bias=qkv_bias)
        self.proj = nn.Linear(embed_dim, embed_dim)

    @abstractmethod
    def mixing_matrix(
        self, x: Tokens, *, grid: Grid | None = None, mask: TokenMask | None = None, positions: Tokens | None = None
    ) -> Float[Tensor, "batch heads tokens tokens"]: ...

    def heads(
        self, x: Tensor, positions: Tensor | None = None
    ) -> tuple[
        Float[Tensor, "batch heads tokens head_dim"],
        Float[Tensor, "batch heads tokens head_dim"],
        Float[Tensor, "batch heads tokens head_dim"],
    ]:
        """q, k and v of all heads."""
        if not self.fused_qkv:
            placed = x if positions is None else x + positions
            return self._split(self.q(placed)), self._split(self.k(placed)), self._split(self.v(x))
        qkv = self.qkv(x)
        if positions is not None:
            # W(x + p) + b = (W x + b) + W p: q and k take the positions, v does not.
            placed = nn.functional.linear(positions, self.qkv.weight[: -x.shape[-1]])
            qkv = qkv + nn.functional.pad(placed, (0, x.shape[-1]))
        # Split before the transpose: then the gradients of q, k and v are put together with a single copy.
        q, k, v = qkv.unflatten(-1, (3, self.num_heads, self.head_dim)).unbind(2)
        return q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)

    def value(self, x: Tokens) -> Float[Tensor, "batch heads tokens head_dim"]:
        return self.heads(x)[2]

    def out(self, mixed: Float[Tensor, "batch heads tokens head_dim"]) -> Tokens:
        return self.proj(mixed.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)

    def projection_flops(self, grid: Grid) -> int:
        """Four maps of embed_dim × embed_dim on each token."""
        return 2 * grid.num_tokens * 4 * (self.num_heads * self.head_dim) ** 2
