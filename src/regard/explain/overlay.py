"""The picture of an explanation: the photograph with the map over it, layers and heads small, and words.

Colours stand for the square root of the values, so that one strong patch does not hide the others; where a value is
small the photograph shows through. A line encloses the strongest patches that hold half of the sum.
"""

import io
import textwrap
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from regard.draw.colours import HEAT, INK, OUTLINE, SIGNED
from regard.draw.heat_maps import SMALL_IMAGE, percent
from regard.draw.names import in_one_line
from regard.draw.panels import LINE
from regard.explain.point_overlay import draw_maps, draw_points

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.colors
    import PIL.Image

    from regard.draw.figure import Figure
    from regard.explain.explanation import Explanation, Thumbnail

# Inches: the photograph's longer side, a thumbnail's, the margin, and the gap between thumbnails.
LARGE, SMALL, MARGIN, GAP = 4.6, 0.72, 0.14, 0.08
NARROWEST = 4.9
LETTERS, TITLE_LETTERS = 15.5, 11.5  # in an inch
MOST_ALPHA = 0.78
SHOWN_SIDE = 640  # pixels of the longer side, at least, that the overlay is drawn with
OUTLINES = ((2.8, "black"), (1.4, "white"))


def strength(values: Float[Tensor, "rows columns"], *, signed: bool) -> Float[Tensor, "rows columns"]:
    """0 to 1 between the ends of the scale, as a square root; signed: -1 to 1, 0 for 0."""
    values = values.detach().cpu().double()
    low, high = scale_ends(values, signed=signed)
    if not high > low:
        return torch.zeros_like(values)
    if signed:
        return values.sign() * (values.abs() / high).clamp(max=1).sqrt()
    return ((values - low) / (high - low)).clamp(0, 1).sqrt()


