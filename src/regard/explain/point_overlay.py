"""Sampling points as dots on the photograph: the area stands for the weight, the colour for the map."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from jaxtyping import Float
from torch import Tensor

from regard.draw.colours import COLOURS, INK

if TYPE_CHECKING:
    import matplotlib.axes

    from regard.draw.figure import Figure

# Of the maps, from the finest on: away from the frame's blue.
LEVELS = (COLOURS[0], COLOURS[6], COLOURS[2], COLOURS[3], COLOURS[5])
# Square points of the dot of the largest weight, and of the smallest dot that is seen, for a panel of one square inch.
LARGEST, SMALLEST = 7, 0.12


def draw_points(panel: "matplotlib.axes.Axes", points: Float[Tensor, "points 4"]) -> None:
    """A dot for each point, as large as its weight beside the largest; small ones are drawn last, on top."""
    x, y, weights, level = points[points[:, 2].argsort(descending=True)].double().T
    extent, dpi = panel.get_window_extent(), panel.figure.dpi  # the dots grow with the panel
    areas = (LARGEST * weights / weights.max()).clamp(min=SMALLEST) * (extent.width * extent.height / dpi**2)
    colours = [LEVELS[int(number) % len(LEVELS)] for number in level.tolist()]
    dots = panel.scatter(x.numpy(), y.numpy(), s=areas.numpy(), c=colours, edgecolors="black")
    dots.set_linewidth(0.13 * min(extent.width, extent.height) / dpi)
    dots.set_alpha(0.9)
    dots.set_label("points")


def draw_maps(figure: "Figure", strides: Sequence[int], at: tuple[float, float], line: float) -> None:
    """Which colour is which map, in words below each other; `at` and `line` are fractions of the figure."""
    x, y = at
    for number, stride in enumerate(strides):
        lower = y - (number + 0.8) * line
        figure.text(x, lower, "●", fontsize=9, color=LEVELS[number % len(LEVELS)], va="baseline")
        figure.text(x + 0.028, lower, f"map {number}: {stride} pixels a token", fontsize=7, color=INK, va="baseline")
    told = "a dot's area is its weight"
    figure.text(x, y - (len(strides) + 0.9) * line, told, fontsize=6.2, color=INK, va="baseline")


def outside(points: Float[Tensor, "points 4"], height: int, width: int) -> str:
    """How much of the weight lies on the points beyond the image, in words."""
    x, y, weights, _ = points.T
    beyond = (x < 0) | (x >= width) | (y < 0) | (y >= height)
    if not bool(beyond.any()):
        return f"all {len(points)} points lie on the image"
    weight = weights[beyond].sum() / weights.sum()
    return f"{int(beyond.sum())} of {len(points)} points, with {weight:.0%} of the weight, lie beyond the image"
