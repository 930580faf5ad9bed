"""Which pixels a window holds, along one axis of a grid: the only file that knows borders and dilation."""

from typing import Any, Literal, NamedTuple, get_args

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from regard.errors import RegardError, unknown
from regard.ops.arguments import require_odd, require_whole
from regard.ops.tables import kept

Border = Literal["clip", "shift"]
BORDERS = get_args(Border)

LARGEST_TABLE = 2**16
"""Windows of modules are smaller: their embeddings have a row for each offset."""


class Neighbours(NamedTuple):
    """The neighbours of each position of an axis, in the order of their offsets."""

    pixel: Int64[Tensor, "length window"]
    """Where they are; 0 where there is none."""
    offset: Int64[Tensor, "length window"]
    """The row of the relative embeddings that belongs to each."""
    there: Bool[Tensor, "length window"]


class Blocks(NamedTuple):
    """An axis cut into blocks of queries, each with all the keys that its queries look at."""

    queries: Int64[Tensor, "blocks queries"]
    keys: Int64[Tensor, "blocks keys"]
    offset: Int64[Tensor, "blocks queries keys"]
    """The row of the relative embeddings for each pair."""
    near: Bool[Tensor, "blocks queries keys"]
    """Whether the query's window holds the key."""
    place: Int64[Tensor, " length"]
    """Where each position's query stands among those of all blocks."""


def num_offsets(window: int, border: str) -> int:
    """Rows that relative embeddings need: a moved window reaches up to window - 1 pixels to either side."""
    return window if border == "clip" else 2 * window - 1


def check_geometry(window: Any, dilation: Any, border: Any) -> None:
    """RegardError for a window that is even, and for what is no integer or no border."""
    if (
        type(window) is int
        and window > 0
        and window % 2
        and type(dilation) is int
        and dilation > 0
        and border in BORDERS
    ):
        return  # the usual case, without naming anything
    require_odd("local attention", "window", window)
    require_whole("local attention", "dilation", dilation, 1)
    if border not in BORDERS:
        raise unknown("border", border, BORDERS, where="local attention")


def check_table(op: str, window: Any) -> None:
    """RegardError for a window that a module cannot hold embeddings for."""
    if require_odd(op, "window", window) >= LARGEST_TABLE:
        raise RegardError(f"{op}: window must be below {LARGEST_TABLE:,}, got {window}")


def check_window(length: int, window: Any, dilation: Any, border: Any) -> None:
    """RegardError as in `check_geometry`, and where a window has to be moved inside an axis that is too short."""
    check_geometry(window, dilation, border)
    if border == "shift" and window > length // dilation:
        largest = length // dilation
        odd = largest - (largest + 1) % 2
        can = f"the largest possible is {odd}" if odd > 0 else "none is possible"
        raise RegardError(
            f"local attention: a window of {window} with dilation {dilation} cannot be moved inside of "
            f"{length} pixels; {can}"
        )


def cut_window(length: int, window: int, dilation: int) -> int:
    """The part of a window that reaches from one end of an axis to the other: beyond, with "clip", no pixel exists."""
    return min(window, max(1, 2 * -(-length // dilation) - 1))


def neighbours(length: int, window: int, dilation: int, border: str) -> Neighbours:
    """The window of each position: `window` positions that lie `dilation` apart, itself in the middle.

    With "clip" those beyond the border do not exist. With "shift" the window is moved until all of them exist (the rule
    of neighbourhood attention), so that every position has the same number. RegardError as in `check_window`.
    """
    check_window(length, window, dilation, border)
    return _neighbours(length, window, dilation, border)


@kept(256)
def _neighbours(length: int, window: int, dilation: int, border: str) -> Neighbours:
    position, radius = torch.arange(length, device="cpu"), window // 2
    residue, place = position % dilation, position // dilation
    count = (length - residue + dilation - 1) // dilation  # positions that lie a multiple of the dilation away
    start = place - radius
    if border == "shift":
        start = start.clamp(min=0).minimum(count - window)
    index = start[:, None] + torch.arange(window, device="cpu")
    there = (index >= 0) & (index < count[:, None])
    offset = index - place[:, None] + (radius if border == "clip" else window - 1)
    pixels = residue[:, None] + dilation * index
    return Neighbours(pixels.where(there, 0), offset.where(there, 0), there)


@kept(256)
def blocks(length: int, window: int, dilation: int, border: str, block: int) -> Blocks:
    """Queries in blocks of up to `block` positions that lie `dilation` apart, with the keys around them.

    The last block of a row may be padded with spare queries, which look at nothing and whose results are not used.
    """
    window_of = neighbours(length, window, dilation, border)
    groups = []
    for residue in range(min(dilation, length)):
        row = list(range(residue, length, dilation))
        groups += [row[first : first + block] for first in range(0, len(row), block)]
    keys = [
        sorted({int(key) for query in group for key in window_of.pixel[query][window_of.there[query]]})
        for group in groups
    ]
    num_queries, num_keys = max(map(len, groups)), max(map(len, keys))
    queries_of = torch.zeros(len(groups), num_queries, dtype=torch.int64, device="cpu")
    keys_of = torch.zeros(len(groups), num_keys, dtype=torch.int64, device="cpu")
    offset = torch.zeros(len(groups), num_queries, num_keys, dtype=torch.int64, device="cpu")
    near = torch.zeros(len(groups), num_queries, num_keys, dtype=torch.bool, device="cpu")
    place = torch.zeros(length, dtype=torch.int64, device="cpu")
    for number, (group, around) in enumerate(zip(groups, keys, strict=True)):
        column = {key: index for index, key in enumerate(around)}
        queries_of[number, : len(group)] = torch.tensor(group, device="cpu")
        keys_of[number, : len(around)] = torch.tensor(around, device="cpu")
        for row_of_block, query in enumerate(group):
            place[query] = number * num_queries + row_of_block
            for key, shift, exists in zip(*(part[query].tolist() for part in window_of), strict=True):
                if exists:
                    offset[number, row_of_block, column[key]] = shift
                    near[number, row_of_block, column[key]] = True
    return Blocks(queries_of, keys_of, offset, near, place)
