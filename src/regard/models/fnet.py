"""FNet's text encoder: a Transformer encoder whose attention is a Fourier transform (Lee-Thorp et al. 2021)."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from regard.errors import RegardError
from regard.models.bounds import Count, Depth, Rate, Ratio, Width
from regard.models.encoder_decoder import TransformerEncoder

EPSILON = 1e-12
"""The epsilon of all norms, as in BERT."""


@dataclass(frozen=True)
class FNetConfig:
    """All that an FNet is built from; the defaults are the base model (appendix, table 8)."""

    vocab_size: Count = 32_000
    embed_dim: Width = 768
    depth: Depth = 12
    mlp_ratio: Ratio = 4.0
    max_tokens: Count = 512
    """Tokens of the longest text: each has a learned position."""
    num_types: Count = 4
    """Kinds of tokens, such as the first and the second of two texts; each has an embedding."""
    dropout: Rate = 0.1


class FNet(nn.Module):
    """Word, position and type embeddings, `depth` post-norm layers of Fourier mixing and an MLP, and a pooler.

    There is no mask: the transform mixes all tokens, padding too, so that texts are padded to one length as in training
    (section 3.2). `regard.weights.from_transformers_fnet` reads transformers' weights.
    """

    def __init__(self, config: FNetConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.embed_dim
        self.words = nn.Embedding(config.vocab_size, dim)
        self.positions = nn.Embedding(config.max_tokens, dim)
        self.types = nn.Embedding(config.num_types, dim)
        self.norm = nn.LayerNorm(dim, eps=EPSILON)
        self.project = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(config.dropout)
        self.encoder = TransformerEncoder(
            dim,
            num_heads=1,
            depth=config.depth,
            mlp_ratio=config.mlp_ratio,
            activation="gelu_tanh",
            dropout=config.dropout,
            mixer="fourier",
            norm_eps=EPSILON,
        )
        self.pooler = nn.Linear(dim, dim)
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
        """tanh of a linear map of the first token, for a classifier to read."""
        return self.pooler(encoded[:, 0]).tanh()

    def flops(self, num_tokens: int) -> int:
        """Operations for one text: a multiply and an add are two; norms are left out."""
        return (
            2 * num_tokens * self.project.weight.numel()
            + self.encoder.flops(num_tokens)
            + 2 * self.pooler.weight.numel()
        )
