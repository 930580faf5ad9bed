"""An image, or a heat map with its colour scale, in a panel.

`extent` is (left, right, bottom, top) in cells of a grid: what is drawn covers it, and the panel's coordinates count
cells.
"""

import math
from typing import TYPE_CHECKING

from jaxtyping import Float, UInt8
from torch import Tensor

from regard.draw.colours import HEAT, SIGNED
from regard.draw.panels import LINE, write_below

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.image

Extent = tuple[int, int, int, int]
# Pixels of the longer side: a smaller image is shown pixel by pixel; to shrink a larger one so would break its lines.
SMALL_IMAGE = 64


def draw_image(panel: "matplotlib.axes.Axes", image: UInt8[Tensor, "channels height width"], extent: Extent) -> None:
    """Draws a grey or colour image."""
    how = "none" if max(image.shape[1:]) < SMALL_IMAGE else "auto"
    _draw(panel, image.permute(1, 2, 0).expand(-1, -1, 3), extent, interpolation=how)


def draw_heat_map(panel: "matplotlib.axes.Axes", values: Float[Tensor, "rows columns"], extent: Extent) -> float:
    """Draws values from zero to their largest finite one, which is returned. NaN and infinity stay empty."""
    values = values.where(values.isfinite(), math.nan)
    highest = values.nan_to_num().max().item()
    _draw(panel, values, extent).set(cmap=HEAT, clim=(0, highest or 1))
    return highest


def draw_signed_map(
    panel: "matplotlib.axes.Axes", values: Float[Tensor, "rows columns"], extent: Extent, highest: float
) -> None:
    """Draws values from -highest to highest, white at zero. NaN and infinity stay empty."""
    values, highest = values.where(values.isfinite(), math.nan), highest if math.isfinite(highest) else 0.0
    _draw(panel, values, extent).set(cmap=SIGNED, clim=(-(highest or 1), highest or 1))


def draw_scale(panel: "matplotlib.axes.Axes", lowest: str, highest: str, *, colours: str = HEAT) -> None:
    """Draws a strip of the colours beneath a panel, between the numbers that its two ends stand for."""
    inch = panel.figure.dpi / panel.bbox.height
    strip = panel.inset_axes((0.2, -(0.75 * LINE + 0.03) * inch, 0.3, 0.06 * inch))
    strip.imshow([[step / 32 for step in range(33)]], cmap=colours, aspect="auto", interpolation="none")
    strip.set_axis_off()
    strip.set_label("scale")
    write_below(panel, 0.15, 1, lowest, "right")
    write_below(panel, 0.55, 1, highest, "left")


def percent(fraction: float) -> str:
    """A fraction as a percentage, with a digit behind the point if it is small."""
    return "0" if fraction == 0 else f"{100 * fraction:.{0 if fraction >= 0.0995 else 1}f}%"


def _draw(
    panel: "matplotlib.axes.Axes", pixels: Tensor, extent: Extent, *, interpolation: str = "none"
) -> "matplotlib.image.AxesImage":
    panel.set(xticks=[], yticks=[])
    panel.spines[:].set_visible(False)
    return panel.imshow(pixels.detach().cpu().numpy(), extent=extent, aspect="auto", interpolation=interpolation)
