"""A figure of panels below a title and captions; frames in a panel, and words beneath it."""

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from regard.draw.colours import INK, OUTLINE
from regard.draw.names import in_one_line

if TYPE_CHECKING:
    import matplotlib.axes

    from regard.draw.figure import Figure

# Inches: a panel's side, the figure's margin, the gap between two panels of a row, and the height of a line of text.
PANEL = 1.15
MARGIN = 0.12
GAP = 0.2
LINE = 0.155
# Letters that fit into an inch of a caption, and of the title, which is larger and bold.
LETTERS, TITLE_LETTERS = 15, 11
LONGEST_TITLE = 200


def panels_figure(
    panel: tuple[float, float],
    rows: int,
    columns: int,
    title: str,
    captions: Sequence[str],
    *,
    below: float,
    between: float,
    left: float = 0.0,
) -> "tuple[Figure, list[list[matplotlib.axes.Axes]]]":
    """A figure of rows × columns of panels, below the title and the captions; and its panels, row by row.

    All lengths are in inches: `panel` is (width, height) of each; `below` is the room beneath each panel, `between` the
    room between two rows, and `left` the room before the first panel of a row.
    """
    from regard.draw.figure import Figure

    panel_width, panel_height = panel
    width = max(2 * MARGIN + left + columns * panel_width + (columns - 1) * GAP, 3.4)
    inside = width - 2 * MARGIN
    lines = [(text, True) for text in textwrap.wrap(in_one_line(title, LONGEST_TITLE), int(TITLE_LETTERS * inside))]
    for caption in captions:
        lines += [(text, False) for text in textwrap.wrap(in_one_line(caption), int(LETTERS * inside))]
    top = MARGIN + len(lines) * 1.15 * LINE + 2.6 * LINE
    height = top + rows * (panel_height + below) + (rows - 1) * between + MARGIN

    figure = Figure(figsize=(width, height))
    for number, (text, is_title) in enumerate(lines):
        y = 1 - (MARGIN + number * 1.15 * LINE) / height
        size, weight = (9, "bold") if is_title else (8, "normal")
        figure.text(MARGIN / width, y, text, fontsize=size, weight=weight, color=INK, va="top")
    panels = []
    for row in range(rows):
        bottom = height - top - row * (panel_height + below + between) - panel_height
        lefts = [MARGIN + left + column * (panel_width + GAP) for column in range(columns)]
        boxes = [(left / width, bottom / height, panel_width / width, panel_height / height) for left in lefts]
        panels.append([figure.add_axes(box) for box in boxes])
    return figure, panels


def draw_frame(panel: "matplotlib.axes.Axes", left: int, top: int, width: int, height: int) -> None:
    """A frame that can be seen on light and on dark."""
    from matplotlib.patches import Rectangle

    for color, line in (("black", 2.4), (OUTLINE, 1.4)):
        panel.add_patch(
            Rectangle((left, top), width, height, fill=False, edgecolor=color, linewidth=line, clip_on=False)
        )


def write_below(panel: "matplotlib.axes.Axes", x: float, line: int, text: str, align: str) -> None:
    """Writes text in the given line beneath a panel; `x` is from 0 at its left edge to 1, `align` is for `ha`."""
    inch = panel.figure.dpi / panel.bbox.height
    y = -(line - 0.25) * LINE * inch
    panel.text(x, y, in_one_line(text), transform=panel.transAxes, fontsize=7.5, color=INK, ha=align, va="center")


def fit(panel: "matplotlib.axes.Axes", height: int, width: int) -> None:
    """Shrinks a square panel to the shape height : width; its lower left corner stays."""
    box = panel.get_position()
    longer = max(height, width)
    panel.set_position((box.x0, box.y0, box.width * width / longer, box.height * height / longer))
