"""Does a map depend on what the model has learned? (Adebayo et al. 2018)"""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from regard.errors import RegardError
from regard.explain.explaining import explain
from regard.explain.target import ClassChoice, target_of

HEADS = ("head", "fc", "classifier", "head_dist")


@dataclass(frozen=True)
class Sanity:
    """The rank correlation of a map with that of the same model after some weights became random.

    A map that hardly changes (near 1) does not show what the model has learned there. Rollout never depends on the
    head: it is of no class.
    """

    head: float | None
    """None for a model without a head."""
    last_block: float
    """The head and the last block."""
    all: float


def sanity(
    model: nn.Module,
    image: Float[Tensor, "channels height width"],
    method: str = "relevance",
    *,
    target: ClassChoice = None,
    seed: int = 0,
) -> Sanity:
    """Maps of one image by one method, of the model and of copies with a random head, last block, and all weights.

    All are of the class that the whole model finds likeliest, unless `target` names one. A random weight is drawn with
    the mean and the deviation of its tensor. RegardError for a model without blocks.
    """
    blocks: Any = getattr(model, "blocks", None)
    if not isinstance(blocks, nn.ModuleList | nn.Sequential):
        raise RegardError(f"sanity: a {type(model).__name__} has no blocks that could be made random")
    with torch.no_grad():
        output = model(image[None])
    if target is None and getattr(model, "num_classes", None) != 0:
        target = target_of(model, output).labels[0]

    def found(other: nn.Module) -> Tensor:
        return explain(other, image, method=method, target=target, judge=False).map

    whole = found(model)

    def compared(*parts: str) -> float:
        changed = copy.deepcopy(model)
        generator = torch.Generator().manual_seed(seed)
        for part in parts:
            _make_random(changed.get_submodule(part) if part else changed, generator)
        return rank_correlation(whole, found(changed))

    heads = [name for name in HEADS if any(True for _ in getattr(model, name, nn.Identity()).parameters())]
    last = f"blocks.{len(blocks) - 1}"
    return Sanity(compared(*heads) if heads else None, compared(*heads, last), compared(""))


def rank_correlation(a: Tensor, b: Tensor) -> float:
    """Spearman's: the correlation of the ranks; 0 where one of the maps is the same everywhere."""
    from scipy.stats import rankdata

    ranks = [torch.from_numpy(rankdata(one.flatten().double().numpy())) for one in (a, b)]
    centred = [one - one.mean() for one in ranks]
    norms = centred[0].norm() * centred[1].norm()
    return float(centred[0] @ centred[1] / norms) if norms > 0 else 0.0


@torch.no_grad()
def _make_random(module: nn.Module, generator: torch.Generator) -> None:
    for parameter in module.parameters():
        values = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        spread = parameter.std(correction=0) if parameter.numel() > 1 else parameter.abs().sum()
        parameter.copy_(values.to(parameter) * spread + parameter.mean())
