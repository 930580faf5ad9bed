"""The paper that pictures are drawn on: colours, sizes, panels below a title and captions, and a colour scale."""

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:  # importing it takes a second, which only those who draw should wait for
    import matplotlib.axes
    import matplotlib.figure
    import matplotlib.image

# Of lines and letters, wherever a figure is drawn: the report puts the page's colour in its place.
INK = "#1b1d22"
HEAT = "magma"
OUTLINE = "#19c3e6"

# Inches.
PANEL = 1.15
MARGIN = 0.12
GAP = 0.2
LINE = 0.155
# How many letters fit into an inch: of the captions, and of the title, which is larger and bold.
LETTERS, TITLE_LETTERS = 15, 11


def sheet(
    panel: tuple[float, float],
    rows: int,
    columns: int,
    title: str,
    captions: Sequence[str],
    *,
    below: float,
    between: float,
    left: float = 0.0,
) -> "tuple[matplotlib.figure.Figure, list[list[matplotlib.axes.Axes]]]":
    """A figure of rows × columns of panels (width, height), below the title and the captions.

    In inches, `below` is the room beneath each panel, `between` that between two rows, `left` that before the first
    panel of a row.
    """
    from matplotlib.figure import Figure

    panel_width, panel_height = panel
    width = max(2 * MARGIN + left + columns * panel_width + (columns - 1) * GAP, 3.4)
    inside = width - 2 * MARGIN
    lines = [(text, True) for text in textwrap.wrap(title, int(TITLE_LETTERS * inside))]
    lines += [(text, False) for caption in captions for text in textwrap.wrap(caption, int(LETTERS * inside))]
    top = MARGIN + len(lines) * 1.15 * LINE + 2.6 * LINE
    height = top + rows * (panel_height + below) + (rows - 1) * between + MARGIN

    figure = Figure(figsize=(width, height))
    for number, (text, is_title) in enumerate(lines):
        y = 1 - (MARGIN + number * 1.15 * LINE) / height
        size, weight = (9, "bold") if is_title else (8, "normal")
        figure.text(MARGIN / width, y, text, fontsize=size, weight=weight, color=INK, va="top", parse_math=False)
    panels = []
    for row in range(rows):
        bottom = height - top - row * (panel_height + below + between) - panel_height
        lefts = [MARGIN + left + column * (panel_width + GAP) for column in range(columns)]
        boxes = [(left / width, bottom / height, panel_width / width, panel_height / height) for left in lefts]
        panels.append([figure.add_axes(box) for box in boxes])
    return figure, panels


def imshow(
    panel: "matplotlib.axes.Axes",
    pixels: Tensor,
    extent: tuple[int, int, int, int],
    *,
    interpolation: str = "none",
) -> "matplotlib.image.AxesImage":
    """Draws pixels over `extent` (left, right, bottom, top, in cells of a grid) of a panel without ticks or frame."""
    panel.set(xticks=[], yticks=[])
    panel.spines[:].set_visible(False)
    return panel.imshow(pixels.detach().cpu().numpy(), extent=extent, aspect="auto", interpolation=interpolation)


def frame(panel: "matplotlib.axes.Axes", left: int, top: int, width: int, height: int) -> None:
    """A frame that is seen on light and on dark."""
    from matplotlib.patches import Rectangle

    for color, line in (("black", 2.4), (OUTLINE, 1.4)):
        panel.add_patch(
            Rectangle((left, top), width, height, fill=False, edgecolor=color, linewidth=line, clip_on=False)
        )


def draw_scale(panel: "matplotlib.axes.Axes", lowest: str, highest: str, *, colours: str = HEAT) -> None:
    """Beneath a panel a strip of the colours, between the two numbers that they stand for."""
    inch = panel.figure.dpi / panel.bbox.height
    strip = panel.inset_axes((0.2, -(0.75 * LINE + 0.03) * inch, 0.3, 0.06 * inch))
    strip.imshow([[step / 32 for step in range(33)]], cmap=colours, aspect="auto", interpolation="none")
    strip.set_axis_off()
    strip.set_label("scale")
    write_below(panel, 0.15, 1, lowest, "right")
    write_below(panel, 0.55, 1, highest, "left")


def write_below(panel: "matplotlib.axes.Axes", x: float, line: int, text: str, align: str) -> None:
    inch = panel.figure.dpi / panel.bbox.height
    y = -(line - 0.25) * LINE * inch
    panel.text(x, y, text, transform=panel.transAxes, fontsize=7.5, color=INK, ha=align, va="center")


def as_share(value: float) -> str:
    """A share as a percentage, with a digit behind the point where it is small."""
    return "0" if value == 0 else f"{100 * value:.{0 if value >= 0.0995 else 1}f}%"
