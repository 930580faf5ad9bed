"""Which of a ViT's tokens have positions: ours all have a row of the table, others' registers often do not."""

from math import isqrt

import torch

from regard.weights.rules import State

TABLE = "pos_embed.table"


def num_prefix(state: State) -> int:
    """The class token and the registers of a state under our names."""
    return sum(state[name].shape[1] for name in ("cls_token", "reg_token") if name in state)


def with_prefix_rows(state: State, patches: int | None) -> State:
    """A table for patches alone (timm's `no_embed_class`) gets rows of zeros for the prefix.

    How many patches there were is told by the model, where it has as many, or by their being a square.
    """
    prefix = num_prefix(state)
    if TABLE not in state or not prefix:
        return state
    table = state[TABLE]
    rows = table.shape[1]
    whole = rows == patches + prefix if patches in (rows, rows - prefix) and patches else isqrt(rows) ** 2 != rows
    if whole:
        return state
    return {**state, TABLE: torch.cat([table.new_zeros(1, prefix, table.shape[2]), table], dim=1)}


def without_zero_prefix_rows(state: State, patches: int | None) -> State:
    """The other way: rows of zeros for a prefix are none."""
    prefix = num_prefix(state)
    if TABLE not in state or not prefix or state[TABLE][:, :prefix].any():
        return state
    return {**state, TABLE: state[TABLE][:, prefix:]}


def with_register_rows(state: State, patches: int | None) -> State:
    """A table for class token and patches gets rows of zeros for the registers between them."""
    if TABLE not in state or "reg_token" not in state:
        return state
    table, registers = state[TABLE], state["reg_token"].shape[1]
    zeros = table.new_zeros(1, registers, table.shape[2])
    return {**state, TABLE: torch.cat([table[:, :1], zeros, table[:, 1:]], dim=1)}


def without_register_rows(state: State, patches: int | None) -> State:
    """The other way; what stands in the registers' rows is added to the registers."""
    if TABLE not in state or "reg_token" not in state:
        return state
    table, tokens = state[TABLE], state["reg_token"]
    rows = table[:, 1 : 1 + tokens.shape[1]]
    return {
        **state,
        "reg_token": tokens + rows if rows.any() else tokens,
        TABLE: torch.cat([table[:, :1], table[:, 1 + tokens.shape[1] :]], dim=1),
    }
