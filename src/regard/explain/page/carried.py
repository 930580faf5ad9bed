"""What the page carries of one model and one image: layers of attention, maps with their faithfulness, and boxes."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from regard.errors import NOT_FINITE, RegardError
from regard.explain.box_refinement import FEW, THRESHOLD
from regard.explain.explaining import explain
from regard.explain.explanation import Explanation
from regard.explain.faithfulness import Judge
from regard.explain.maps import grid_of
from regard.explain.object_queries import box_maps
from regard.explain.row_engine import rows
from regard.explain.sites import (
    Inputs,
    LayerChoice,
    chosen_sites,
    evaluating,
    is_timm,
    listening,
    sites,
    timm_projection,
)
from regard.explain.target import ClassChoice, target_of
from regard.layers import Grid
from regard.mixers import Attention

METHODS = ("rows", "rollout", "relevance", "gradient", "gradient-x-input")
MOST_BOXES = 10
BARS = 5
# Rows of all tokens are made for a layer whose rows take no more than this; those of local attention compress well.
MOST_ROW_BYTES = 2**25


@dataclass(frozen=True)
class CarriedLayer:
    """One layer: `q`, already times the scale, and `k` (heads, tokens, head_dim); or `rows` (heads, queries, keys)."""

    name: str
    mixer: str
    kind: str
    """"matrix", or "influence"."""
    arrays: tuple[Tensor, ...]
    """q and k, or the rows alone; in half precision."""
    unit: float = 1.0
    """What a carried row is multiplied by."""

    @property
    def num_heads(self) -> int:
        return int(self.arrays[0].shape[0])

    @property
    def numbers(self) -> np.ndarray:
        """All of it as one array of little-endian half floats."""
        return np.concatenate([array.numpy().astype("<f2").ravel() for array in self.arrays])

    def about(self) -> dict[str, Any]:
        heads, queries, last = self.arrays[0].shape
        return {
            "name": self.name,
            "mixer": self.mixer,
            "kind": self.kind,
            "heads": heads,
            "queries": queries,
            "size": last,
            "is_qk": len(self.arrays) == 2,
            "unit": self.unit,
        }


class Bar(NamedTuple):
    """A class and its probability."""

    name: str
    probability: float


class Box(NamedTuple):
    """A detector's box in pixels of the image as seen, after each layer of the decoder."""

    name: str
    score: float
    layers_xyxy: list[list[float]]


@dataclass(frozen=True)
class CarriedImage:
    name: str
    seen: UInt8[Tensor, "channels height width"]
    grid: Grid
    layers: Sequence[CarriedLayer]
    bars: Sequence[Bar] = ()
    boxes: Sequence[Box] = ()
    maps: Sequence[Explanation] = ()
    shared: dict[str, list[float]] = field(default_factory=dict)
    """Curves of deletion that all maps stand beside: "random" and "centre"."""
    notes: Sequence[str] = ()
    """What is not there, and why."""


@dataclass(frozen=True)
class CarriedRun:
    name: str
    images: Sequence[CarriedImage]


def carried_image(
    model: nn.Module,
    image: Float[Tensor, "channels height width"],
    seen: UInt8[Tensor, "channels height width"],
    *,
    name: str,
    class_names: Sequence[str] = (),
    multi_label: bool = False,
    target: ClassChoice = None,
    methods: Sequence[str] = METHODS,
    layers: LayerChoice = None,
    judged: Float[Tensor, "channels own_height own_width"] | None = None,
) -> CarriedImage:
    """What the page shows of a classifier, or of a model of features, and one preprocessed image.

    judged: the image on which the maps' faithfulness is measured; None leaves it out. A method that does not serve the
    model becomes a note. RegardError for a class or a layer that is not there, and where numbers are not finite.
    """
    grid = grid_of(model, image[None])
    carried, output, notes = _layers(model, image, layers, grid)
    with torch.no_grad(), evaluating(model):
        of_class = target_of(model, output, target, class_names=class_names, multi_label=multi_label)
        judge = None
        if judged is not None:
            own = of_class if of_class.reference is None else replace(of_class, reference=model(judged[None]))
            judge = Judge(model, judged, own)
    maps = []
    for method in methods:
        if method == "rows" and carried and carried[-1].kind == "influence":
            continue  # no head takes a row of such a layer; what a token depends on is not judged
        try:
            found = explain(
                model,
                image,
                method=method,
                target=target,
                seen=seen,
                class_names=class_names,
                multi_label=multi_label,
                judge=False if judge is None else judge,
            )
        except RegardError as error:
            notes.append(str(error) if str(error).startswith(method) else f"{method}: {error}")
        else:
            maps.append(found)
    shared = {} if judge is None else {"random": judge.random_deletion, "centre": judge.centre_deletion}
    bars = _bars(output[0].float(), class_names, multi_label) if of_class.reference is None else []
    return CarriedImage(name, seen, grid, carried, bars, (), maps, shared, notes)


