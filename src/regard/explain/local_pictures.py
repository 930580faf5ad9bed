"""Pictures of local attention: what pixels take from their windows, and what the embeddings of offsets say."""

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from regard.draw.sheet import (
    HEAT,
    INK,
    LINE,
    PANEL,
    as_share,
    draw_scale,
    frame,
    imshow,
    sheet,
    write_below,
)
from regard.errors import RegardError
from regard.explain.local_layers import LocalLayer, Window, offsets, positional_logits, window_at
from regard.explain.pictures import representative_tokens

if TYPE_CHECKING:  # importing it takes a second, which only those who draw should wait for
    import matplotlib.axes
    import matplotlib.figure

WINDOWS = (
    "local attention: the weights of one pixel (framed; its row and column beneath) over its window, mean over heads; "
    "beside them the window's part of the image. Hatched: not looked at, as what lies beyond the border."
)
EMBEDDINGS = (
    "relative embeddings: q·r · scale, what they add to the logits at each offset from the query (in the middle; down "
    "and right are positive), as the mean over all queries of the image, less the mean over offsets, which changes "
    "nothing among them. Right: cosine similarity of the embeddings of two row offsets, and of two column offsets."
)

SIGNED = "RdBu_r"
BEYOND = "#e9e9ec"
HATCH = "#b4b4bb"
# Heat maps in a line; a deeper model's go on in the next.
MOST_LAYERS = 8
# Inches: a panel of offsets, and the room for their numbers before the first.
SMALL_PANEL = 0.85
LEFT = 0.2


