"""Tokens of a vocabulary as vectors, with their positions."""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from regard.errors import RegardError
from regard.ops import sine_positions

PositionKind = Literal["sine", "learned", "none"]


class TokenEmbedding(nn.Module):
    """√embed_dim · E[token] + position, then dropout (Vaswani et al. 2017, sections 3.4, 3.5 and 5.4).

    Sine positions have no limit, learned ones end at `max_tokens`. `logits` uses the same matrix E as the output
    projection (section 3.4: shared weights).
    """

    def __init__(
        self,
        vocab_size: int,
        embed_dim: int,
        *,
        positions: PositionKind = "sine",
        max_tokens: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if positions == "learned" and max_tokens is None:
            raise RegardError("model: learned positions need max_tokens, the longest sequence that they reach")
        self.vocab_size = vocab_size
        self.positions = positions
        self.max_tokens = max_tokens
        self.weight = nn.Parameter(torch.empty(vocab_size, embed_dim))
        nn.init.normal_(self.weight, std=embed_dim**-0.5)  # √embed_dim times it has the variance of the sines
        if positions == "learned":
            self.position_weight = nn.Parameter(torch.empty(max_tokens or 0, embed_dim))
            nn.init.normal_(self.position_weight, std=0.02)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, tokens: Int[Tensor, "batch tokens"], *, start: int = 0, what: str = "tokens"
    ) -> Float[Tensor, "batch tokens embed_dim"]:
        """Vectors of tokens whose first stands at position `start`. `what` names the tokens in an error.

        RegardError for no token, one outside the vocabulary, and more than `max_tokens`.
        """
        check_tokens(tokens, self.vocab_size, what)
        end = start + tokens.shape[1]
        if self.max_tokens is not None and end > self.max_tokens:
            raise RegardError(f"{what}: {end} tokens are more than the model's positions reach, {self.max_tokens}")
        x = F.embedding(tokens, self.weight) * self.weight.shape[1] ** 0.5
        if self.positions == "learned":
            x = x + self.position_weight[start:end]
        elif self.positions == "sine":
            x = x + sine_positions(x.shape[1], x.shape[2], start=start).to(x)
        return self.dropout(x)

    def logits(self, x: Float[Tensor, "... embed_dim"]) -> Float[Tensor, "... vocab_size"]:
        """x Eᵀ: a logit for each token of the vocabulary."""
        return F.linear(x, self.weight)


def check_tokens(tokens: Int[Tensor, "batch tokens"], vocab_size: int, what: str) -> None:
    """RegardError where `what` has no token, or one outside the vocabulary. While compiling, values are not checked."""
    if not tokens.numel():
        raise RegardError(f"{what}: empty; there must be at least one token, got shape {tuple(tokens.shape)}")
    if torch.compiler.is_compiling() or tokens.is_meta:
        return
    lowest, highest = (int(bound) for bound in torch.aminmax(tokens))
    if lowest < 0 or highest >= vocab_size:
        unexpected = lowest if lowest < 0 else highest
        row, column = (tokens == unexpected).nonzero()[0].tolist()
        where = f"row {row}, position {column}"
        raise RegardError(f"{what}: token {unexpected} at {where} is outside the vocabulary, 0 to {vocab_size - 1}")
