"""Tokens by number, by name, and by place in the image; and which tokens represent an image."""

import torch.nn.functional as F
from jaxtyping import UInt8
from torch import Tensor

from regard.errors import RegardError
from regard.layers import Grid


def token_at(grid: Grid, row: int, col: int) -> int:
    """The number of patch (row, col)'s token. RegardError if the grid has no such patch."""
    if not (0 <= row < grid.height and 0 <= col < grid.width):
        raise RegardError(f"patch ({row}, {col}) is not there: the grid is {grid.height} × {grid.width}")
    return grid.prefix + row * grid.width + col


def token_name(grid: Grid, token: int) -> str:
    """A token's name: "class token", "register 1", or "patch (2, 3)" (row, column). RegardError for another number."""
    if not 0 <= token < grid.num_tokens:
        raise RegardError(f"token {token} is not there: the grid has tokens 0 to {grid.num_tokens - 1}")
    if token >= grid.prefix:
        row, col = divmod(token - grid.prefix, grid.width)
        return f"patch ({row}, {col})"
    return "class token" if token == 0 else f"register {token}"


def prefix_name(grid: Grid) -> str:
    """What stands before the patches: "the class token", "the class token and 4 registers"."""
    registers = grid.prefix - 1
    if registers < 1:
        return "the class token"
    return f"the class token and {registers} register{'s' if registers > 1 else ''}"


def parse_token(text: str, grid: Grid) -> int:
    """The number of the token that "ROW,COLUMN" or "class" names. RegardError if the grid has no such token."""
    if text == "class":
        if grid.prefix:
            return 0
        raise RegardError("the model has no class token; name a patch as ROW,COLUMN")
    row, comma, column = (part.strip() for part in text.partition(","))
    if not comma or not row.isdigit() or not column.isdigit():
        raise RegardError(f"token {text!r}: expected ROW,COLUMN of a patch, as in 2,3, or class")
    return token_at(grid, int(row), int(column))


def representative_tokens(image: UInt8[Tensor, "channels height width"], grid: Grid) -> list[int]:
    """Tokens that a picture shows unless others are chosen, each once.

    They are the class token if there is one, the patch that differs most from the image's mean colour, the patch in
    the centre, and the one in the upper left corner.
    """
    pixels = image.float()
    difference = (pixels - pixels.mean((1, 2), keepdim=True)).square().sum(0, keepdim=True)
    salient = int(F.adaptive_avg_pool2d(difference, (grid.height, grid.width)).argmax())
    centre = token_at(grid, grid.height // 2, grid.width // 2)
    return list(dict.fromkeys([*range(min(grid.prefix, 1)), grid.prefix + salient, centre, grid.prefix]))
