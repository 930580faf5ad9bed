"""The Transformer for sequences: an encoder that reads and a decoder that writes (Vaswani et al. 2017)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from regard.errors import RegardError
from regard.layers import Activation, KeyValueCache, NormPlace, PositionKind, Tap, TokenEmbedding, first_input, record
from regard.models.bounds import Count, Depth, DepthOrNone, Rate, Ratio, Width
from regard.models.encoder_decoder import TransformerDecoder, TransformerEncoder

Sharing = Literal["all", "output", "none"]


class TransformerState(NamedTuple):
    """All that decoding keeps from step to step: every tensor has the batch first."""

    memory: tuple[KeyValueCache, ...]
    memory_mask: Bool[Tensor, "batch source_tokens"] | None
    layers: tuple[Any, ...] | None
    num_tokens: int


@dataclass(frozen=True)
class TransformerConfig:
    """All that a Transformer is built from; the defaults are the base model but for `share` (table 3)."""

    src_vocab: Count
    """Tokens of the source's vocabulary."""
    tgt_vocab: Count
    """Tokens of the target's vocabulary."""
    embed_dim: Width = 512
    num_heads: Width = 8
    depth: Depth = 6
    """Layers of the encoder."""
    decoder_depth: DepthOrNone | None = None
    """Layers of the decoder; as many as the encoder's unless given."""
    mlp_ratio: Ratio = 4.0
    dropout: Rate = 0.1
    norm: NormPlace = "post"
    """Where each layer's norms are: "post" as in the paper, or "pre"."""
    final_norm: bool | None = None
    """Whether encoder and decoder end in a norm (torch.nn.Transformer's always do); with pre-norm, unless given."""
    activation: Activation = "relu"
    positions: PositionKind = "sine"
    """"sine" reaches any length, "learned" the first `max_tokens`; or "none"."""
    max_tokens: Count | None = None
    share: Sharing = "output"
    """Which matrices are one (section 3.4): "output", the target's embedding and the output projection; "all", the
    source's embedding too, as in the paper; or "none"."""
    mixer: str | tuple[str, ...] = "attention"
    """In the place of the encoder's self-attention, a name of MIXERS or one a layer: any mixer that supports a mask,
    or any at all for batches without padding."""
    decoder_mixer: str | tuple[str, ...] = "attention"
    """In the place of the decoder's self-attention: any mixer that can be causal."""
    mixer_options: Mapping[str, Any] = field(default_factory=dict)
    """As ViT's."""


class Transformer(nn.Module):
    """An encoder reads the source, and a causal decoder writes the target (Vaswani et al. 2017, section 3).

    RegardError for a mixer that cannot be causal where it must be, or that is built for one number of tokens.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        if config.share == "all" and config.src_vocab != config.tgt_vocab:
            sizes = f"{config.src_vocab} and {config.tgt_vocab} tokens"
            raise RegardError(f'model: share = "all" needs one vocabulary, got {sizes}')
        self.src_embed = None if config.share == "all" else _embedding(config, config.src_vocab)
        self.tgt_embed = _embedding(config, config.tgt_vocab)
        of_both: dict[str, Any] = {
            key: getattr(config, key)
            for key in ("mlp_ratio", "norm", "activation", "dropout", "mixer_options", "final_norm")
        }
        self.encoder = TransformerEncoder(
            config.embed_dim, config.num_heads, config.depth, mixer=config.mixer, **of_both
        )
        decoder_depth = config.depth if config.decoder_depth is None else config.decoder_depth
        self.decoder = TransformerDecoder(
            config.embed_dim, config.num_heads, decoder_depth, mixer=config.decoder_mixer, **of_both
        )
        self.head = nn.Linear(config.embed_dim, config.tgt_vocab, bias=False) if config.share == "none" else None

    def forward(
        self,
        source: Int[Tensor, "batch source_tokens"],
        target: Int[Tensor, "batch target_tokens"],
        *,
        source_mask: Bool[Tensor, "batch source_tokens"] | None = None,
        target_mask: Bool[Tensor, "batch target_tokens"] | None = None,
    ) -> Float[Tensor, "batch target_tokens tgt_vocab"]:
        """Logits of the token after each token of the target, whose first token is the one that means "begin".

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
        """The weights with which each target token attends to the source, in each layer and head of the decoder."""
        memory = self.encode(source, source_mask=source_mask)
        return self.decoder.cross_attention(self.tgt_embed(target, what="target"), memory, memory_mask=source_mask)

    def intermediate_names(self) -> list[str]:
        """The names that `intermediates` knows, in the order of computation."""
        return [*self._taps(), "logits"]

    def intermediates(
        self,
        source: Int[Tensor, "batch source_tokens"],
        target: Int[Tensor, "batch target_tokens"],
        *,
        source_mask: Bool[Tensor, "batch source_tokens"] | None = None,
        target_mask: Bool[Tensor, "batch target_tokens"] | None = None,
        names: Sequence[str] | None = None,
    ) -> dict[str, Tensor]:
        """The named intermediates of one forward pass (all of them unless `names` picks).

        RegardError for an unknown name, and as `forward`.
        """
        masks = {"source_mask": source_mask, "target_mask": target_mask}
        return record(self._taps(), ["logits"], lambda: [self(source, target, **masks)], names)

    def _taps(self) -> dict[str, Tap]:
        decoder_input = Tap(self.decoder, first_input)
        return {**self.encoder.taps("encoder"), "decoder.input": decoder_input, **self.decoder.taps("decoder")}

    def flops(self, source_tokens: int, target_tokens: int) -> int:
        """Operations for one pair: a multiply and an add are two; norms, softmax and biases are left out."""
        logits = 2 * target_tokens * self.tgt_embed.weight.numel()
        return self.encoder.flops(source_tokens) + self.decoder.flops(target_tokens, source_tokens) + logits

    def _logits(self, x: Tensor) -> Tensor:
        return self.tgt_embed.logits(x) if self.head is None else self.head(x)


def _embedding(config: TransformerConfig, vocab_size: int) -> TokenEmbedding:
    return TokenEmbedding(
        vocab_size,
        config.embed_dim,
        positions=config.positions,
        max_tokens=config.max_tokens,
        dropout=config.dropout,
    )


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
