"""Which tokens of a ViT have positions: here each token has a row of the table; elsewhere registers often have none."""

from math import isqrt

import torch

from regard.weights.rules import State, StateChange

TABLE = "pos_embed.table"


def num_prefix(state: State, part: str = "") -> int:
    """How many class tokens and registers a state under our names has, in the part of the model whose names begin so.

    A tensor that is no (1, tokens, embed_dim) counts for none.
    """
    tokens = [state[part + name] for name in ("cls_token", "reg_token") if part + name in state]
    return sum(token.shape[1] for token in tokens if token.ndim == 3)


def with_prefix_rows(state: State, patches: int | None) -> State:
    """A table of patches alone (timm's `no_embed_class`) gets rows of zeros for the class token and the registers.

    It is one if it has a row for each of the source's `patches`; where their number is not known, if its rows form a
    square.
    """
    prefix = num_prefix(state)
    if TABLE not in state or not prefix or state[TABLE].ndim != 3:
        return state
    table = state[TABLE]
    rows = table.shape[1]
    has_prefix = rows != patches if patches in (rows, rows - prefix) else isqrt(rows) ** 2 != rows
    if has_prefix:
        return state
    return {**state, TABLE: torch.cat([table.new_zeros(1, prefix, table.shape[2]), table], dim=1)}


def without_zero_prefix_rows(state: State) -> State:
    """The other way: rows for class token and registers are removed if they are all zero."""
    prefix = num_prefix(state)
    if TABLE not in state or not prefix or state[TABLE][:, :prefix].any():
        return state
    return {**state, TABLE: state[TABLE][:, prefix:]}


def _has_registers(state: State) -> bool:
    """Whether there are registers and a table (1, rows, embed_dim) of the same width."""
    both = [state[name].shape for name in ("reg_token", TABLE) if name in state]
    return len(both) == 2 and len(both[0]) == len(both[1]) == 3 and both[0][2] == both[1][2]


def with_register_rows(state: State, patches: int | None) -> State:
    """A table of class token and patches gets rows of zeros for the registers between them."""
    if not _has_registers(state):
        return state
    table, registers = state[TABLE], state["reg_token"].shape[1]
    zeros = table.new_zeros(1, registers, table.shape[2])
    return {**state, TABLE: torch.cat([table[:, :1], zeros, table[:, 1:]], dim=1)}


def without_register_rows(state: State) -> State:
    """The other way; the values of the registers' rows are added to the registers."""
    if not _has_registers(state):
        return state
    table, tokens = state[TABLE], state["reg_token"]
    rows = table[:, 1 : 1 + tokens.shape[1]]
    return {
        **state,
        "reg_token": tokens + rows if rows.any() else tokens,
        TABLE: torch.cat([table[:, :1], table[:, 1 + tokens.shape[1] :]], dim=1),
    }


PREFIX_ROWS = StateChange(with_prefix_rows, without_zero_prefix_rows)
REGISTER_ROWS = StateChange(with_register_rows, without_register_rows)
