"""A decoder-only Transformer, which predicts the next token (Radford et al. 2018; Liu et al. 2018)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from regard.layers import Activation, NormPlace, PositionKind, Tap, TokenEmbedding, record
from regard.models.bounds import Count, Depth, Rate, Ratio, Width
from regard.models.encoder_decoder import TransformerEncoder
from regard.models.transformer import check_mask


class LanguageState(NamedTuple):
    """The state of each layer after the tokens so far, and their number."""

    layers: tuple[Any, ...]
    num_tokens: int


@dataclass(frozen=True)
class LanguageModelConfig:
    """All that a LanguageModel is built from."""

    vocab_size: Count
    context: Count = 512
    """Tokens of the longest sequence."""
    embed_dim: Width = 512
    num_heads: Width = 8
    depth: Depth = 6
    mlp_ratio: Ratio = 4.0
    dropout: Rate = 0.1
    norm: NormPlace = "pre"
    activation: Activation = "gelu"
    positions: PositionKind = "learned"
    mixer: str | tuple[str, ...] = "attention"
    """A name of MIXERS, or one a layer: any mixer that can be causal."""
    mixer_options: Mapping[str, Any] = field(default_factory=dict)
    """As ViT's."""


class LanguageModel(nn.Module):
    """Causal layers over embedded tokens; logits through the embedding's own matrix.

    RegardError for a mixer that cannot be causal.
    """

    def __init__(self, config: LanguageModelConfig) -> None:
        super().__init__()
        self.config = config
        self.context = config.context
        self.embed = TokenEmbedding(
            config.vocab_size,
            config.embed_dim,
            positions=config.positions,
            max_tokens=config.context,
            dropout=config.dropout,
        )
        self.decoder = TransformerEncoder(
            config.embed_dim,
            config.num_heads,
            config.depth,
            mlp_ratio=config.mlp_ratio,
            norm=config.norm,
            activation=config.activation,
            dropout=config.dropout,
            mixer=config.mixer,
            mixer_options=config.mixer_options,
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

    def intermediate_names(self) -> list[str]:
        """The names that `intermediates` knows, in the order of computation."""
        return [*self._taps(), "logits"]

    def intermediates(
        self,
        tokens: Int[Tensor, "batch tokens"],
        *,
        mask: Bool[Tensor, "batch tokens"] | None = None,
        names: Sequence[str] | None = None,
    ) -> dict[str, Tensor]:
        """The named intermediates of one forward pass (all of them unless `names` picks).

        RegardError for an unknown name, and as `forward`.
        """
        return record(self._taps(), ["logits"], lambda: [self(tokens, mask=mask)], names)

    def _taps(self) -> dict[str, Tap]:
        return self.decoder.taps("decoder")

    def flops(self, num_tokens: int) -> int:
        """Operations for one sequence: a multiply and an add are two; norms, softmax and biases are left out."""
        return self.decoder.flops(num_tokens) + 2 * num_tokens * self.embed.weight.numel()
