"""FNet's text encoder: a Transformer encoder whose attention is a Fourier transform (Lee-Thorp et al. 2021)."""

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Interval
from jaxtyping import Float, Int
from pydantic import PositiveInt
from torch import Tensor, nn

from regard.errors import RegardError
from regard.models.encoder_decoder import TransformerEncoder

EPSILON = 1e-12
"""Of all norms, as in BERT."""


@dataclass(frozen=True)
class FNetConfig:
    """The arguments of `FNet`, which has their defaults; those of the base model (appendix, table 8)."""

    vocab_size: PositiveInt = 32_000
    embed_dim: PositiveInt = 768
    depth: PositiveInt = 12
    mlp_ratio: float = 4.0
    max_tokens: PositiveInt = 512
    num_types: PositiveInt = 4
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.1


class FNet(nn.Module):
    """Word, position and type embeddings, `depth` post-norm layers of Fourier mixing and an MLP, and a pooler.

    There is no mask: the transform mixes all tokens, padding too, so that texts are padded to one length as in training
    (section 3.2). `regard.weights.from_transformers_fnet` reads transformers' weights.
    """

    def __init__(
        self,
        *,
        vocab_size: int = 32_000,
        embed_dim: int = 768,
        depth: int = 12,
        mlp_ratio: float = 4.0,
        max_tokens: int = 512,
        num_types: int = 4,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.words = nn.Embedding(vocab_size, embed_dim)
        self.positions = nn.Embedding(max_tokens, embed_dim)
        self.types = nn.Embedding(num_types, embed_dim)
        self.norm = nn.LayerNorm(embed_dim, eps=EPSILON)
        self.project = nn.Linear(embed_dim, embed_dim)
        self.dropout = nn.Dropout(dropout)
        self.encoder = TransformerEncoder(
            embed_dim,
            num_heads=1,
            depth=depth,
            mlp_ratio=mlp_ratio,
            activation="gelu_tanh",
            dropout=dropout,
            mixer="fourier",
            norm_eps=EPSILON,
        )
        self.pooler = nn.Linear(embed_dim, embed_dim)
        for embedding in (self.words, self.positions, self.types):
            nn.init.normal_(embedding.weight, std=0.02)

    def forward(
        self, tokens: Int[Tensor, "batch tokens"], types: Int[Tensor, "batch tokens"] | None = None
    ) -> Float[Tensor, "batch tokens embed_dim"]:
        """All tokens after the last layer; `types` are 0 unless given. RegardError for more tokens than positions."""
        if tokens.shape[1] > self.positions.num_embeddings:
            raise RegardError(f"FNet: {tokens.shape[1]} tokens, but positions for {self.positions.num_embeddings} only")
        place = torch.arange(tokens.shape[1], device=tokens.device)
        kind = torch.zeros_like(tokens) if types is None else types
        x = self.norm(self.words(tokens) + self.positions(place) + self.types(kind))
        return self.encoder(self.dropout(self.project(x)))

    def pool(self, encoded: Float[Tensor, "batch tokens embed_dim"]) -> Float[Tensor, "batch embed_dim"]:
        """tanh of a linear map of the first token, which a classifier reads."""
        return self.pooler(encoded[:, 0]).tanh()

    def flops(self, num_tokens: int) -> int:
        """Operations for one text: a multiply and an add are two; norms are left out."""
        return (
            2 * num_tokens * self.project.weight.numel()
            + self.encoder.flops(num_tokens)
            + 2 * self.pooler.weight.numel()
        )
