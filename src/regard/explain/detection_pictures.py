"""Pictures of a detector's results: confusion matrix, precision-recall curves, and where each query puts its boxes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int64
from torch import Tensor

from regard.draw.colours import INK, PALETTE
from regard.draw.names import in_one_line

if TYPE_CHECKING:
    import matplotlib.axes

    from regard.draw.figure import Figure
    from regard.tasks import OperatingPoint, PrecisionRecall

DASHES: tuple[str, ...] = ("-", "--", ":", "-.")
# With more classes than this, the confusion matrix shows colours alone, and the curves only so many of them.
MOST_NAMES = 24
LONGEST_NAME = 24
# A box is small if the square root of its fraction of the image is below this; the colours are those of DETR's figure.
SMALL = 0.2
KINDS = ("small", "large horizontal", "large vertical")
KIND_COLOURS = ("#3f9b3a", "#d0342c", "#2f66c9")


def confusion_figure(confusion: Int64[Tensor, "classes classes"], class_names: Sequence[str]) -> "Figure":
    """Objects of each class (rows) by the class they were detected as (columns); last, the background."""
    names = [*(in_one_line(name, LONGEST_NAME) for name in class_names), "background"]
    count, few = len(names), len(names) <= MOST_NAMES
    side = min(max(0.32 * count + 1.4, 3.2), 9.0)
    figure, axes = _panel(side + 0.3, side)
    fractions = confusion.double() / confusion.sum(1, keepdim=True).clamp(min=1)
    axes.imshow(fractions.numpy(), cmap="Blues", vmin=0, vmax=1, aspect="equal")
    if few:
        axes.set_xticks(range(count), names, rotation=90, fontsize=7.5)
        axes.set_yticks(range(count), names, fontsize=7.5)
        for row, column in confusion.nonzero().tolist():
            ink = "white" if fractions[row, column] > 0.5 else "#1b1d23"
            axes.text(column, row, str(int(confusion[row, column])), ha="center", va="center", fontsize=7, color=ink)
    axes.set_xlabel("detected as", color=INK, fontsize=9)
    axes.set_ylabel("object", color=INK, fontsize=9)
    return figure


def pr_figure(curves: "PrecisionRecall", points: Sequence["OperatingPoint"] = ()) -> "Figure":
    """Precision against recall at IoU 0.5: a line for each class, and a thick one for their mean.

    points: where the detector stands on the curves; a dot each.
    """
    at = {point.name: point for point in points}
    names = list(curves.precision)
    figure, axes = _panel(5.2 if len(names) < 14 else 6.2, 3.8)
    for number, name in enumerate(names[:MOST_NAMES]):
        colour, style = PALETTE[number % len(PALETTE)], DASHES[number // len(PALETTE) % len(DASHES)]
        axes.plot(curves.recall, curves.precision[name], color=colour, lw=1.0, linestyle=style)
        if name in at and at[name].precision >= 0:
            axes.scatter([at[name].recall], [at[name].precision], color=colour, s=22, zorder=3, clip_on=False)
    if names:
        mean = np.mean([curves.precision[name] for name in names], axis=0)
        axes.plot(curves.recall, mean, color=INK, lw=2.4)
        shown = [in_one_line(name, LONGEST_NAME) for name in names[:MOST_NAMES]]
        axes.legend(
            axes.get_lines(),
            [*shown, "mean"],  # named here: of a line's own label, matplotlib leaves out what begins with _
            fontsize=7.5,
            frameon=False,
            labelcolor=INK,
            loc="center left",
            bbox_to_anchor=(1.01, 0.5),
            ncols=1 if len(names) < 14 else 2,
        )
    axes.set_xlim(0, 1.005)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("recall", color=INK, fontsize=9)
    axes.set_ylabel("precision, at IoU 0.5", color=INK, fontsize=9)
    axes.grid(color=INK, alpha=0.12, lw=0.6)
    return figure


def kinds_of(boxes_cxcywh: Float[Tensor, "boxes 4"]) -> Int64[Tensor, " boxes"]:
    """The place in `KINDS` of each box, given in fractions of its image: small, else horizontal or vertical."""
    width, height = boxes_cxcywh[:, 2], boxes_cxcywh[:, 3]
    kinds = 1 + (height > width).long()
    return kinds.where((width * height).clamp(min=0).sqrt() >= SMALL, 0)


def queries_figure(
    boxes_cxcywh: Sequence[Float[Tensor, "boxes 4"]], *, numbers: Sequence[int] | None = None
) -> "Figure":
    """Where each object query puts its boxes: a panel for each query, with a point at the centre of each box.

    boxes_cxcywh: in fractions of their images, one tensor for each query; numbers: of the queries. Small boxes are
    green, large horizontal ones red, large vertical ones blue (Carion et al. 2020, figure 7); a point grows with its
    box.
    """
    from matplotlib.lines import Line2D

    from regard.draw.figure import Figure

    columns = min(len(boxes_cxcywh), 8)
    rows = -(-len(boxes_cxcywh) // columns)
    size = max(0.95 * columns + 0.1, 3.4), 1.12 * rows + 0.36
    figure = Figure(figsize=size, layout="constrained")
    for number, boxes in enumerate(boxes_cxcywh):
        axes = figure.add_subplot(rows, columns, number + 1)
        axes.scatter(
            boxes[:, 0].numpy(),
            boxes[:, 1].numpy(),
            s=(2 + 30 * boxes[:, 2:].prod(1).clamp(min=0).sqrt().numpy()),
            c=[KIND_COLOURS[kind] for kind in kinds_of(boxes).tolist()],
            alpha=0.45,
            linewidths=0,
            rasterized=True,  # thousands of circles would be megabytes of SVG
        )
        axes.set_xlim(0, 1)
        axes.set_ylim(1, 0)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_aspect("equal")
        axes.set_title(f"query {number if numbers is None else numbers[number]}", fontsize=7, color=INK, pad=2)
        axes.patch.set_alpha(0)
        for spine in axes.spines.values():
            spine.set_color(INK)
            spine.set_alpha(0.4)
    dots = [Line2D([], [], marker="o", markersize=4, linestyle="", color=colour) for colour in KIND_COLOURS]
    figure.legend(
        dots, KINDS, loc="outside lower center", ncols=3, fontsize=7, frameon=False, labelcolor=INK, handletextpad=0.1
    )
    figure.patch.set_alpha(0)
    return figure


def _panel(width: float, height: float) -> "tuple[Figure, matplotlib.axes.Axes]":
    from regard.draw.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.patch.set_alpha(0)  # the page around the figure may be dark
    axes.tick_params(colors=INK, labelsize=7.5, length=2)
    for spine in axes.spines.values():
        spine.set_color(INK)
        spine.set_alpha(0.4)
    return figure, axes
