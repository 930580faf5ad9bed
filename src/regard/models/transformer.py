"""The Transformer for sequences: an encoder that reads and a decoder that writes (Vaswani et al. 2017)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

import torch
from annotated_types import Interval
from jaxtyping import Bool, Float, Int
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn

from regard.errors import RegardError
from regard.layers import Activation, KeyValueCache, NormPlace, PositionKind, TokenEmbedding
from regard.models.encoder_decoder import TransformerDecoder, TransformerEncoder

Sharing = Literal["all", "output", "none"]


class TransformerState(NamedTuple):
    """All that decoding keeps: every tensor has the batch first."""

    memory: tuple[KeyValueCache, ...]
    memory_mask: Bool[Tensor, "batch source_tokens"] | None
    layers: tuple[Any, ...] | None
    num_tokens: int


@dataclass(frozen=True)
class TransformerConfig:
    """The arguments of `Transformer`, which has their defaults."""

    src_vocab: PositiveInt
    tgt_vocab: PositiveInt
    embed_dim: PositiveInt
    num_heads: PositiveInt
    depth: PositiveInt
    decoder_depth: NonNegativeInt | None
    mlp_ratio: PositiveFloat
    dropout: Annotated[float, Interval(ge=0, lt=1)]
    norm: NormPlace
    final_norm: bool | None
    activation: Activation
    positions: PositionKind
    max_tokens: PositiveInt | None
    share: Sharing
    mixer: str | tuple[str, ...]
    decoder_mixer: str | tuple[str, ...]
    mixer_options: Mapping[str, Any]


class Transformer(nn.Module):
    """An encoder reads the source, and a causal decoder writes the target (Vaswani et al. 2017, section 3).

    `norm` is "post" as in the paper or "pre"; a norm behind each stack comes with "pre", or as `final_norm` says
    (torch.nn.Transformer has it always). `positions` are "sine" (any length), "learned" (up to `max_tokens`) or
    "none". `share` says which matrices are one (section 3.4): "output", the target's embedding and the output
    projection; "all", the source's embedding too; "none". `mixer` takes the place of self-attention in the encoder: any
    that honours masks, or any at all for batches without padding; `decoder_mixer` any that can be causal.
    `decoder_depth` is `depth` unless given. Raises RegardError for a mixer that cannot serve.
    """

    def __init__(
        self,
        src_vocab: int,
        tgt_vocab: int,
        *,
        embed_dim: int = 512,
        num_heads: int = 8,
        depth: int = 6,
        decoder_depth: int | None = None,
        mlp_ratio: float = 4.0,
        dropout: float = 0.1,
        norm: NormPlace = "post",
        final_norm: bool | None = None,
        activation: Activation = "relu",
        positions: PositionKind = "sine",
        max_tokens: int | None = None,
        share: Sharing = "output",
        mixer: str | Sequence[str] = "attention",
        decoder_mixer: str | Sequence[str] = "attention",
        mixer_options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if share == "all" and src_vocab != tgt_vocab:
            raise RegardError(f'model: share = "all" needs one vocabulary, got {src_vocab} and {tgt_vocab} tokens')

        def embedding(vocab_size: int) -> TokenEmbedding:
            return TokenEmbedding(vocab_size, embed_dim, positions=positions, max_tokens=max_tokens, dropout=dropout)

        self.src_embed = None if share == "all" else embedding(src_vocab)
        self.tgt_embed = embedding(tgt_vocab)
        self.encoder = TransformerEncoder(
            embed_dim,
            num_heads,
            depth,
            mlp_ratio=mlp_ratio,
            norm=norm,
            activation=activation,
            dropout=dropout,
            mixer=mixer,
            mixer_options=mixer_options,
            final_norm=final_norm,
        )
        self.decoder = TransformerDecoder(
            embed_dim,
            num_heads,
            depth if decoder_depth is None else decoder_depth,
            mlp_ratio=mlp_ratio,
            norm=norm,
            activation=activation,
            dropout=dropout,
            mixer=decoder_mixer,
            mixer_options=mixer_options,
            final_norm=final_norm,
        )
        self.head = nn.Linear(embed_dim, tgt_vocab, bias=False) if share == "none" else None

    def forward(
        self,
        source: Int[Tensor, "batch source_tokens"],
        target: Int[Tensor, "batch target_tokens"],
        *,
        source_mask: Bool[Tensor, "batch source_tokens"] | None = None,
        target_mask: Bool[Tensor, "batch target_tokens"] | None = None,
    ) -> Float[Tensor, "batch target_tokens tgt_vocab"]:
        """Logits of the token after each token of the target, which begins with the one that means "begin".

        Masks are True where a token is real. A target that is padded at its end needs none: nothing looks ahead.
        RegardError for an empty source, a token outside the vocabulary, and more tokens than positions reach.
        """
        memory = self.encode(source, source_mask=source_mask)
        x = self.tgt_embed(target, what="target")
        return self._logits(self.decoder(x, memory, mask=target_mask, memory_mask=source_mask))

    def encode(
        self,
        source: Int[Tensor, "batch source_tokens"],
        *,
        source_mask: Bool[Tensor, "batch source_tokens"] | None = None,
    ) -> Float[Tensor, "batch source_tokens embed_dim"]:
        """The encoder's output, which the decoder attends to."""
        check_mask(source, source_mask, "source")
        embed = self.tgt_embed if self.src_embed is None else self.src_embed
        return self.encoder(embed(source, what="source"), mask=source_mask)

    def start(
        self,
        source: Int[Tensor, "batch source_tokens"],
        *,
        source_mask: Bool[Tensor, "batch source_tokens"] | None = None,
    ) -> TransformerState:
        """Reads the source: the state that `step` begins with."""
        memory = self.decoder.project(self.encode(source, source_mask=source_mask))
        return TransformerState(memory, source_mask, None, 0)

    def step(
        self, tokens: Int[Tensor, "batch new"], state: TransformerState
    ) -> tuple[Float[Tensor, "batch tgt_vocab"], TransformerState]:
        """Logits of the token after the last of `tokens`, given all before; O(N) for one new token among N."""
        x = self.tgt_embed(tokens, start=state.num_tokens, what="target")
        x, layers = self.decoder.step(x, state.memory, state.layers, memory_mask=state.memory_mask)
        return self._logits(x[:, -1]), state._replace(layers=layers, num_tokens=state.num_tokens + tokens.shape[1])

    def cross_attention(
        self,
        source: Int[Tensor, "batch source_tokens"],
        target: Int[Tensor, "batch target_tokens"],
        *,
        source_mask: Bool[Tensor, "batch source_tokens"] | None = None,
    ) -> Float[Tensor, "batch layers heads target_tokens source_tokens"]:
        """What each token of the target takes from the source, in each layer and head of the decoder."""
        memory = self.encode(source, source_mask=source_mask)
        return self.decoder.cross_attention(self.tgt_embed(target, what="target"), memory, memory_mask=source_mask)

    def flops(self, source_tokens: int, target_tokens: int) -> int:
        """Operations for one pair: a multiply and an add are two; norms, softmax and biases are left out."""
        logits = 2 * target_tokens * self.tgt_embed.weight.numel()
        return self.encoder.flops(source_tokens) + self.decoder.flops(target_tokens, source_tokens) + logits

    def _logits(self, x: Tensor) -> Tensor:
        return self.tgt_embed.logits(x) if self.head is None else self.head(x)


def check_mask(tokens: Int[Tensor, "batch tokens"], mask: Tensor | None, what: str) -> None:
    """RegardError where a mask has another shape than its tokens, or no real token in a row."""
    if mask is None:
        return
    if mask.shape != tokens.shape or mask.dtype != torch.bool:
        raise RegardError(
            f"{what}: the mask must be bool, True where a token is real, and of shape {tuple(tokens.shape)}; "
            f"got {mask.dtype} {tuple(mask.shape)}"
        )
    if torch.compiler.is_compiling() or mask.is_meta:
        return
    empty = (~mask.any(1)).nonzero().flatten().tolist()
    if empty:
        raise RegardError(f"{what}: row {empty[0]} is empty; there must be at least one token")
