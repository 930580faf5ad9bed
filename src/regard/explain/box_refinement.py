"""Box refinement, layer by layer: where a detector's boxes begin, and where each layer of the decoder moves them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from regard.draw.colours import COLOURS, INK, is_bright
from regard.draw.names import in_one_line

if TYPE_CHECKING:
    import matplotlib.axes

    from regard.draw.figure import Figure
    from regard.tasks import BoxRefinement

# A query is shown if its score in the last layer is at least so high. If none is, the few most confident are shown.
THRESHOLD = 0.5
FEW = 3
# Each query has its own colour.
MOST = len(COLOURS)
# Panels in a row, and inches of a panel's longer side: a full row is as wide as the report.
COLUMNS = 4
SIDE = 2.65
# Pixels of the longer side: a larger image is shrunk to it, since it is stored in each panel.
LARGEST = 512
LONGEST_NAME = 14


def box_refinement_figure(
    image: UInt8[Tensor, "channels height width"],
    refinement: "BoxRefinement",
    *,
    threshold: float | Sequence[float] = THRESHOLD,
) -> "Figure":
    """A panel for the boxes that the queries begin with, if there are any, and one for each layer, left to right.

    Shown are the `confident_queries`; each keeps its colour. The first boxes of all other queries are thin and white.
    """
    from regard.draw.figure import Figure

    chosen = confident_queries(refinement, threshold)
    steps = refinement.steps
    height, width = image.shape[1:]
    columns = min(len(steps), COLUMNS)
    rows = -(-len(steps) // columns)
    inch = SIDE / max(height, width)
    figure = Figure(figsize=(columns * (inch * width + 0.1), rows * (inch * height + 0.3)))
    figure.set_layout_engine("constrained", w_pad=0.0, wspace=0.03)
    figure.patch.set_alpha(0)  # the page around the figure may be dark
    pixels = _thumbnail(image)
    for number, step in enumerate(steps):
        axes = figure.add_subplot(rows, columns, number + 1)
        axes.imshow(pixels, extent=(0, width, height, 0), interpolation="nearest")
        axes.set(xticks=[], yticks=[], xlim=(0, width), ylim=(height, 0))
        axes.spines[:].set_visible(False)
        axes.patch.set_alpha(0)
        axes.set_title(step, fontsize=9, color=INK, pad=3)
        layer = number - (refinement.start_xyxy is not None)
        if layer < 0:
            _draw_start(axes, refinement, chosen)
        else:
            _draw_layer(axes, refinement, layer, chosen)
    return figure


def confident_queries(refinement: "BoxRefinement", threshold: float | Sequence[float] = THRESHOLD) -> list[int]:
    """The queries whose score in the last layer is at least `threshold`, or that of their class, the most confident
    first, ten at most.

    If there is none, the three most confident. Queries with a value that is not finite are left out.
    """
    finite = refinement.boxes_xyxy.isfinite().all(-1).all(0) & refinement.scores.isfinite().all(0)
    scores = refinement.scores[-1].masked_fill(~finite, -1.0)
    order = [query for query in scores.argsort(descending=True, stable=True).tolist() if finite[query]]
    labels = refinement.labels[-1].tolist()
    least = [threshold if isinstance(threshold, int | float) else threshold[label] for label in labels]
    confident = [query for query in order if scores[query] >= least[query]]
    return confident[:MOST] if confident else order[:FEW]


def _draw_start(axes: "matplotlib.axes.Axes", refinement: "BoxRefinement", chosen: list[int]) -> None:
    assert refinement.start_xyxy is not None
    for query, box in enumerate(refinement.start_xyxy.tolist()):
        if query not in chosen:
            _draw_box(axes, box, "white", halo=False)
    for number, query in reversed(list(enumerate(chosen))):
        _draw_box(axes, refinement.start_xyxy[query].tolist(), COLOURS[number])


def _draw_layer(axes: "matplotlib.axes.Axes", refinement: "BoxRefinement", layer: int, chosen: list[int]) -> None:
    # The most confident are drawn last, on top.
    for number, query in reversed(list(enumerate(chosen))):
        box = refinement.boxes_xyxy[layer, query].tolist()
        name = in_one_line(refinement.class_names[int(refinement.labels[layer, query])], LONGEST_NAME)
        _draw_box(axes, box, COLOURS[number])
        _write(axes, box, f"{name} {refinement.scores[layer, query]:.2f}", COLOURS[number])


def _draw_box(axes: "matplotlib.axes.Axes", box_xyxy: list[float], colour: str, *, halo: bool = True) -> None:
    """The halo makes the box visible on any background."""
    from matplotlib.patches import Rectangle

    left, top, right, bottom = box_xyxy
    lines = [("black", 2.6, 0.7), (colour, 1.5, 1.0)] if halo else [(colour, 0.5, 0.55)]
    for edge, line, alpha in lines:
        axes.add_patch(
            Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=edge, linewidth=line, alpha=alpha)
        )


def _write(axes: "matplotlib.axes.Axes", box_xyxy: list[float], caption: str, colour: str) -> None:
    """Writes above a box if there is room, else inside it, and not beyond the image's edges."""
    left, top, right, _ = box_xyxy
    width, height = axes.get_xlim()[1], axes.get_ylim()[0]
    above, leftwards = top > 0.08 * height, left > 0.7 * width
    text = axes.text(
        min(right, width) if leftwards else left,
        top,
        caption,
        fontsize=6.5,
        color="black" if is_bright(colour) else "white",
        ha="right" if leftwards else "left",
        va="bottom" if above else "top",
        clip_on=True,
        bbox={"facecolor": colour, "edgecolor": "none", "pad": 0.8},
    )
    text.set_in_layout(False)  # else a long name would make the panels smaller


def _thumbnail(image: Tensor) -> np.ndarray:
    picture = Image.fromarray(image.expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy())
    picture.thumbnail((LARGEST, LARGEST))
    return np.asarray(picture)
