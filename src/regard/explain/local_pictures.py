"""Pictures of local attention: what pixels take from their windows, and what relative embeddings add to the logits."""

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from regard.draw.colours import INK, SIGNED
from regard.draw.heat_maps import Extent, draw_heat_map, draw_image, draw_scale, draw_signed_map, percent
from regard.draw.panels import LINE, PANEL, draw_frame, fit, panels_figure, write_below
from regard.errors import RegardError
from regard.explain.local_layers import LocalLayer, Window, offsets, positional_logits, window_at
from regard.explain.tokens import representative_tokens

if TYPE_CHECKING:
    import matplotlib.axes

    from regard.draw.figure import Figure

WINDOWS = (
    "local attention: the weights of one pixel (framed; its row and column beneath) over its window, mean over heads; "
    "beside them the window's part of the image. Hatched: not looked at, as what lies beyond the border."
)
EMBEDDINGS = (
    "relative embeddings: q·r · scale, what they add to the logits at each offset from the query (in the middle; down "
    "and right are positive), as the mean over all queries of the image, less the mean over offsets, which changes "
    "nothing among them. Right: cosine similarity of the embeddings of two row offsets, and of two column offsets."
)

BEYOND = "#e9e9ec"
HATCH = "#b4b4bb"
# At most so many heat maps in a row; a deeper model's continue in the next row.
MOST_LAYERS = 8
# Inches: a panel of offsets, and the room for the numbers of the offsets left of the first panel.
SMALL_PANEL = 0.85
LEFT = 0.2


def windows_figure(
    image: UInt8[Tensor, "channels height width"],
    layers: Sequence[LocalLayer],
    *,
    queries: Sequence[tuple[int, int]] | None = None,
    title: str = "",
) -> "Figure":
    """For each query pixel: its window on the image, the image within the window, and each layer's weights over it.

    A row holds layers whose windows cover the same part of the image; when the grid or the window changes, a new row
    begins. `image` is the picture as the model sees it, before normalisation. `queries` are (row, column) on the grid
    of the first layer; on another grid, the pixel at the same point of the image is taken. Unless given, they are the
    `representative_tokens`. Each heat map has its own scale, from zero to the number beneath it.
    RegardError for no layer, and for a pixel that does not exist.
    """
    if not layers:
        raise RegardError("a picture of windows shows at least one layer, got none")
    grid = layers[0].grid
    chosen = [divmod(token, grid.width) for token in representative_tokens(image, grid)] if queries is None else queries
    lines = [(_on(query, layers[0], line[0]), line) for query in chosen for line in _lines(layers)]
    columns = 2 + max(len(line) for _, line in lines)
    prefix = any(layer.prefix_k is not None for layer in layers)
    below = (3 if prefix else 2) * LINE
    between = (0.8 + max(len(_title(layer).splitlines()) for layer in layers)) * LINE
    figure, panels = panels_figure((PANEL, PANEL), len(lines), columns, title, [WINDOWS], below=below, between=between)
    for row, (query, line) in zip(panels, lines, strict=True):
        found = [window_at(layer, *query) for layer in line]
        _draw_image(row[0], image, line[0], found[0], query)
        _draw_part(row[1], image, line[0], found[0], query)
        for panel, layer, window in zip(row[2:], line, found, strict=False):
            _draw_weights(panel, layer, window, query)
        for panel in row[2 + len(line) :]:
            panel.remove()
    return figure


def embeddings_figure(layers: Sequence[LocalLayer], *, title: str = "") -> "Figure":
    """A row for each layer: what its embeddings add to the logits at each offset in each head; how similar they are.

    The first is `positional_logits` minus its mean over offsets, white at zero, in one scale for all heads of a layer.
    The second is the cosine similarity between the rows of `rel_rows`, and between those of `rel_cols`.
    RegardError for no layer.
    """
    if not layers:
        raise RegardError("a picture of relative embeddings shows at least one layer, got none")
    columns = 2 + max(len(layer.q) for layer in layers)
    size = (SMALL_PANEL, SMALL_PANEL)
    figure, panels = panels_figure(
        size, len(layers), columns, title, [EMBEDDINGS], below=2 * LINE, between=2.8 * LINE, left=LEFT
    )
    for row, layer in zip(panels, layers, strict=True):
        heads = positional_logits(layer)
        _draw_logits(row[: len(heads)], layer, heads - heads.mean((1, 2), keepdim=True))
        down, right = offsets(layer)
        _draw_similarity(row[-2], layer, "row offsets", layer.rel_rows, down)
        _draw_similarity(row[-1], layer, "column offsets", layer.rel_cols, right)
        for panel in row[len(heads) : -2]:
            panel.remove()
    return figure


def _on(pixel: tuple[int, int], layer: LocalLayer, other: LocalLayer) -> tuple[int, int]:
    """The pixel of `other`'s grid that holds the middle of this layer's pixel."""
    (row, col), old, new = pixel, layer.grid, other.grid
    if old == new:
        return pixel
    return (2 * row + 1) * new.height // (2 * old.height), (2 * col + 1) * new.width // (2 * old.width)


def _lines(layers: Sequence[LocalLayer]) -> list[list[LocalLayer]]:
    """Groups of successive layers whose windows cover the same part of the image, as many as fit in a row."""
    lines = []
    for _, group in groupby(layers, key=lambda layer: (layer.grid, layer.window, layer.dilation, layer.border)):
        alike = list(group)
        lines += [alike[first : first + MOST_LAYERS] for first in range(0, len(alike), MOST_LAYERS)]
    return lines


