"""A decoder-only Transformer, which predicts the next token (Radford et al. 2018; Liu et al. 2018)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

from annotated_types import Interval
from jaxtyping import Bool, Float, Int
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from regard.layers import Activation, NormPlace, PositionKind, TokenEmbedding
from regard.models.encoder_decoder import TransformerEncoder
from regard.models.transformer import check_mask


class LanguageState(NamedTuple):
    """What each layer keeps of the tokens so far, and how many they are."""

    layers: tuple[Any, ...]
    num_tokens: int


@dataclass(frozen=True)
class LanguageModelConfig:
    """The arguments of `LanguageModel`, which has their defaults."""

    vocab_size: PositiveInt
    context: PositiveInt
    embed_dim: PositiveInt
    num_heads: PositiveInt
    depth: PositiveInt
    mlp_ratio: PositiveFloat
    dropout: Annotated[float, Interval(ge=0, lt=1)]
    norm: NormPlace
    activation: Activation
    positions: PositionKind
    mixer: str | tuple[str, ...]
    mixer_options: Mapping[str, Any]


class LanguageModel(nn.Module):
    """Causal layers over embedded tokens; logits through the embedding's own matrix.

    `context` is the longest sequence. `mixer` is any that can be causal (attention, performer); RegardError for others.
    """

    def __init__(
        self,
        vocab_size: int,
        *,
        context: int = 512,
        embed_dim: int = 512,
        num_heads: int = 8,
        depth: int = 6,
        mlp_ratio: float = 4.0,
        dropout: float = 0.1,
        norm: NormPlace = "pre",
        activation: Activation = "gelu",
        positions: PositionKind = "learned",
        mixer: str | Sequence[str] = "attention",
        mixer_options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.context = context
        self.embed = TokenEmbedding(vocab_size, embed_dim, positions=positions, max_tokens=context, dropout=dropout)
        self.decoder = TransformerEncoder(
            embed_dim,
            num_heads,
            depth,
            mlp_ratio=mlp_ratio,
            norm=norm,
            activation=activation,
            dropout=dropout,
            mixer=mixer,
            mixer_options=mixer_options,
            causal=True,
        )

    def forward(
        self, tokens: Int[Tensor, "batch tokens"], *, mask: Bool[Tensor, "batch tokens"] | None = None
    ) -> Float[Tensor, "batch tokens vocab_size"]:
        """Logits of the token after each token. Padding at the end needs no mask: nothing looks ahead.

        RegardError for no token, one outside the vocabulary, and more tokens than the context.
        """
        check_mask(tokens, mask, "tokens")
        return self.embed.logits(self.decoder(self.embed(tokens), mask=mask))

    def step(
        self, tokens: Int[Tensor, "batch new"], state: LanguageState | None = None
    ) -> tuple[Float[Tensor, "batch vocab_size"], LanguageState]:
        """Logits of the token after the last of `tokens`, given all before; O(N) for one new token among N."""
        layers, start = (None, 0) if state is None else state
        x, layers = self.decoder.step(self.embed(tokens, start=start), layers)
        return self.embed.logits(x[:, -1]), LanguageState(layers, start + tokens.shape[1])

    def flops(self, num_tokens: int) -> int:
        """Operations for one sequence: a multiply and an add are two; norms, softmax and biases are left out."""
        return self.decoder.flops(num_tokens) + 2 * num_tokens * self.embed.weight.numel()
