"""How far each head looks, how widely, and how much of it class token and registers take, over some images."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from regard.errors import NOT_FINITE, RegardError
from regard.explain.carry import SOME_VALUES
from regard.explain.row_engine import as_batch
from regard.explain.sites import Inputs, LayerChoice, chosen_sites, evaluating, listening, sites
from regard.layers import Grid
from regard.models import ViT


@dataclass(frozen=True)
class HeadStatistics:
    """One layer's heads; each number is the mean over images and over the patches that look."""

    name: str
    mixer: str
    distance: Float[Tensor, " heads"]
    """The mean distance in pixels from a patch to the patches that it takes from, weighted by what it takes
    (Dosovitskiy et al. 2020, figure 7)."""
    entropy: Float[Tensor, " heads"]
    """In nats, of a patch's whole row: 0 looks at one token, log(tokens) at all alike."""
    prefix: Float[Tensor, " heads"]
    """The fraction that class token and registers take."""


def statistics(
    model: nn.Module, images: Float[Tensor, "batch channels height width"], *, layers: LayerChoice = None
) -> list[HeadStatistics]:
    """The statistics of each layer with a mixing matrix, in one forward pass; its rows exist some at a time.

    RegardError where no layer has a matrix over patches.
    """
    images = as_batch(images)
    chosen = [site for site in chosen_sites(sites(model), layers) if site.is_matrix]
    found: dict[str, HeadStatistics] = {}

    def read(inputs: Inputs) -> None:
        if inputs.grid is not None and inputs.num_queries == inputs.num_keys:
            found[inputs.site.name] = _of_layer(inputs, inputs.grid, images.shape[-2] / inputs.grid.height)

    with torch.no_grad(), evaluating(model), listening(model, chosen, read):
        model(images)
    if not found:
        raise RegardError(f"statistics: no layer of a {type(model).__name__} has a mixing matrix over patches")
    for one in found.values():
        if not bool(one.entropy.isfinite().all()):
            raise RegardError(f"layer {one.name}: {NOT_FINITE}")
    return list(found.values())


def position_similarity(model: nn.Module) -> Float[Tensor, "patches patches"]:
    """The cosine similarity of the position embeddings of any two patches of the built grid (ViT's figure 7).

    RegardError for a model without learned positions.
    """
    table: Any = getattr(getattr(model, "pos_embed", None), "table", None)
    if not isinstance(model, ViT) or table is None:
        raise RegardError(f"position_similarity: a {type(model).__name__} has no learned positions of patches")
    patches = F.normalize(table.detach()[0, model.grid.prefix :], dim=1)
    return patches @ patches.T


def _of_layer(inputs: Inputs, grid: Grid, pixels: float) -> HeadStatistics:
    """`pixels` is the side of a patch."""
    heads, tokens, device = inputs.site.num_heads, inputs.num_keys, inputs.x.device
    row = torch.arange(grid.height, device=device).repeat_interleave(grid.width)
    column = torch.arange(grid.width, device=device).repeat(grid.height)
    places = torch.stack([row, column], dim=1).double()
    sums = torch.zeros(3, heads, dtype=torch.float64, device=device)
    step = max(min(tokens // 4, SOME_VALUES // tokens) // (inputs.batch * heads), 1)
    for some in torch.arange(grid.num_patches, device=device).split(step):
        rows = inputs.rows(some + grid.prefix).double()
        patches = rows[..., grid.prefix :]
        apart = torch.cdist(places[some], places) * pixels
        distance = (patches * apart).sum(-1) / patches.sum(-1).clamp(min=1e-300)
        entropy = -torch.special.xlogy(rows, rows).sum(-1)
        for number, values in enumerate((distance, entropy, rows[..., : grid.prefix].sum(-1))):
            sums[number] += values.sum((0, 2))
    means = (sums / (inputs.batch * grid.num_patches)).cpu()
    return HeadStatistics(inputs.site.name, inputs.site.mixer, means[0], means[1], means[2])
