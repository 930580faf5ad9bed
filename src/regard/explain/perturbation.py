"""Maps by many forward passes: occlusion, and integrated gradients through captum."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from regard.errors import RegardError
from regard.explain.faithfulness import BATCH
from regard.explain.maps import frozen, on_grid
from regard.explain.sites import evaluating
from regard.explain.target import Target
from regard.layers import Grid

MOST_CELLS = 256
INTEGRATED_STEPS = 32


@torch.no_grad()
def occlusion_map(
    model: nn.Module, image: Float[Tensor, "channels height width"], target: Target, grid: Grid
) -> tuple[Float[Tensor, "rows columns"], int]:
    """What the measure loses when a patch gets the image's mean colour (Zeiler and Fergus 2014); and the passes taken.

    A grid of more than `MOST_CELLS` patches is covered by squares of several.
    """
    square = 1
    while -(-grid.height // square) * -(-grid.width // square) > MOST_CELLS:
        square += 1
    rows, columns = -(-grid.height // square), -(-grid.width // square)
    cells = torch.eye(rows * columns).unflatten(1, (rows, columns))
    patches = cells.repeat_interleave(square, 1).repeat_interleave(square, 2)[:, : grid.height, : grid.width]
    fill = image.mean((1, 2), keepdim=True)
    values = []
    with evaluating(model):
        whole = target.measure(model(image[None]))
        for some in patches.split(BATCH):
            covered = F.interpolate(some[:, None].to(image), size=image.shape[1:], mode="nearest")
            values.append(target.measure(model(torch.where(covered > 0, fill, image))))
    lost = (whole - torch.cat(values)).unflatten(0, (rows, columns))
    spread = lost.repeat_interleave(square, 0).repeat_interleave(square, 1)
    return spread[: grid.height, : grid.width], len(patches) + 1


def integrated_gradients_map(
    model: nn.Module, image: Float[Tensor, "channels height width"], target: Target, grid: Grid
) -> Float[Tensor, "rows columns"]:
    """Gradients along the way from the mean colour to the image, times the way (Sundararajan et al. 2017): signed.

    RegardError where captum is not installed.
    """
    try:
        from captum.attr import IntegratedGradients  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        raise RegardError(
            "integrated-gradients: needs the package captum; `pip install captum` (or regard[explain]) brings it"
        ) from None

    def score(images: Tensor) -> Tensor:
        return target.score(model(images))

    with evaluating(model), frozen(model), torch.enable_grad():
        way: Any = IntegratedGradients(score, multiply_by_inputs=True)
        found = way.attribute(
            image[None], baselines=torch.zeros_like(image[None]), n_steps=INTEGRATED_STEPS, internal_batch_size=BATCH
        )
    return on_grid(found.detach().sum(1), grid)[0]