def carried_detection(
    model: nn.Module,
    image: Float[Tensor, "channels height width"],
    seen: UInt8[Tensor, "channels height width"],
    *,
    name: str,
    class_names: Sequence[str],
    layers: LayerChoice = None,
) -> CarriedImage:
    """What the page shows of a detector: its certain boxes, ten at most, and what each one's query takes."""
    found = box_maps(model, image, layers=layers, most=MOST_BOXES, threshold=THRESHOLD, few=FEW)
    height, width = image.shape[1:]
    scale = torch.tensor([width, height, width, height])
    boxes = []
    for query, label, score in zip(found.queries, found.labels, found.scores, strict=True):
        centre, size = (found.boxes_cxcywh[:, query] * scale).split(2, 1)
        corners = torch.cat([centre - size / 2, centre + size / 2], 1)
        named = class_names[label] if label < len(class_names) else str(label)
        boxes.append(Box(named, score, corners.tolist()))
    carried = [
        CarriedLayer(layer, "cross-attention", "matrix", (_half(maps.flatten(2), layer),))
        for layer, maps in found.maps.items()
    ]
    finest = next(iter(found.maps.values())).shape[2:]
    return CarriedImage(name, seen, Grid(*finest), carried, boxes=boxes)


def _layers(
    model: nn.Module, image: Tensor, layers: LayerChoice, grid: Grid
) -> tuple[list[CarriedLayer], Any, list[str]]:
    """The layers whose queries and keys are the image's tokens, and the model's output, from one forward pass."""
    found: dict[str, CarriedLayer] = {}
    others: list[str] = []
    notes: list[str] = []

    def read(inputs: Inputs) -> None:
        site = inputs.site
        if inputs.num_queries != grid.num_tokens or inputs.num_keys != grid.num_tokens:
            notes.append(f"{site.name}: its tokens are not the image's patches, so its rows are not shown")
            return
        projected = _projected(inputs)
        if projected is not None:
            q, k = (_half(part[0], site.name) for part in projected)
            found[site.name] = CarriedLayer(site.name, site.mixer, "matrix", (q, k))
        elif (needed := site.num_heads * grid.num_tokens**2 * 2) > MOST_ROW_BYTES:
            notes.append(
                f"{site.name}: the rows of {site.mixer} take {needed / 1e6:.0f} MB, more than a page carries; "
                "a smaller --size has fewer"
            )
        else:
            others.append(site.name)

    try:
        chosen = chosen_sites(sites(model), layers)
    except RegardError:
        if layers is not None:
            raise
        chosen = []
        notes.append(f"a {type(model).__name__} has no attention whose rows could be shown")
    with torch.no_grad(), evaluating(model), listening(model, chosen, read):
        output = model(image[None])
    if others:
        for one in rows(model, image[None], queries="all", layers=others):
            weights = one.weights[0]
            unit = 1.0 if one.kind == "matrix" else float(weights.max().clamp(min=1e-30))
            found[one.name] = CarriedLayer(one.name, one.mixer, one.kind, (_half(weights / unit, one.name),), unit)
    return [found[site.name] for site in chosen if site.name in found], output, notes


def _projected(inputs: Inputs) -> tuple[Tensor, Tensor] | None:
    """q times the scale, and k, of softmax attention among all tokens; None for anything else."""
    module: Any = inputs.site.module
    if is_timm(module):
        q, k = (timm_projection(module, inputs.x, number)(slice(None)) for number in (0, 1))
        return q * module.head_dim**-0.5, k
    if type(module) is not Attention or module.causal or inputs.kwargs.get("mask") is not None:
        return None
    positions = inputs.kwargs.get("positions")
    q, k = (module.project(part, inputs.x, positions) for part in ("q", "k"))
    return q * module.head_dim**-0.5, k


def _half(values: Tensor, where: str) -> Tensor:
    half = values.detach().cpu().half()
    if not bool(half.isfinite().all()):
        raise RegardError(f"layer {where}: {NOT_FINITE}; there are no weights to show")
    return half


def _bars(logits: Tensor, class_names: Sequence[str], multi_label: bool) -> list[Bar]:
    probabilities = logits.sigmoid() if multi_label else logits.softmax(-1)
    best = probabilities.topk(min(BARS, len(probabilities)))
    names = [class_names[place] if place < len(class_names) else str(place) for place in best.indices.tolist()]
    return [Bar(name, value) for name, value in zip(names, best.values.tolist(), strict=True)]
