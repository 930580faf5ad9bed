"""A film strip of a detector at work: where its boxes begin, and where each layer of the decoder puts them."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from regard.draw.boxes import COLOURS, is_bright
from regard.draw.sheet import INK

if TYPE_CHECKING:  # importing it takes a second, which only those who draw should wait for
    import matplotlib.axes
    import matplotlib.figure

    from regard.tasks import BoxRefinement

# Of the last layer's score. Where no query is so sure, the surest few are shown.
THRESHOLD = 0.5
FEW = 3
# A query more would share its colour with another.
MOST = len(COLOURS)
# Panels of a row, and inches of a panel's longer side: a full row is as wide as the report.
COLUMNS = 4
SIDE = 2.65
# Pixels of the longer side: a photograph is no larger in each panel.
LARGEST = 512
LONGEST_NAME = 14


def box_refinement_figure(
    image: UInt8[Tensor, "channels height width"], refinement: "BoxRefinement", *, threshold: float = THRESHOLD
) -> "matplotlib.figure.Figure":
    """A panel for where the queries begin, if they begin with boxes, and one for each layer, left to right.

    Shown are the queries whose best score in the last layer is at least `threshold`, ten at most; where there is none,
    the surest three. A query keeps its colour. Where queries begin, the boxes of all the others are thin and white.
    """
    from matplotlib.figure import Figure

    chosen = confident_queries(refinement, threshold)
    steps = refinement.steps
    height, width = image.shape[1:]
    columns = min(len(steps), COLUMNS)
    rows = -(-len(steps) // columns)
    inch = SIDE / max(height, width)
    figure = Figure(figsize=(columns * (inch * width + 0.1), rows * (inch * height + 0.3)))
    figure.set_layout_engine("constrained", w_pad=0.0, wspace=0.03)
    figure.patch.set_alpha(0)  # the page around it may be dark
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


def confident_queries(refinement: "BoxRefinement", threshold: float = THRESHOLD) -> list[int]:
    """The queries whose last score is at least `threshold`, the surest first, ten at most; or the surest three.

    What is not finite is left out.
    """
    finite = refinement.boxes_xyxy.isfinite().all(-1).all(0) & refinement.scores.isfinite().all(0)
    scores = refinement.scores[-1].masked_fill(~finite, -1.0)
    order = [query for query in scores.argsort(descending=True, stable=True).tolist() if finite[query]]
    sure = [query for query in order if scores[query] >= threshold]
    return sure[:MOST] if sure else order[:FEW]


def _draw_start(axes: "matplotlib.axes.Axes", refinement: "BoxRefinement", chosen: list[int]) -> None:
    assert refinement.start_xyxy is not None
    for query, box in enumerate(refinement.start_xyxy.tolist()):
        if query not in chosen:
            _draw_box(axes, box, "white", halo=False)
    for number, query in reversed(list(enumerate(chosen))):
        _draw_box(axes, refinement.start_xyxy[query].tolist(), COLOURS[number])


def _draw_layer(axes: "matplotlib.axes.Axes", refinement: "BoxRefinement", layer: int, chosen: list[int]) -> None:
    # The surest come last, on top.
    for number, query in reversed(list(enumerate(chosen))):
        box = refinement.boxes_xyxy[layer, query].tolist()
        name = refinement.class_names[int(refinement.labels[layer, query])]
        name = name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"
        _draw_box(axes, box, COLOURS[number])
        _write(axes, box, f"{name} {refinement.scores[layer, query]:.2f}", COLOURS[number])


def _draw_box(axes: "matplotlib.axes.Axes", box_xyxy: list[float], colour: str, *, halo: bool = True) -> None:
    """With a halo, so that it is seen on any ground."""
    from matplotlib.patches import Rectangle

    left, top, right, bottom = box_xyxy
    lines = [("black", 2.6, 0.7), (colour, 1.5, 1.0)] if halo else [(colour, 0.5, 0.55)]
    for edge, line, alpha in lines:
        axes.add_patch(
            Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=edge, linewidth=line, alpha=alpha)
        )


def _write(axes: "matplotlib.axes.Axes", box_xyxy: list[float], caption: str, colour: str) -> None:
    """Above a box where there is room, else within it; and not beyond the image's edges."""
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
        parse_math=False,
        clip_on=True,
        bbox={"facecolor": colour, "edgecolor": "none", "pad": 0.8},
    )
    text.set_in_layout(False)  # or a long name would make the panels smaller


def _thumbnail(image: Tensor) -> np.ndarray:
    picture = Image.fromarray(image.expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy())
    picture.thumbnail((LARGEST, LARGEST))
    return np.asarray(picture)
