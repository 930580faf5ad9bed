"""What a detector's query looks at: its cross-attention to the image, for one of the boxes that it finds."""

from dataclasses import replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from regard.errors import NOT_FINITE, RegardError
from regard.explain.box_relevance import box_relevance
from regard.explain.explanation import Explanation, Thumbnail
from regard.explain.row_engine import LayerRows, rows
from regard.explain.sampling_points import sampling_points
from regard.explain.sites import LayerChoice, Site, chosen_sites, evaluating, numbers_of, sites
from regard.layers import DeformableAttention, Grid

OF_BOXES = ("rows", "points", "relevance")
UNJUDGED = "deletion is measured for classes and features, not for boxes"


class CertainBox(NamedTuple):
    """One of the boxes that a detector finds."""

    query: int
    label: int
    score: float
    xyxy: tuple[float, float, float, float]
    """In pixels of the image as the model sees it."""


def scores_and_boxes(
    model: nn.Module, output: Any
) -> tuple[Float[Tensor, "queries classes"], Float[Tensor, "layers queries 4"]]:
    """A detector's answer for one image: the score of each class in the last layer, and the boxes of every layer.

    Where "no object" is a class of the softmax, its score is left out. RegardError where numbers are not finite.
    """
    logits, boxes = output.logits[-1, 0].float().cpu(), output.boxes_cxcywh[:, 0].float().cpu()
    scores = logits.sigmoid() if getattr(model, "scores", "softmax") == "sigmoid" else logits.softmax(-1)[:, :-1]
    if not bool(scores.isfinite().all() and boxes.isfinite().all()):
        raise RegardError(f"explain: {NOT_FINITE}")
    return scores, boxes


def certain_box(model: nn.Module, image: Float[Tensor, "channels height width"], box: int = 0) -> CertainBox:
    """The `box`-th most certain box of the last decoder layer. RegardError where there are not so many queries."""
    with torch.no_grad(), evaluating(model):
        output = model(image[None])
    scores, boxes = scores_and_boxes(model, output)
    best, labels = scores.max(-1)
    if not 0 <= box < len(best):
        raise RegardError(f"box {box} is not there: the detector has {len(best)} queries, 0 (the most certain) on")
    query = int(best.argsort(descending=True, stable=True)[box])
    height, width = image.shape[1:]
    cx, cy, w, h = (boxes[-1, query] * torch.tensor([width, height, width, height])).tolist()
    return CertainBox(query, int(labels[query]), float(best[query]), (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2))


def cross_sites(model: nn.Module) -> list[Site]:
    """The layers in which a decoder attends to the image. RegardError for a model without."""
    known = [site for site in sites(model) if site.name.startswith("cross")]
    if not known:
        raise RegardError(f"explain: a {type(model).__name__} has no cross-attention to an image")
    return known


def explain_box(
    model: nn.Module,
    image: Float[Tensor, "channels height width"],
    seen: UInt8[Tensor, "channels height width"],
    *,
    class_names: tuple[str, ...],
    box: int = 0,
    method: str | None = None,
    layer: LayerChoice = None,
    head: int | None = None,
    title: str = "",
    stored_size: tuple[int, int] | None = None,
) -> Explanation:
    """What the query with the `box`-th most certain box looks at, in the last decoder layer unless given.

    method: "rows" of its cross-attention, one layer; of dense cross-attention also "relevance" for its class, in all
    layers; of deformable attention, and usual there, its sampling "points".
    Where the keys are several maps (deformable attention, whose points' weights are shared among the tokens beside
    them, and dense attention to all scales), the rows are added up on the finest. RegardError for a model without
    cross-attention, for a method that does not serve it, and for a box that is not there.
    """
    known = cross_sites(model)
    deformable = isinstance(known[-1].module, DeformableAttention)
    name = method or ("points" if deformable else "rows")
    _require_served(name, deformable)
    found = certain_box(model, image, box)
    label = class_names[found.label] if found.label < len(class_names) else str(found.label)
    if name == "relevance":
        explained = _of_relevance(model, image, seen, found, layer=layer, head=head)
    else:
        explained = _of_rows(model, image, seen, found, known, layer, head)
    if name == "points":
        (points,) = sampling_points(model, image[None], queries=[found.query], layers=explained.layer, heads=head)
        explained = replace(explained, points=points.of(), strides=points.strides, passes="3 forward passes")
    return replace(
        explained,
        method=name,
        query=f"query of box {box}",
        target=f"{label} ({found.score:.2f})",
        box_xyxy=found.xyxy,
        title=title,
        stored_size=stored_size,
    )


def _require_served(method: str, deformable: bool) -> None:
    served = ("points", "rows") if deformable else ("rows", "relevance")
    if method not in served:
        kind = "deformable" if deformable else "dense"
        raise RegardError(f"{method}: is not there for {kind} cross-attention; a box has {' and '.join(served)}")


