"""Where a detector's queries sample its feature maps: the points of deformable attention, on the image."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from regard.errors import NOT_FINITE, RegardError
from regard.explain.row_engine import Queries, arguments_of, query_numbers
from regard.explain.sites import Inputs, LayerChoice, chosen_sites, evaluating, listening, numbers_of, sites
from regard.layers import DeformableAttention
from regard.models.hybrid_encoder import HybridEncoder


class SamplingPoints(NamedTuple):
    """The points of some queries in one layer of deformable attention."""

    name: str
    """`cross.0`."""
    queries: tuple[int, ...]
    heads: tuple[int, ...]
    strides: tuple[int, ...]
    """Pixels of the image for a token of each map."""
    xy: Float[Tensor, "batch heads queries levels points 2"]
    """In pixels of the images as given, from the upper left corner; a point may lie beyond the image."""
    weights: Float[Tensor, "batch heads queries levels points"]
    """They sum to one over the points of a head on all maps."""

    def of(self, query: int = 0, image: int = 0) -> Float[Tensor, "points 4"]:
        """x, y, weight and map (0 is the finest) of the points of one query, by its place in `queries`; head by head.

        Each head has the points of the first map, then those of the next.
        """
        xy, weights = self.xy[image, :, query], self.weights[image, :, query]
        level = torch.arange(weights.shape[1], device=xy.device, dtype=xy.dtype)[:, None].expand_as(weights)
        return torch.cat([xy, weights[..., None], level[..., None]], -1).flatten(0, 2).cpu()


def sampling_points(
    model: nn.Module,
    images: Any,
    *,
    queries: Queries,
    layers: LayerChoice = None,
    heads: int | Sequence[int] | None = None,
) -> tuple[SamplingPoints, ...]:
    """The points p_q + Δp_mlqk at which queries sample the maps, and their weights A_mlqk, from one forward pass.

    They are those of Deformable DETR (Zhu et al. 2021, eq. 2, over several maps eq. 3): for each head m and map l so
    many points k. Between the centres of four tokens the value is interpolated; outside the image, and in its padding,
    it is zero. A map's token covers as many pixels as its stride, so that a map may reach beyond the image.

    images: as `rows` takes them: (batch, channels, height, width), or (images, mask) with a mask of the real pixels.
    queries: numbers of the decoder's queries, or "all". layers: "cross.3", -1 and the like; all that are deformable
    unless given. RegardError for a model or layer without deformable attention, for what is not there, and where
    numbers are not finite.
    """
    known = sites(model)
    deformable = [site for site in known if isinstance(site.module, DeformableAttention)]
    strides = next((module.strides for module in model.modules() if isinstance(module, HybridEncoder)), None)
    if not deformable or strides is None:
        raise RegardError(f"points: a {type(model).__name__} has no deformable attention; its rows are there")
    chosen = deformable if layers is None else chosen_sites(known, layers)
    for site in chosen:
        if site not in deformable:
            names = f"{deformable[0].name} to {deformable[-1].name}"
            raise RegardError(f"points: {site.name} is no deformable attention; {names} are")
    found: dict[str, SamplingPoints] = {}

    def read(inputs: Inputs) -> None:
        which = query_numbers(queries, inputs)
        some = numbers_of(heads, inputs.site.module.num_heads, "head")  # type: ignore[arg-type]
        found[inputs.site.name] = _points(inputs, which, some, strides)

    positional, named = arguments_of(images)
    with torch.no_grad(), evaluating(model), listening(model, chosen, read):
        model(*positional, **named)
    return tuple(found[site.name] for site in chosen)


def _points(inputs: Inputs, queries: Tensor, heads: Tensor, strides: tuple[int, ...]) -> SamplingPoints:
    module: Any = inputs.site.module
    query, reference, _, shapes = inputs.args
    which, some = queries.to(query.device), heads.to(query.device)
    query, reference = query[:, which], reference[:, which]
    weights = module.weights(query)[:, some]
    xy = module.locations(query, reference, shapes)[:, some]
    # A location is a fraction of its map, which covers (columns, rows) · stride pixels.
    covered = [(columns * stride, rows * stride) for (rows, columns), stride in zip(shapes, strides, strict=True)]
    xy = xy * xy.new_tensor(covered)[:, None]
    if not bool(xy.isfinite().all() and weights.isfinite().all()):
        raise RegardError(f"layer {inputs.site.name}: {NOT_FINITE}; there are no points to show")
    name = inputs.site.name
    return SamplingPoints(name, tuple(queries.tolist()), tuple(heads.tolist()), strides, xy, weights)
