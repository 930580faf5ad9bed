"""Where each query of a detector puts its boxes over a data set (Carion et al. 2020, section 4.3 and figure 7)."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from regard.draw.png import png_bytes
from regard.errors import RegardError
from regard.explain.detection_pictures import KINDS, kinds_of, queries_figure
from regard.explain.object_queries import scores_and_boxes
from regard.explain.sites import evaluating

if TYPE_CHECKING:
    from regard.draw.figure import Figure

CERTAIN = 0.5
SHOWN = 24


@dataclass(frozen=True)
class QueryBoxes:
    """The boxes of all queries in each of some images, from the last layer of the decoder."""

    boxes_cxcywh: Float[Tensor, "queries images 4"]
    """As fractions of each image."""
    scores: Float[Tensor, "queries images"]
    """Of each box's likeliest class."""

    @property
    def certain(self) -> list[int]:
        """For each query, in how many images its box has a score of 0.5 or more."""
        return (self.scores >= CERTAIN).sum(1).tolist()

    @cached_property
    def figure(self) -> "Figure":
        """A panel for each of 24 queries at most, those with most certain boxes."""
        certain = self.certain
        order = sorted(range(len(certain)), key=lambda query: -certain[query])
        shown = sorted(order[:SHOWN])
        return queries_figure([self.boxes_cxcywh[query] for query in shown], numbers=shown)

    def to_dict(self) -> dict[str, Any]:
        """Plain values: for each query how many boxes it has of each kind, how many are certain, and their centres."""
        queries, certain = [], self.certain
        for number, boxes in enumerate(self.boxes_cxcywh):
            kinds = kinds_of(boxes)
            counts = {name.replace(" ", "_"): int((kinds == kind).sum()) for kind, name in enumerate(KINDS)}
            centres = boxes[:, :2].double().tolist()
            queries.append({"query": number, "certain": certain[number], **counts, "centres": centres})
        return {"method": "queries", "images": self.scores.shape[1], "queries": queries}

    def json(self) -> str:
        """`to_dict` as text."""
        return json.dumps(self.to_dict(), allow_nan=False)

    def _repr_png_(self) -> bytes:
        return png_bytes(self.figure)


def query_boxes(model: nn.Module, images: Iterable[Float[Tensor, "channels height width"]]) -> QueryBoxes:
    """All boxes of a detector's queries in some preprocessed images, one forward pass for each.

    The images may differ in size; all predictions count, those of "no object" too, as in the paper.
    RegardError where a query is no learned slot but a proposal of its image (two-stage), and for numbers that are not
    finite.
    """
    if getattr(getattr(model, "config", None), "two_stage", False):
        raise RegardError(
            f"queries: those of a two-stage {type(model).__name__} are proposals of each image, so that one number "
            "means another query in the next image; it is of learned queries"
        )
    boxes, scores = [], []
    with torch.no_grad(), evaluating(model):
        for image in images:
            output = model(image[None])
            if not hasattr(output, "boxes_cxcywh"):
                raise RegardError(f"queries: a {type(model).__name__} finds no boxes; it is of detectors")
            of_classes, of_layers = scores_and_boxes(model, output)
            boxes.append(of_layers[-1])
            scores.append(of_classes.amax(-1))
    if not boxes:
        raise RegardError("queries: there is no image")
    return QueryBoxes(torch.stack(boxes, 1), torch.stack(scores, 1))
