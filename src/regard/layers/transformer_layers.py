"""The layers of the Transformer's encoder and decoder (Vaswani et al. 2017, section 3.1)."""

from typing import Any, Literal

from jaxtyping import Bool, Float
from torch import Tensor, nn

from regard.layers.block import MLP, Activation
from regard.layers.grid import Grid
from regard.layers.mixer import Mixer
from regard.layers.multi_head_attention import KeyValueCache, MultiHeadAttention

NormPlace = Literal["post", "pre"]


class Residual(nn.Module):
    """The connection around a sub-layer f: norm(x + f(x)) (post-norm, as in the paper) or x + f(norm(x)) (pre-norm).

    Two methods, so that f is written where it is called: `x = skip.post_norm(x, f(skip.pre_norm(x)))`. The output of f
    goes through dropout (section 5.4).
    """

    def __init__(self, embed_dim: int, norm: NormPlace, dropout: float, eps: float = 1e-5) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(embed_dim, eps=eps)
        self.dropout = nn.Dropout(dropout)
        self.post = norm == "post"

    def pre_norm(self, x: Float[Tensor, "batch tokens embed_dim"]) -> Float[Tensor, "batch tokens embed_dim"]:
        """The input of f: norm(x) with pre-norm, else x."""
        return x if self.post else self.norm(x)

    def post_norm(
        self, x: Float[Tensor, "batch tokens embed_dim"], added: Float[Tensor, "batch tokens embed_dim"]
    ) -> Float[Tensor, "batch tokens embed_dim"]:
        """x + added, where `added` is the output of f; with post-norm, the norm of it."""
        x = x + self.dropout(added)
        return self.norm(x) if self.post else x


class EncoderLayer(nn.Module):
    """Tokens see each other through the mixer, then each goes through the MLP; a residual connection around both.

    With a causal mixer it is a layer of a decoder-only model.
    """

    def __init__(
        self,
        embed_dim: int,
        mixer: Mixer,
        *,
        hidden_dim: int,
        norm: NormPlace = "post",
        activation: Activation = "relu",
        dropout: float = 0.1,
        norm_eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.mixer = mixer
        self.skip1 = Residual(embed_dim, norm, dropout, norm_eps)
        self.mlp = MLP(embed_dim, hidden_dim, activation)
        self.skip2 = Residual(embed_dim, norm, dropout, norm_eps)

    def forward(
        self,
        x: Float[Tensor, "batch tokens embed_dim"],
        *,
        grid: Grid | None = None,
        mask: Bool[Tensor, "batch tokens"] | None = None,
        positions: Float[Tensor, "batch tokens embed_dim"] | None = None,
    ) -> Float[Tensor, "batch tokens embed_dim"]:
        mixed = self.mixer(self.skip1.pre_norm(x), grid=grid, mask=mask, positions=positions)
        x = self.skip1.post_norm(x, mixed)
        return self.skip2.post_norm(x, self.mlp(self.skip2.pre_norm(x)))

    def step(
        self, x: Float[Tensor, "batch new embed_dim"], state: Any = None
    ) -> tuple[Float[Tensor, "batch new embed_dim"], Any]:
        """The output for new tokens, and the causal mixer's new state; `state` is its state after the tokens before."""
        mixed, state = self.mixer.step(self.skip1.pre_norm(x), state)
        x = self.skip1.post_norm(x, mixed)
        return self.skip2.post_norm(x, self.mlp(self.skip2.pre_norm(x))), state

    def flops(self, grid: Grid) -> int:
        return self.mixer.flops(grid) + self.mlp.flops(grid)


class DecoderLayer(nn.Module):
    """Tokens see each other through the mixer, then they see the encoder's output, then each goes through the MLP.

    `positions` and `memory_positions` are added to queries and keys, never to values (as DETR does).
    """

    def __init__(
        self,
        embed_dim: int,
        mixer: Mixer,
        *,
        num_heads: int,
        hidden_dim: int,
        norm: NormPlace = "post",
        activation: Activation = "relu",
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.mixer = mixer
        self.skip1 = Residual(embed_dim, norm, dropout)
        self.cross = MultiHeadAttention(embed_dim, num_heads)
        self.skip2 = Residual(embed_dim, norm, dropout)
        self.mlp = MLP(embed_dim, hidden_dim, activation)
        self.skip3 = Residual(embed_dim, norm, dropout)

    def forward(
        self,
        x: Float[Tensor, "batch tokens embed_dim"],
        memory: Float[Tensor, "batch memory_tokens embed_dim"],
        *,
        mask: Bool[Tensor, "batch tokens"] | None = None,
        memory_mask: Bool[Tensor, "batch memory_tokens"] | None = None,
        positions: Float[Tensor, "batch tokens embed_dim"] | None = None,
        memory_positions: Float[Tensor, "batch memory_tokens embed_dim"] | None = None,
    ) -> Float[Tensor, "batch tokens embed_dim"]:
        x = self.self_attend(x, mask=mask, positions=positions)
        query, key = _with_positions(self.skip2.pre_norm(x), positions), _with_positions(memory, memory_positions)
        x = self.skip2.post_norm(x, self.cross(query, key, memory, key_mask=memory_mask))
        return self.skip3.post_norm(x, self.mlp(self.skip3.pre_norm(x)))

    def self_attend(
        self, x: Tensor, *, mask: Tensor | None = None, positions: Tensor | None = None
    ) -> Float[Tensor, "batch tokens embed_dim"]:
        """The first of the three sub-layers alone."""
        mixed = self.mixer(self.skip1.pre_norm(x), grid=None, mask=mask, positions=positions)
        return self.skip1.post_norm(x, mixed)

    def cross_attention(
        self,
        x: Float[Tensor, "batch tokens embed_dim"],
        memory: Float[Tensor, "batch memory_tokens embed_dim"],
        *,
        mask: Bool[Tensor, "batch tokens"] | None = None,
        memory_mask: Bool[Tensor, "batch memory_tokens"] | None = None,
        positions: Float[Tensor, "batch tokens embed_dim"] | None = None,
        memory_positions: Float[Tensor, "batch memory_tokens embed_dim"] | None = None,
    ) -> Float[Tensor, "batch heads tokens memory_tokens"]:
        """The weights with which each token attends to the encoder's output; the arguments are those of `forward`."""
        x = self.self_attend(x, mask=mask, positions=positions)
        query, key = _with_positions(self.skip2.pre_norm(x), positions), _with_positions(memory, memory_positions)
        return self.cross.weights(query, key, key_mask=memory_mask)

    def step(
        self,
        x: Float[Tensor, "batch new embed_dim"],
        memory: KeyValueCache,
        state: Any = None,
        *,
        memory_mask: Bool[Tensor, "batch memory_tokens"] | None = None,
    ) -> tuple[Float[Tensor, "batch new embed_dim"], Any]:
        """The output for new tokens; `memory` is `self.cross.project` of the encoder's output, `state` the mixer's."""
        mixed, state = self.mixer.step(self.skip1.pre_norm(x), state)
        x = self.skip1.post_norm(x, mixed)
        x = self.skip2.post_norm(x, self.cross.attend(self.skip2.pre_norm(x), memory, key_mask=memory_mask))
        return self.skip3.post_norm(x, self.mlp(self.skip3.pre_norm(x))), state

    def flops(self, grid: Grid, memory_tokens: int) -> int:
        cross = self.cross.flops(grid.num_tokens, memory_tokens)
        return self.mixer.flops(grid) + cross + self.mlp.flops(grid)


def _with_positions(x: Tensor, positions: Tensor | None) -> Tensor:
    return x if positions is None else x + positions
