"""A recurrent network over the tokens, as a baseline."""

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from regard.errors import RegardError
from regard.layers.grid import Grid
from regard.layers.mixer import Mixer, TokenMask, Tokens


class LSTM(Mixer):
    """A bidirectional LSTM that reads the tokens row by row, and a linear map of both directions' states.

    With a `mask`, padding must be at the end of each sequence, because a recurrence cannot skip a gap. The output at
    padding is the bias of the linear map.
    """

    name = "lstm"

    def __init__(self, embed_dim: int, *, hidden_dim: PositiveInt | None = None) -> None:
        """`hidden_dim` is the width of each direction, embed_dim / 2 unless given."""
        super().__init__()
        hidden_dim = max(1, embed_dim // 2) if hidden_dim is None else hidden_dim
        self.lstm = nn.LSTM(embed_dim, hidden_dim, batch_first=True, bidirectional=True)
        self.proj = nn.Linear(2 * hidden_dim, embed_dim)

    def forward(
        self, x: Tokens, *, grid: Grid | None = None, mask: TokenMask | None = None, positions: Tokens | None = None
    ) -> Tokens:
        self.require_no(positions=positions)
        self.check_grid(x, grid)
        # Not every processor has oneDNN's bf16 LSTM: under autocast it runs in the dtype of its weights.
        with torch.autocast("cpu", enabled=False):
            wide = x.to(self.proj.weight.dtype)
            states = self.lstm(wide)[0] if mask is None else self._packed(wide, mask)
        return self.proj(states)

    def _packed(self, x: Tensor, mask: Tensor) -> Tensor:
        lengths = mask.sum(1)
        if (mask[:, 1:] & ~mask[:, :-1]).any() or (lengths == 0).any():
            raise RegardError(f"{self.name}: `mask` must be real tokens, at least one, and then padding")
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        states, _ = nn.utils.rnn.pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=x.shape[1])
        return states

    def flops(self, grid: Grid) -> int:
        """Two directions of four gates, each a map of the input and of the state; and the linear map at the end."""
        gates = 2 * 4 * self.lstm.hidden_size * (self.lstm.input_size + self.lstm.hidden_size)
        return 2 * grid.num_tokens * (gates + self.proj.weight.numel())
