"""The base of the mixers with the projections of attention."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from regard.errors import RegardError
from regard.layers.grid import Grid
from regard.layers.mixer import Mixer, TokenMask, Tokens


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

    def project(
        self, part: Literal["q", "k"], x: Tensor, positions: Tensor | None = None
    ) -> Float[Tensor, "batch heads tokens head_dim"]:
        """q or k alone, of some tokens and their positions."""
        placed = x if positions is None else x + positions
        if not self.fused_qkv:
            return self._split(getattr(self, part)(placed))
        number, bias = "qk".index(part), self.qkv.bias
        own = None if bias is None else bias.chunk(3)[number]
        return self._split(nn.functional.linear(placed, self.qkv.weight.chunk(3)[number], own))

    def _reader(
        self, part: Literal["q", "k"], x: Tensor, positions: Tensor | None, heads: Tensor | None
    ) -> Callable[[Any], Float[Tensor, "batch heads some head_dim"]]:
        """Gives q or k of some tokens, named by a slice or by their numbers, in some heads."""

        def read(some: Any) -> Tensor:
            found = self.project(part, x[:, some], None if positions is None else positions[:, some])
            return found if heads is None else found[:, heads]

        return read

    def value(self, x: Tokens) -> Float[Tensor, "batch heads tokens head_dim"]:
        return self.heads(x)[2]

    def out(self, mixed: Float[Tensor, "batch heads tokens head_dim"]) -> Tokens:
        return self.proj(mixed.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)

    def projection_flops(self, grid: Grid) -> int:
        """Four maps of embed_dim × embed_dim on each token."""
        return 2 * grid.num_tokens * 4 * (self.num_heads * self.head_dim) ** 2


def visible(queries: Tensor, num_tokens: int, mask: Tensor | None, *, causal: bool = False) -> Tensor | None:
    """Which tokens some queries may look at, as it broadcasts to (batch, heads, queries, tokens); None for all."""
    allowed = None if mask is None else mask[:, None, None, :]
    if not causal:
        return allowed
    past = torch.arange(num_tokens, device=queries.device) <= queries[:, None]
    return past[None, None] if allowed is None else past & allowed