def _draw_image(
    panel: "matplotlib.axes.Axes", image: Tensor, layer: LocalLayer, window: Window, query: tuple[int, int]
) -> None:
    grid = layer.grid
    draw_image(panel, image, (0, layer.grid.width, layer.grid.height, 0))
    fit(panel, image.shape[1], image.shape[2])
    left, right, bottom, top = _extent(window)
    left, right, bottom, top = max(left, 0), min(right, grid.width), min(bottom, grid.height), max(top, 0)
    draw_frame(panel, left, top, right - left, bottom - top)
    draw_frame(panel, query[1], query[0], 1, 1)
    write_below(panel, 0.5, 1, f"{query} of {grid.height} × {grid.width}", "center")
    panel.set_label(f"image, {layer.name}, pixel {query}")


def _draw_part(
    panel: "matplotlib.axes.Axes", image: Tensor, layer: LocalLayer, window: Window, query: tuple[int, int]
) -> None:
    """The part of the image within the window."""
    left, right, bottom, top = _extent(window)
    draw_image(panel, image, (0, layer.grid.width, layer.grid.height, 0))
    panel.set(xlim=(left, right), ylim=(bottom, top))
    fit(panel, bottom - top, right - left)
    _hatch(panel, _extent(window))
    draw_frame(panel, query[1], query[0], 1, 1)
    apart = f", {layer.dilation} apart" if layer.dilation > 1 else ""
    write_below(panel, 0.5, 1, f"window {layer.window[0]} × {layer.window[1]}{apart}", "center")
    panel.set_label(f"window, {layer.name}, pixel {query}")


def _draw_weights(panel: "matplotlib.axes.Axes", layer: LocalLayer, window: Window, query: tuple[int, int]) -> None:
    left, right, bottom, top = extent = _extent(window)
    weights = window.weights.mean(0)
    # The pixels of a dilated window lie apart; the space between them stays empty.
    spread = torch.full((bottom - top, right - left), torch.nan)
    spread[:: layer.dilation, :: layer.dilation] = weights.masked_fill(~window.there, torch.nan)
    highest = draw_heat_map(panel, spread, extent)
    fit(panel, bottom - top, right - left)
    _hatch(panel, extent)
    draw_frame(panel, query[1], query[0], 1, 1)
    draw_scale(panel, "0", percent(highest))
    if layer.prefix_k is not None:
        whose = "class token" if window.prefix.shape[1] == 1 else "class token, registers"
        write_below(panel, 0.0, 2, f"{whose}: {percent(window.prefix.mean(0).sum().item())}", "left")
    panel.set_title(_title(layer), fontsize=8, color=INK, pad=4)
    panel.set_label(f"{layer.name}, pixel {query}")


def _title(layer: LocalLayer) -> str:
    return layer.name.replace(": ", "\n")


def _draw_logits(
    panels: "Sequence[matplotlib.axes.Axes]",
    layer: LocalLayer,
    logits: Float[Tensor, "heads row_offsets col_offsets"],
) -> None:
    highest = logits.abs().max().item()
    for number, (panel, head) in enumerate(zip(panels, logits, strict=True)):
        _draw_signed(panel, head, highest)
        panel.set_title(f"{'' if number else layer.name}\nhead {number}", fontsize=8, color=INK, pad=4, loc="left")
        panel.set_label(f"{layer.name}, head {number}")
    _name_offsets(panels[0], offsets(layer)[0])
    draw_scale(panels[0], _signed(-highest), _signed(highest), colours=SIGNED)


def _draw_similarity(
    panel: "matplotlib.axes.Axes", layer: LocalLayer, what: str, embeddings: Tensor, numbers: list[int]
) -> None:
    alike = F.normalize(embeddings, dim=1)
    _draw_signed(panel, alike @ alike.T, 1.0)
    _name_offsets(panel, numbers)
    panel.set_title(f"cosine,\n{what}", fontsize=8, color=INK, pad=4, loc="left")
    draw_scale(panel, _signed(-1), _signed(1), colours=SIGNED)
    panel.set_label(f"{layer.name}, {what}")


def _draw_signed(panel: "matplotlib.axes.Axes", values: Tensor, highest: float) -> None:
    rows, cols = values.shape
    draw_signed_map(panel, values, (0, cols, rows, 0), highest)
    fit(panel, rows, cols)


def _name_offsets(panel: "matplotlib.axes.Axes", numbers: list[int]) -> None:
    """The first, the middle and the last offset, beside their rows."""
    named = sorted({0, len(numbers) // 2, len(numbers) - 1})
    panel.set_yticks([place + 0.5 for place in named], [_signed(numbers[place]) for place in named])
    panel.tick_params(length=0, pad=2, labelsize=6, labelcolor=INK)


def _signed(number: int | float) -> str:
    """Two significant digits, and a minus sign as wide as a digit."""
    return f"{number:.2g}".replace("-", "−")


def _extent(window: Window) -> Extent:
    """In pixels of the grid; a window at the border extends beyond the grid."""
    top, bottom = int(window.rows[0]), int(window.rows[-1])
    left, right = int(window.cols[0]), int(window.cols[-1])
    return left, right + 1, bottom + 1, top


def _hatch(panel: "matplotlib.axes.Axes", extent: Extent) -> None:
    """Hatches the panel behind the picture, so that empty places can be seen."""
    from matplotlib.patches import Rectangle

    left, right, bottom, top = extent
    panel.add_patch(
        Rectangle(
            (left, top), right - left, bottom - top, facecolor=BEYOND, edgecolor=HATCH, hatch="////", lw=0, zorder=-1
        )
    )
