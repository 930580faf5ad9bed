"""An explanation of one answer: the map, what it is of, and whether it is true."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from jaxtyping import Float, UInt8
from torch import Tensor

from regard.draw.png import png_bytes, save_png
from regard.explain.faithfulness import Faithfulness
from regard.explain.point_overlay import outside
from regard.explain.tokens import prefix_name
from regard.layers import Grid

if TYPE_CHECKING:
    import PIL.Image

    from regard.draw.figure import Figure


class Thumbnail(NamedTuple):
    """A small map beside the large one: of another layer, or of one head."""

    name: str
    map: Float[Tensor, "rows columns"]


@dataclass(frozen=True)
class Picture:
    """A figure that can be saved, and that a notebook shows."""

    figure: "Figure"

    def save(self, path: str | Path) -> None:
        """Writes it as PNG."""
        _save(self.figure, path)

    def _repr_png_(self) -> bytes:
        return png_bytes(self.figure)


@dataclass(frozen=True)
class Explanation:
    """What an answer rests on, as a map on the image's patches.

    It shows itself: `figure`, `overlay`, `save`, and in a notebook. `to_dict` and `json` give it as plain values.
    """

    map: Float[Tensor, "rows columns"]
    grid: Grid
    image: UInt8[Tensor, "channels height width"]
    """As the model saw it, normalisation undone."""
    method: str
    layer: str
    """The layer's name, "all" for what is carried through all of them, or nothing."""
    head: int | None
    """None: the mean over heads."""
    query: str
    """Whose view it is: "class token", "patch (2, 3)", "mean over patches", "query 7"."""
    target: str | None
    """The class, or None where the map is of none in particular."""
    prefix_share: float
    """What class token and registers take, of all that the query takes; 0 where there are none."""
    signed: bool = False
    """Whether negative values mean "against"."""
    exact: bool = True
    error: float = 0.0
    """Relative standard error of the map; 0 where it is exact."""
    faithfulness: Faithfulness | None = None
    unjudged: str = ""
    """Why there is no faithfulness."""
    passes: str = ""
    """What the map itself cost."""
    stored_size: tuple[int, int] | None = None
    """(height, width) of the image before the model's preprocessing."""
    title: str = ""
    layers: Sequence[Thumbnail] = field(default=(), repr=False)
    heads: Sequence[Thumbnail] = field(default=(), repr=False)
    box_xyxy: tuple[float, float, float, float] | None = None
    """The box that it is of, in pixels of `image`."""
    points: Float[Tensor, "points 4"] | None = None
    """Of deformable attention: x and y in pixels of `image`, weight, and map (0 is the finest) of each sampling point,
    head by head; a head's weights sum to one."""
    strides: tuple[int, ...] = ()
    """Of the points: pixels for a token of each map."""

    @cached_property
    def figure(self) -> "Figure":
        """The photograph with the map over it; then layers and heads small, and what the map is, in words."""
        from regard.explain.overlay import explanation_figure

        return explanation_figure(self)

    def overlay(self) -> "PIL.Image.Image":
        """The photograph with the map over it, and nothing else, in the size that the model saw."""
        from regard.explain.overlay import overlaid

        return overlaid(self)

    def save(self, path: str | Path) -> None:
        """Writes the figure as PNG."""
        _save(self.figure, path)

    def to_dict(self) -> dict[str, Any]:
        """Plain values: the map as rows of numbers, and all that is said of it."""
        return {
            "title": self.title,
            "method": self.method,
            "layer": self.layer,
            "head": self.head,
            "query": self.query,
            "target": self.target,
            "grid": {"height": self.grid.height, "width": self.grid.width, "prefix": self.grid.prefix},
            "size": list(self.image.shape[1:]),
            "stored_size": None if self.stored_size is None else list(self.stored_size),
            "map": self.map.detach().cpu().double().tolist(),
            "prefix_share": self.prefix_share,
            "signed": self.signed,
            "exact": self.exact,
            "error": self.error,
            "passes": self.passes,
            "faithfulness": None if self.faithfulness is None else self.faithfulness.to_dict(),
            "unjudged": self.unjudged or None,
            "box_xyxy": None if self.box_xyxy is None else list(self.box_xyxy),
            "points": None if self.points is None else self.points.double().tolist(),
            "strides": list(self.strides) or None,
        }

    def json(self) -> str:
        """`to_dict` as text."""
        return json.dumps(self.to_dict(), allow_nan=False)

    @property
    def caption(self) -> list[str]:
        """What the map is, in sentences: method, query, layer, size."""
        from regard.explain.methods import METHODS

        whose = f"of {self.target}" if self.target is not None else "of no class in particular"
        heads = "" if self.head is None else f", head {self.head}"
        where = "all layers" if self.layer == "all" else self.layer
        estimated = "" if self.exact else f" (estimated, ± {self.error:.0%})"
        lines = [f"{self.method}, {whose}: {METHODS[self.method].says}{estimated}"]
        details = [f"{where}{heads}" if self.layer else "", f"seen from the {self.query}" if self.query else ""]
        details.append(
            f"{self.prefix_share:.0%} of this row goes to {prefix_name(self.grid)}; the map shows the rest"
            if self.grid.prefix and self.query
            else ""
        )
        height, width = self.image.shape[1:]
        if self.points is not None:
            details.append(outside(self.points, height, width))
        seen = f"{width} × {height} pixels seen"
        if self.stored_size is not None and self.stored_size != (height, width):
            seen += f", of {self.stored_size[1]} × {self.stored_size[0]}"
            aspect = self.stored_size[1] / self.stored_size[0] * height / width
            seen += ": its edges are cut off" if abs(aspect - 1) > 0.02 else ""
        return [*lines, "; ".join(part for part in (*details, seen, self.passes) if part)]

    @property
    def verdict(self) -> str:
        """One line: what the map's deletion says beside chance and the centre, or why nothing is said."""
        if self.faithfulness is None:
            return f"not judged: {self.unjudged}" if self.unjudged else ""
        return self.faithfulness.line

    def _repr_png_(self) -> bytes:
        return png_bytes(self.figure)


def _save(figure: "Figure", path: str | Path) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    save_png(figure, Path(path))