def scale_ends(values: Float[Tensor, "rows columns"], *, signed: bool) -> tuple[float, float]:
    """The smallest value, and the largest but for the hundredth part that lies above it: one strong patch would
    otherwise take the colours from all others. Signed: the same of the sizes, on both sides of 0."""
    flat = (values.abs() if signed else values).flatten().sort(descending=True).values
    high = float(flat[len(flat) // 100])
    return (-high, high) if signed else (float(flat[-1]), high)


def half_level(values: Float[Tensor, "rows columns"]) -> float | None:
    """The smallest of the strongest values that together hold half of the sum of what is above 0; None without any."""
    above = values.detach().cpu().double().clamp(min=0).flatten().sort(descending=True).values
    if not above.sum() > 0:
        return None
    held = above.cumsum(0) >= above.sum() / 2
    return float(above[int(held.int().argmax())])


def overlaid(explanation: "Explanation") -> "PIL.Image.Image":
    """The photograph with the map over it, in colours and with the line, as a Pillow image."""
    from PIL import Image

    from regard.draw.figure import Figure
    from regard.draw.png import png_bytes

    height, width = explanation.image.shape[1:]
    figure = Figure(figsize=(width / 100, height / 100))
    _draw_overlay(figure.add_axes((0, 0, 1, 1)), explanation)
    return Image.open(io.BytesIO(png_bytes(figure, dpi=100))).convert("RGB")


def explanation_figure(explanation: "Explanation") -> "Figure":
    """The photograph first, with the overlay; beside it as it is; then layers and heads; above and below, words."""
    from regard.draw.figure import Figure

    height, width = explanation.image.shape[1:]
    scale = LARGE / max(height, width)
    large = (width * scale, height * scale)
    aside = (0.42 * large[0], 0.42 * large[1])
    total = max(large[0] + GAP + aside[0] + 2 * MARGIN, NARROWEST)
    inside = total - 2 * MARGIN
    title = textwrap.wrap(in_one_line(explanation.title, 200), int(TITLE_LETTERS * inside))
    captions = [line for text in explanation.caption for line in textwrap.wrap(text, int(LETTERS * inside))]
    verdict = textwrap.wrap(in_one_line(explanation.verdict), int(LETTERS * inside))
    strips = [strip for strip in (explanation.layers, explanation.heads) if strip]
    small = (SMALL * large[0] / LARGE, SMALL * large[1] / LARGE)
    each = max(int((inside + GAP) / (small[0] + GAP)), 1)
    rows = [(strip, -(-len(strip) // each)) for strip in strips]
    top = MARGIN + (1.2 * len(title) + 1.1 * len(captions) + 0.5) * LINE
    words = (1.2 * len(verdict) + (2.2 if explanation.faithfulness is not None else 1.0)) * LINE
    below = sum(count * (small[1] + 1.2 * LINE) + 0.6 * LINE for _, count in rows)
    whole = top + large[1] + words + below + MARGIN
    figure = Figure(figsize=(total, whole))

    y = MARGIN
    for text in title:
        figure.text(MARGIN / total, 1 - y / whole, text, fontsize=9.5, weight="bold", color=INK, va="top")
        y += 1.2 * LINE
    for text in captions:
        figure.text(MARGIN / total, 1 - y / whole, text, fontsize=7.8, color=INK, va="top")
        y += 1.1 * LINE

    def box(left: float, upper: float, size: tuple[float, float]) -> tuple[float, float, float, float]:
        return left / total, 1 - (upper + size[1]) / whole, size[0] / total, size[1] / whole

    main = figure.add_axes(box(MARGIN, top, large))
    _draw_overlay(main, explanation)
    main.set_label("overlay")
    photograph = figure.add_axes(box(MARGIN + large[0] + GAP, top, aside))
    photograph.imshow(_pixels(explanation), aspect="auto")
    photograph.set_axis_off()
    photograph.set_label("image")
    beneath = (MARGIN + large[0] + GAP, top + aside[1] + 0.3 * LINE)
    if explanation.points is None:
        _draw_colours(figure, explanation, beneath, aside[0], total, whole)
    else:
        draw_maps(figure, explanation.strides, (beneath[0] / total, 1 - beneath[1] / whole), LINE / whole)
    y = top + large[1] + 0.5 * LINE
    for text in verdict:
        figure.text(MARGIN / total, 1 - y / whole, text, fontsize=8.6, weight="bold", color=INK, va="top")
        y += 1.2 * LINE
    if explanation.faithfulness is not None:
        judged = explanation.faithfulness
        told = f"{judged.measured}; {judged.passes + judged.shared_passes} images shown"
        figure.text(MARGIN / total, 1 - y / whole, in_one_line(told), fontsize=7, color=INK, va="top")
    y = top + large[1] + words
    for strip, count in rows:
        for number, one in enumerate(strip):
            row, column = divmod(number, each)
            upper = y + row * (small[1] + 1.2 * LINE) + 1.1 * LINE
            _draw_small(figure.add_axes(box(MARGIN + column * (small[0] + GAP), upper, small)), one, explanation)
        y += count * (small[1] + 1.2 * LINE) + 0.6 * LINE
    return figure


def _draw_overlay(panel: "matplotlib.axes.Axes", explanation: "Explanation") -> None:
    height, width = explanation.image.shape[1:]
    extent = (0, width, height, 0)
    how = "nearest" if max(height, width) < SMALL_IMAGE else "bilinear"
    panel.imshow(_pixels(explanation), extent=extent, aspect="auto", interpolation=how)
    if explanation.points is None:
        _draw_map(panel, explanation)
    if explanation.box_xyxy is not None:
        _draw_box(panel, explanation.box_xyxy)
    if explanation.points is not None:
        draw_points(panel, explanation.points)
    _draw_query(panel, explanation)
    panel.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])
    panel.set_axis_off()


def _draw_map(panel: "matplotlib.axes.Axes", explanation: "Explanation") -> None:
    """The colours, and the line around half of the sum."""
    height, width = explanation.image.shape[1:]
    extent = (0, width, height, 0)
    drawn = max(SHOWN_SIDE // max(height, width), 1)
    size = (height * drawn, width * drawn)
    smooth = _enlarged(strength(explanation.map, signed=explanation.signed), size)
    colours = _colour_map(explanation)((smooth + 1) / 2 if explanation.signed else smooth)
    colours[..., 3] = MOST_ALPHA * np.abs(smooth).clip(0, 1) ** 1.2
    panel.imshow(colours, extent=extent, aspect="auto", interpolation="nearest")
    level = half_level(explanation.map)
    if level is not None and bool(explanation.map.max() > explanation.map.min()):
        values = _enlarged(explanation.map.detach().cpu().double(), size)
        x = (np.arange(size[1]) + 0.5) * width / size[1]
        y = (np.arange(size[0]) + 0.5) * height / size[0]
        if values.min() < level * 0.999 < values.max():
            for line, colour in OUTLINES:
                panel.contour(x, y, values, levels=[level * 0.999], colors=colour, linewidths=line)


def _draw_box(panel: "matplotlib.axes.Axes", box_xyxy: tuple[float, float, float, float]) -> None:
    from matplotlib.patches import Rectangle

    left, upper, right, lower = box_xyxy
    for line, colour in ((3.2, "black"), (1.8, OUTLINE)):
        panel.add_patch(
            Rectangle((left, upper), right - left, lower - upper, fill=False, edgecolor=colour, linewidth=line)
        )


def _draw_query(panel: "matplotlib.axes.Axes", explanation: "Explanation") -> None:
    """A frame around the patch that looks."""
    if not explanation.query.startswith("patch ("):
        return
    from matplotlib.patches import Rectangle

    row, column = (int(part) for part in explanation.query.removeprefix("patch (").removesuffix(")").split(","))
    height, width = explanation.image.shape[1:]
    tall, wide = height / explanation.grid.height, width / explanation.grid.width
    for line, colour in ((3.0, "black"), (1.7, OUTLINE)):
        panel.add_patch(
            Rectangle((column * wide, row * tall), wide, tall, fill=False, edgecolor=colour, linewidth=line)
        )


def _draw_small(panel: "matplotlib.axes.Axes", one: "Thumbnail", explanation: "Explanation") -> None:
    values = strength(one.map, signed=explanation.signed).numpy()
    limits = (-1, 1) if explanation.signed else (0, 1)
    panel.imshow(values, cmap=_colour_map(explanation), clim=limits, aspect="auto", interpolation="nearest")
    panel.set(xticks=[], yticks=[])
    panel.spines[:].set_visible(False)
    panel.set_title(
        f"{one.name}  {_number(one.map.max().item(), explanation)}", fontsize=5.6, color=INK, pad=2, loc="left"
    )
    panel.set_label(one.name)


def _draw_colours(
    figure: "Figure", explanation: "Explanation", at: tuple[float, float], length: float, total: float, whole: float
) -> None:
    """The colours, between the numbers that their ends stand for."""
    left, upper = at
    strip = figure.add_axes((left / total, 1 - (upper + 0.08) / whole, length / total, 0.08 / whole))
    strip.imshow([[step / 64 for step in range(65)]], cmap=_colour_map(explanation), aspect="auto")
    strip.set_axis_off()
    strip.set_label("scale")
    ends = scale_ends(explanation.map, signed=explanation.signed)
    beyond = "≥ " if bool(explanation.map.abs().max() > ends[1]) else ""
    y = 1 - (upper + 0.12) / whole
    for text, x, align in (
        (_number(ends[0], explanation), left, "left"),
        (f"{beyond}{_number(ends[1], explanation)}", left + length, "right"),
    ):
        figure.text(x / total, y, text, fontsize=7, color=INK, ha=align, va="top")
    told = "square-root scale; the line\nencloses half of the sum"
    figure.text(left / total, 1 - (upper + 0.12 + 1.1 * LINE) / whole, told, fontsize=6.2, color=INK, va="top")


def _number(value: float, explanation: "Explanation") -> str:
    """A fraction of what a query takes as a percentage, everything else as it is."""
    from regard.explain.methods import METHODS

    if METHODS[explanation.method].is_share:
        return percent(value)
    return "0" if value == 0 else f"{value:.2g}".replace("-", "−")


def _colour_map(explanation: "Explanation") -> "matplotlib.colors.Colormap":
    from matplotlib import colormaps

    return colormaps[SIGNED if explanation.signed else HEAT]


def _pixels(explanation: "Explanation") -> np.ndarray:
    return explanation.image.expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy()


def _enlarged(values: Tensor, size: tuple[int, int]) -> np.ndarray:
    """Between the centres of patches the values go over into each other."""
    return F.interpolate(values[None, None], size=size, mode="bilinear", align_corners=False)[0, 0].numpy()
