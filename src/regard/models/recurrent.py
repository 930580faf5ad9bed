"""An LSTM encoder-decoder with attention: the recurrent baseline for the Transformer on sequences."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from regard.errors import RegardError
from regard.layers import TokenEmbedding
from regard.models.bounds import Count, Depth, Rate, Width
from regard.models.transformer import check_mask
from regard.ops import attention, attention_weights


class RecurrentState(NamedTuple):
    """All that decoding keeps from step to step: every tensor has the batch first."""

    memory: Float[Tensor, "batch source_tokens embed_dim"]
    memory_mask: Bool[Tensor, "batch source_tokens"] | None
    h: Float[Tensor, "batch depth embed_dim"]
    c: Float[Tensor, "batch depth embed_dim"]


@dataclass(frozen=True)
class RecurrentConfig:
    """All that a RecurrentSeq2Seq is built from."""

    src_vocab: Count
    """Tokens of the source's vocabulary."""
    tgt_vocab: Count
    """Tokens of the target's vocabulary."""
    embed_dim: Width = 512
    """Width of all states; even, since each direction of the encoder has half of it."""
    depth: Depth = 2
    """Layers of the encoder, and of the decoder."""
    dropout: Rate = 0.1


class RecurrentSeq2Seq(nn.Module):
    """A bidirectional LSTM reads the source (Bahdanau et al. 2015, 3.2); an LSTM with attention writes the target.

    The attention is Luong's global one with the "general" score (Luong et al. 2015, eq. 5 to 8, without input feeding,
    so that all tokens of a known target run at once): with the decoder's state h_t and the encoder's states s

        a_t = softmax_s(h_tᵀ W_a s),   c_t = Σ_s a_t(s) s,   h̃_t = tanh(W_c [c_t; h_t]),   logits = E h̃_t

    where E is the target's embedding. The last states of the encoder's two directions, side by side, are the decoder's
    first states. A source is padded at its end, nowhere else. RegardError for an odd `embed_dim`.
    """

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__()
        self.config = config
        dim, depth, dropout = config.embed_dim, config.depth, config.dropout
        if dim % 2:
            raise RegardError(f"model: embed_dim is halved between two directions and must be even, got {dim}")
        between = dropout if depth > 1 else 0.0  # the LSTM's own dropout lies between its layers
        self.src_embed = TokenEmbedding(config.src_vocab, dim, positions="none", dropout=dropout)
        self.tgt_embed = TokenEmbedding(config.tgt_vocab, dim, positions="none", dropout=dropout)
        self.encoder = nn.LSTM(dim, dim // 2, depth, batch_first=True, dropout=between, bidirectional=True)
        self.decoder = nn.LSTM(dim, dim, depth, batch_first=True, dropout=between)
        self.score = nn.Linear(dim, dim, bias=False)
        self.combine = nn.Linear(2 * dim, dim, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        source: Int[Tensor, "batch source_tokens"],
        target: Int[Tensor, "batch target_tokens"],
        *,
        source_mask: Bool[Tensor, "batch source_tokens"] | None = None,
    ) -> Float[Tensor, "batch target_tokens tgt_vocab"]:
        """Logits of the token after each token of the target, which begins with the one that means "begin".

        `source_mask` is True where a token is real: first those, then padding. A target that is padded at its end needs
        no mask: nothing looks ahead. RegardError for an empty source, a token outside the vocabulary, a mask with gaps.
        """
        state = self.start(source, source_mask=source_mask)
        states, _ = self._decode(target, state)
        return self._logits(states, state)

    def start(
        self,
        source: Int[Tensor, "batch source_tokens"],
        *,
        source_mask: Bool[Tensor, "batch source_tokens"] | None = None,
    ) -> RecurrentState:
        """Reads the source: the state that `step` begins with."""
        check_mask(source, source_mask, "source")
        x = self.src_embed(source, what="source")
        # Not every processor has oneDNN's bf16 LSTM: under autocast it runs in the dtype of its weights.
        with torch.autocast("cpu", enabled=False):
            if source_mask is None:
                memory, ends = self.encoder(x)
            else:
                memory, ends = self._packed(x, source_mask)
        # (2 · depth, batch, embed_dim / 2) -> (batch, depth, embed_dim): both directions of a layer, side by side.
        h, c = (end.unflatten(0, (-1, 2)).permute(2, 0, 1, 3).flatten(2) for end in ends)
        return RecurrentState(memory, source_mask, h, c)

    def step(
        self, tokens: Int[Tensor, "batch new"], state: RecurrentState
    ) -> tuple[Float[Tensor, "batch tgt_vocab"], RecurrentState]:
        """Logits of the token after the last of `tokens`, given all before; its cost grows with the source alone."""
        states, state = self._decode(tokens, state)
        return self._logits(states[:, -1:], state)[:, 0], state

    def cross_attention(
        self,
        source: Int[Tensor, "batch source_tokens"],
        target: Int[Tensor, "batch target_tokens"],
        *,
        source_mask: Bool[Tensor, "batch source_tokens"] | None = None,
    ) -> Float[Tensor, "batch layers heads target_tokens source_tokens"]:
        """The weights with which each target token attends to the source: a_t, of the only layer and head."""
        state = self.start(source, source_mask=source_mask)
        q, k, mask = self._pairs(self._decode(target, state)[0], state)
        return attention_weights(q, k, mask=mask, scale=1.0)[:, None]

    def flops(self, source_tokens: int, target_tokens: int) -> int:
        """Operations for one pair: a multiply and an add are two; the softmax, gates and biases are left out."""
        pairs = source_tokens * target_tokens
        maps = self.score.weight.numel() + self.combine.weight.numel() + self.tgt_embed.weight.numel()
        per_source = _matrices(self.encoder)
        per_target = _matrices(self.decoder) + maps
        return 2 * (source_tokens * per_source + target_tokens * per_target + 2 * pairs * self.decoder.hidden_size)

    def _packed(self, x: Tensor, mask: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        if (mask[:, 1:] & ~mask[:, :-1]).any():
            raise RegardError("source: the mask must be real tokens and then padding; it has a gap")
        packed = nn.utils.rnn.pack_padded_sequence(x, mask.sum(1).cpu(), batch_first=True, enforce_sorted=False)
        states, ends = self.encoder(packed)
        memory, _ = nn.utils.rnn.pad_packed_sequence(states, batch_first=True, total_length=x.shape[1])
        return memory, ends

    def _decode(self, tokens: Tensor, state: RecurrentState) -> tuple[Tensor, RecurrentState]:
        """The decoder's states h_t at the tokens, and the state after them."""
        if tokens.shape[0] != state.memory.shape[0]:
            rows, of_source = tokens.shape[0], state.memory.shape[0]
            raise RegardError(f"target: {rows} rows do not go with {of_source} rows of the source")
        x = self.tgt_embed(tokens, what="target")
        with torch.autocast("cpu", enabled=False):
            before = (state.h.transpose(0, 1).contiguous(), state.c.transpose(0, 1).contiguous())
            states, (h, c) = self.decoder(x, before)
        return states, state._replace(h=h.transpose(0, 1), c=c.transpose(0, 1))

    def _logits(self, states: Tensor, state: RecurrentState) -> Tensor:
        q, k, mask = self._pairs(states, state)
        context = attention(q, k, k, mask=mask, scale=1.0)[:, 0]
        attentional = torch.tanh(self.combine(torch.cat([context, states], dim=-1)))
        return self.tgt_embed.logits(self.dropout(attentional))

    def _pairs(self, states: Tensor, state: RecurrentState) -> tuple[Tensor, Tensor, Tensor | None]:
        """Queries, keys and mask of one head. W_a is applied to the queries, since a step has only one of them."""
        mask = None if state.memory_mask is None else state.memory_mask[:, None, None, :]
        q = self.score(states)
        return q[:, None], state.memory.to(q.dtype)[:, None], mask


def _matrices(lstm: nn.LSTM) -> int:
    """The weights that each token is multiplied with: those of its input and of the state before, in four gates."""
    return sum(weight.numel() for name, weight in lstm.named_parameters() if name.startswith("weight"))
