"""A picture of a decoder's cross-attention: which tokens of the source it looked at while it wrote."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from jaxtyping import Float
from torch import Tensor

from regard.draw.colours import HEAT, INK
from regard.draw.names import in_one_line
from regard.errors import RegardError

if TYPE_CHECKING:
    from regard.draw.figure import Figure

CAPTION = "cross-attention, mean over heads: what each written token took from each token of the source"

# Inches: a cell, and the room for names and numbers around a panel.
CELL = 0.19
LEFT, RIGHT, TOP, BELOW = 0.65, 0.2, 0.75, 0.5
BETWEEN = 0.62
NARROWEST = 4.8  # so that the caption fits
TITLE_LETTERS = 9  # in an inch
LONGEST_TOKEN = 12


def alignment_figure(
    source: Sequence[str],
    target: Sequence[str],
    weights: Float[Tensor, "layers heads target_tokens source_tokens"],
    *,
    title: str = "",
    caption: str = CAPTION,
) -> "Figure":
    """A heat map for each layer of the decoder: a row for each token of `target`, a column for each of `source`.

    All share one colour scale, from zero to the largest weight. RegardError if names and weights differ in number.
    """
    from regard.draw.figure import Figure

    if weights.shape[2:] != (len(target), len(source)) or not weights.numel():
        raise RegardError(
            f"alignment: weights {tuple(weights.shape)} are not (layers, heads, {len(target)}, {len(source)})"
        )
    maps = weights.float().mean(1)
    highest = maps.nan_to_num(posinf=0.0, neginf=0.0).max().item()
    layers, rows, columns = maps.shape
    panel_width, panel_height = columns * CELL, rows * CELL
    width = LEFT + max(panel_width, NARROWEST) + RIGHT
    height = TOP + layers * panel_height + (layers - 1) * BETWEEN + BELOW
    figure = Figure(figsize=(width, height))
    title = in_one_line(title, int(TITLE_LETTERS * (width - LEFT)))
    figure.text(LEFT / width, 1 - 0.25 / height, title, fontsize=11, weight="bold", color=INK, va="center")
    figure.text(LEFT / width, 0.16 / height, caption, fontsize=7.5, color=INK, va="center")
    for layer in range(layers):
        bottom = height - TOP - (layer + 1) * panel_height - layer * BETWEEN
        panel = figure.add_axes((LEFT / width, bottom / height, panel_width / width, panel_height / height))
        panel.imshow(maps[layer].numpy(), cmap=HEAT, vmin=0, vmax=highest or 1, aspect="auto")
        panel.set_xticks(range(columns), [_shown(token) for token in source], fontsize=8, color=INK)
        panel.set_yticks(range(rows), [_shown(token) for token in target], fontsize=8, color=INK)
        panel.tick_params(length=0, pad=2)
        panel.set_title(f"layer {layer}", fontsize=8, color=INK, pad=3, loc="left")
        panel.set_label(f"cross-attention of layer {layer}")
    return figure


def _shown(token: str) -> str:
    """Makes spaces visible, and cuts what is too long for its row."""
    return in_one_line(token.replace(" ", "␣").replace("\n", "⏎"), LONGEST_TOKEN)
