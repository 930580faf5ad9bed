"""The error of a performer's attention: how far it is from the softmax attention that it estimates."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from regard.errors import RegardError
from regard.mixers import HeadMixer, Performer
from regard.models import ViT
from regard.ops import attention_weights, favor_weights, orthogonal_projection

DRAWS = 4
"""The error for another number of features is the mean over so many random draws of features."""
MOST_FEATURES = 4096


@dataclass(frozen=True)
class FavorError:
    """The relative errors of one layer, ‖estimate - exact‖ / ‖exact‖, over all images and heads."""

    layer: int
    num_features: int
    matrix: float
    """The error of the attention matrix."""
    output: float
    """The error of the matrix times the values."""
    mean_of_values: float
    """The error of the mean of the values, which is no attention at all: a useful estimate has a smaller error."""
    features_needed: int | None
    """The number of features, a power of two, whose output has an error below the bound; None if 4096 are too few."""


@torch.no_grad()
def favor_error(
    model: nn.Module, images: Float[Tensor, "batch in_chans height width"], *, bound: float = 0.1, seed: int = 0
) -> list[FavorError]:
    """The error of each performer in a model on preprocessed images, against exact softmax attention.

    Layers with attention are measured too, as if they used 2 · head_dim softmax features. RegardError if there are
    neither, for performers with ReLU features, which estimate no softmax, and for a bound that is not above 0.
    """
    if not bound > 0:
        raise RegardError(f"favor_error: bound must be above 0, got {bound}")
    if not isinstance(model, ViT):
        raise RegardError(f"favor_error: {type(model).__name__} has no token mixers")
    able = [i for i, block in enumerate(model.blocks) if getattr(block.mixer, "name", "") in ("performer", "attention")]
    if not able:
        names = ", ".join(sorted({str(getattr(block.mixer, "name", "?")) for block in model.blocks}))
        raise RegardError(f"favor_error: no layer has performer or attention, but {names}")
    was_training = model.training
    trace = model.eval().intermediates(images, [f"blocks.{i}.mixer_input" for i in able])
    model.train(was_training)
    return [_of_layer(i, model.blocks[i].mixer, trace[f"blocks.{i}.mixer_input"], bound, seed) for i in able]


def _of_layer(layer: int, mixer: object, x: Tensor, bound: float, seed: int) -> FavorError:
    assert isinstance(mixer, HeadMixer)
    q, k, v = mixer.heads(x)
    exact = attention_weights(q, k)
    generator = torch.Generator().manual_seed(seed)
    kind = mixer.kind if isinstance(mixer, Performer) else "softmax_positive"
    if kind == "relu":
        raise RegardError(f"favor_error: the performer of layer {layer} has ReLU features, which estimate no softmax")

    def drawn(count: int) -> Tensor:
        return orthogonal_projection(count, q.shape[-1], generator).to(q)

    def estimate(projection: Tensor) -> Tensor:
        return favor_weights(q, k, projection=projection, kind=kind)

    def output_error(count: int) -> float:
        errors = [_relative(estimate(drawn(count)) @ v, exact @ v) for _ in range(DRAWS)]
        return math.sqrt(sum(error**2 for error in errors) / DRAWS)

    own = mixer.projection if isinstance(mixer, Performer) else drawn(2 * q.shape[-1])
    sizes: Sequence[int] = [2**power for power in range(3, MOST_FEATURES.bit_length())]
    return FavorError(
        layer=layer,
        num_features=len(own),
        matrix=_relative(estimate(own), exact),
        output=_relative(estimate(own) @ v, exact @ v),
        mean_of_values=_relative(v.mean(2, keepdim=True).expand_as(v), exact @ v),
        features_needed=next((size for size in sizes if output_error(size) < bound), None),
    )


def _relative(found: Tensor, exact: Tensor) -> float:
    return float((found - exact).norm() / exact.norm())