def _of_rows(
    model: nn.Module,
    image: Tensor,
    seen: Tensor,
    box: CertainBox,
    known: list[Site],
    layer: LayerChoice,
    head: int | None,
) -> Explanation:
    (site, *_) = [known[-1]] if layer is None else chosen_sites(sites(model), layer)
    if site not in known:
        raise RegardError(f"layer {layer}: is {site.name}; a box is explained by cross.0 to cross.{len(known) - 1}")
    wanted = [one.name for one in known] if layer is None else [site.name]
    found = rows(model, image[None], queries=[box.query], layers=wanted)
    if head is not None:
        head = int(numbers_of(head, found[site.name].weights.shape[1], "head")[0])
    maps = {one.name: _heads(one) for one in found}
    own = maps[site.name]
    small = [Thumbnail(f"head {number}", one) for number, one in enumerate(own)]
    return Explanation(
        own.mean(0) if head is None else own[head],
        Grid(*own.shape[1:]),
        seen,
        "rows",
        site.name,
        head,
        "",
        None,
        0.0,
        unjudged=UNJUDGED,
        passes="2 forward passes",
        layers=[Thumbnail(name, heads.mean(0)) for name, heads in maps.items()] if len(maps) > 1 else (),
        heads=small if len(small) > 1 else (),
    )


def _of_relevance(model: nn.Module, image: Tensor, seen: Tensor, box: CertainBox, **unserved: object) -> Explanation:
    for option, value in unserved.items():
        if value is not None:
            raise RegardError(f"relevance: takes no {option}; it is of all layers and heads")
    found = box_relevance(model, image[None], box.query, box.label)
    (values,) = _on_finest(found.tokens.float().cpu(), found.grid, found.shapes, "the encoder")
    return Explanation(
        values,
        Grid(*values.shape),
        seen,
        "relevance",
        "all" if found.through_encoder else "all layers of the decoder",
        None,
        "",
        None,
        0.0,
        unjudged=UNJUDGED,
        passes="2 forward passes and 1 backward pass",
    )


class BoxMaps(NamedTuple):
    """The cross-attention of the queries with a detector's most certain boxes."""

    queries: list[int]
    labels: list[int]
    scores: list[float]
    boxes_cxcywh: Float[Tensor, "layers queries 4"]
    """Of all queries, as fractions of the image, after each layer of the decoder."""
    maps: dict[str, Float[Tensor, "heads boxes rows columns"]]
    """By the layer's name."""


def box_maps(
    model: nn.Module,
    image: Float[Tensor, "channels height width"],
    *,
    layers: LayerChoice = None,
    most: int,
    threshold: float | int,
    few: int,
) -> BoxMaps:
    """The boxes with a score of `threshold` or more, `most` of them at most; where there is none, the best `few`."""
    with torch.no_grad(), evaluating(model):
        output = model(image[None])
    scores, every = scores_and_boxes(model, output)
    best, labels = scores.max(-1)
    count = min(int((best >= threshold).sum()) or few, most, len(best))
    queries = best.argsort(descending=True, stable=True)[:count].tolist()
    known = [site.name for site in cross_sites(model)]
    chosen = known if layers is None else [site.name for site in chosen_sites(sites(model), layers)]
    if not set(chosen) <= set(known):
        raise RegardError(f"layer {layers}: a box is explained by cross.0 to cross.{len(known) - 1}")
    found = rows(model, image[None], queries=queries, layers=chosen)
    maps = {one.name: torch.stack([_heads(one, place) for place in range(count)], 1) for one in found}
    return BoxMaps(queries, labels[queries].tolist(), best[queries].tolist(), every, maps)


def _heads(found: LayerRows, place: int = 0) -> Float[Tensor, "heads rows columns"]:
    """A query's row in each head as a map."""
    return _on_finest(found.weights[0, :, place].float().cpu(), found.grid, found.shapes, found.name)


def _on_finest(
    weights: Float[Tensor, "maps keys"], grid: Grid | None, shapes: tuple[tuple[int, int], ...], name: str
) -> Float[Tensor, "maps rows columns"]:
    """Weights of tokens as maps. Where the keys are several maps, they are added up on the finest, each weight spread
    over its token."""
    if grid is not None:
        return weights[:, grid.prefix :].unflatten(1, (grid.height, grid.width))
    if not shapes:
        raise RegardError(f"rows: the tokens of {name} do not lie on an image")
    finest = max(shapes)
    whole = weights.new_zeros(len(weights), *finest)
    for part, shape in zip(weights.split([height * width for height, width in shapes], 1), shapes, strict=True):
        spread = F.interpolate(part.unflatten(1, shape)[None], size=finest, mode="nearest")[0]
        whole += spread * part.sum(1)[:, None, None] / spread.sum((1, 2), keepdim=True).clamp(min=1e-30)
    return whole