def windows_figure(
    image: UInt8[Tensor, "channels height width"],
    layers: Sequence[LocalLayer],
    *,
    queries: Sequence[tuple[int, int]] | None = None,
    title: str = "",
) -> "matplotlib.figure.Figure":
    """For each query pixel: its window on the image, what lies in it, and the weights over it in each layer.

    A line holds layers whose windows cover the same part of the image; where the grid or the window changes, another
    begins. `image` is the picture as the model sees it, before normalisation. `queries` are (row, column) on the grid
    of the first layer; in a layer with another grid it is the pixel around the same point of the image. Unless given,
    they are those of `representative_tokens`. Each heat map has a scale of its own, from zero to the number beneath it.
    RegardError for no layer, or a pixel that is not there.
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
    figure, panels = sheet((PANEL, PANEL), len(lines), columns, title, [WINDOWS], below=below, between=between)
    for row, (query, line) in zip(panels, lines, strict=True):
        found = [window_at(layer, *query) for layer in line]
        _draw_image(row[0], image, line[0], found[0], query)
        _draw_part(row[1], image, line[0], found[0], query)
        for panel, layer, window in zip(row[2:], line, found, strict=False):
            _draw_weights(panel, layer, window, query)
        for panel in row[2 + len(line) :]:
            panel.remove()
    return figure


def embeddings_figure(layers: Sequence[LocalLayer], *, title: str = "") -> "matplotlib.figure.Figure":
    """A line a layer: for each head what the embeddings add to the logits by offset, and how alike offsets are.

    The first is `positional_logits` less its mean over offsets, in one scale for the heads of a layer, white at zero.
    The second are the cosine similarities between the rows of `rel_rows`, and between those of `rel_cols`.
    RegardError for no layer.
    """
    if not layers:
        raise RegardError("a picture of relative embeddings shows at least one layer, got none")
    columns = 2 + max(len(layer.q) for layer in layers)
    size = (SMALL_PANEL, SMALL_PANEL)
    figure, panels = sheet(
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
    """The pixel of another layer's grid around the middle of this layer's pixel."""
    (row, col), old, new = pixel, layer.grid, other.grid
    if old == new:
        return pixel
    return (2 * row + 1) * new.height // (2 * old.height), (2 * col + 1) * new.width // (2 * old.width)


def _lines(layers: Sequence[LocalLayer]) -> list[list[LocalLayer]]:
    """Layers that follow each other and whose windows cover the same part of the image, so many as fit in a line."""
    lines = []
    for _, group in groupby(layers, key=lambda layer: (layer.grid, layer.window, layer.dilation, layer.border)):
        alike = list(group)
        lines += [alike[first : first + MOST_LAYERS] for first in range(0, len(alike), MOST_LAYERS)]
    return lines


def _draw_image(
    panel: "matplotlib.axes.Axes", image: Tensor, layer: LocalLayer, window: Window, query: tuple[int, int]
) -> None:
    grid = layer.grid
    _imshow_image(panel, image, layer)
    _fit(panel, image.shape[1], image.shape[2])
    left, right, bottom, top = _extent(window)
    left, right, bottom, top = max(left, 0), min(right, grid.width), min(bottom, grid.height), max(top, 0)
    frame(panel, left, top, right - left, bottom - top)
    frame(panel, query[1], query[0], 1, 1)
    write_below(panel, 0.5, 1, f"{query} of {grid.height} × {grid.width}", "center")
    panel.set_label(f"image, {layer.name}, pixel {query}")


def _draw_part(
    panel: "matplotlib.axes.Axes", image: Tensor, layer: LocalLayer, window: Window, query: tuple[int, int]
) -> None:
    """What of the image lies in the window."""
    left, right, bottom, top = _extent(window)
    _imshow_image(panel, image, layer)
    panel.set(xlim=(left, right), ylim=(bottom, top))
    _fit(panel, bottom - top, right - left)
    _hatch(panel, _extent(window))
    frame(panel, query[1], query[0], 1, 1)
    apart = f", {layer.dilation} apart" if layer.dilation > 1 else ""
    write_below(panel, 0.5, 1, f"window {layer.window[0]} × {layer.window[1]}{apart}", "center")
    panel.set_label(f"window, {layer.name}, pixel {query}")


def _draw_weights(panel: "matplotlib.axes.Axes", layer: LocalLayer, window: Window, query: tuple[int, int]) -> None:
    left, right, bottom, top = extent = _extent(window)
    weights = window.weights.mean(0)
    # Pixels of a dilated window lie apart: what is between them stays empty.
    spread = torch.full((bottom - top, right - left), torch.nan)
    spread[:: layer.dilation, :: layer.dilation] = weights.masked_fill(~window.there, torch.nan)
    highest = weights.max().item()
    imshow(panel, spread, extent).set(cmap=HEAT, clim=(0, highest or 1))
    _fit(panel, bottom - top, right - left)
    _hatch(panel, extent)
    frame(panel, query[1], query[0], 1, 1)
    draw_scale(panel, "0", as_share(highest))
    if layer.prefix_k is not None:
        whose = "class token" if window.prefix.shape[1] == 1 else "class token, registers"
        write_below(panel, 0.0, 2, f"{whose}: {as_share(window.prefix.mean(0).sum().item())}", "left")
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
    imshow(panel, values, (0, cols, rows, 0)).set(cmap=SIGNED, clim=(-(highest or 1), highest or 1))
    _fit(panel, rows, cols)


def _name_offsets(panel: "matplotlib.axes.Axes", numbers: list[int]) -> None:
    """The first, the middle and the last offset, beside their rows."""
    told = sorted({0, len(numbers) // 2, len(numbers) - 1})
    panel.set_yticks([place + 0.5 for place in told], [_signed(numbers[place]) for place in told])
    panel.tick_params(length=0, pad=2, labelsize=6, labelcolor=INK)


def _signed(number: int | float) -> str:
    """Two figures, and a minus as wide as a digit."""
    return f"{number:.2g}".replace("-", "−")


def _imshow_image(panel: "matplotlib.axes.Axes", image: Tensor, layer: LocalLayer) -> None:
    # Small images are shown pixel by pixel; to shrink a large one that way would break its lines.
    how = "none" if max(image.shape[1:]) < 64 else "auto"
    extent = (0, layer.grid.width, layer.grid.height, 0)
    imshow(panel, image.permute(1, 2, 0).expand(-1, -1, 3), extent, interpolation=how)


def _extent(window: Window) -> tuple[int, int, int, int]:
    """left, right, bottom, top, in pixels of the grid; a window at the border reaches beyond it."""
    top, bottom = int(window.rows[0]), int(window.rows[-1])
    left, right = int(window.cols[0]), int(window.cols[-1])
    return left, right + 1, bottom + 1, top


def _hatch(panel: "matplotlib.axes.Axes", extent: tuple[int, int, int, int]) -> None:
    """Behind what is drawn, so that it shows where nothing is."""
    from matplotlib.patches import Rectangle

    left, right, bottom, top = extent
    panel.add_patch(
        Rectangle(
            (left, top), right - left, bottom - top, facecolor=BEYOND, edgecolor=HATCH, hatch="////", lw=0, zorder=-1
        )
    )


def _fit(panel: "matplotlib.axes.Axes", height: int, width: int) -> None:
    """Takes from the panel, which is a square, what a picture of this shape does not fill."""
    box = panel.get_position()
    longer = max(height, width)
    panel.set_position((box.x0, box.y0, box.width * width / longer, box.height * height / longer))
