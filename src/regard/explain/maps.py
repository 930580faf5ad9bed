"""Maps by attention and by gradients: one forward pass, and one backward pass where the answer counts.

rows        what the head's query takes in one layer
rollout     r ← (r + r·Ā) / 2 through all layers (Abnar and Zuidema 2020); of no class in particular
relevance   r ← r + r·mean_h (dA_h ∘ A_h)⁺ (Chefer et al. 2021)
gradient, gradient × input, Grad-CAM (Selvaraju et al. 2017)
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from regard.errors import NOT_FINITE, RegardError
from regard.explain.carry import carried, mixed_by, require_matrix
from regard.explain.sites import Inputs, LayerChoice, Site, chosen_sites, evaluating, listening, sites
from regard.explain.target import Target
from regard.layers import Grid
from regard.models import ViT

Score = Callable[[Any], Float[Tensor, " batch"]]
# Cells along the longer side of an image, for a model without patches.
CELLS = 16


class Traced(NamedTuple):
    """What one forward pass, and perhaps one backward pass, left behind."""

    output: Any
    layers: list[Inputs]
    d_mixed: Mapping[str, Tensor]
    """The gradient before each layer's output projection, by the layer's name."""
    d_input: Mapping[str, Tensor]
    """The gradient of each layer's input."""
    d_images: Tensor | None


def traced(
    model: nn.Module, images: Tensor, chosen: list[Site], score: Score | None = None, *, inputs_too: bool = False
) -> Traced:
    """Runs the model once and keeps the chosen layers' inputs; with a score also its gradients, backwards once.

    `inputs_too` asks for the gradients of the layers' inputs.
    """
    kept: list[Inputs] = []
    mixed: dict[str, Tensor] = {}
    given: dict[str, Tensor] = {}

    def tell(inputs: Inputs) -> None:
        if inputs_too and inputs.x.requires_grad:
            given.setdefault(inputs.site.name, inputs.x)
        args = tuple(one.detach() if isinstance(one, Tensor) else one for one in inputs.args)
        kept.append(inputs._replace(args=args))

    def keep(name: str) -> Any:
        def hook(_: nn.Module, args: tuple[Any, ...], output: Any = None) -> None:
            passing = args[0] if output is None else output
            # A DETR's first self-attention does not depend on the image; its gradient is wanted all the same.
            mixed.setdefault(name, passing if passing.requires_grad else passing.requires_grad_())

        return hook

    handles = []
    for site in chosen if score is not None else []:
        module, is_input = mixed_by(site.module)
        register = module.register_forward_pre_hook if is_input else module.register_forward_hook
        handles.append(register(keep(site.name)))
    try:
        with evaluating(model), frozen(model), listening(model, chosen, tell):
            if score is None:
                with torch.no_grad():
                    return Traced(model(images), kept, {}, {}, None)
            with torch.enable_grad():
                x = images.detach().clone().requires_grad_()
                output = model(x)
                wanted = [x, *mixed.values(), *given.values()]
                found = torch.autograd.grad(score(output).sum(), wanted, allow_unused=True)
    finally:
        for handle in handles:
            handle.remove()
    gradients = [torch.zeros_like(one) if own is None else own for one, own in zip(wanted, found, strict=True)]
    ends = 1 + len(mixed)
    return Traced(
        output.detach() if isinstance(output, Tensor) else output,
        kept,
        dict(zip(mixed, gradients[1:ends], strict=True)),
        dict(zip(given, gradients[ends:], strict=True)),
        gradients[0],
    )


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """No parameter has a gradient meanwhile: a backward pass then costs half."""
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)


def head_query(model: nn.Module, grid: Grid) -> Float[Tensor, " tokens"]:
    """What the head reads, as weights of tokens that sum to one: class token, mean over patches, or both by halves.

    RegardError for a model whose head reads something else.
    """
    kind = str(model.config.pool if isinstance(model, ViT) else getattr(model, "global_pool", ""))
    weights = torch.zeros(grid.num_tokens, dtype=torch.float64)
    if kind in ("token", "token_avg", "distilled"):
        weights[0] = 1.0 if kind == "token" else 0.5
    if kind == "distilled":
        weights[1] = 0.5
    if kind in ("avg", "token_avg"):
        weights[grid.prefix :] = (1.0 if kind == "avg" else 0.5) / grid.num_patches
    if not bool(weights.any()):
        raise RegardError(
            f"explain: what the head of a {type(model).__name__} reads is not known; it is known of ViTs whose pool is "
            "token, avg, token_avg or distilled"
        )
    return weights


def rollout(model: nn.Module, images: Float[Tensor, "batch channels height width"]) -> tuple[Tensor, Grid]:
    """What the head's query takes from each token through all layers, (batch, tokens), which sums to one; and the grid.

    The product of (mean_h A_h + I) / 2 over the layers (Abnar and Zuidema 2020). It does not depend on a class.
    RegardError for a mixer without a mixing matrix.
    """
    return carried_rollout(model, traced(model, images, sites(model)))


def carried_rollout(model: nn.Module, trace: Traced) -> tuple[Tensor, Grid]:
    r, grid = _start(model, trace, "rollout")
    for inputs in reversed(trace.layers):
        r = (r + carried(inputs, r).mean(1)) / 2
    return _sound(r), grid


def relevance(
    model: nn.Module, images: Float[Tensor, "batch channels height width"], score: Score
) -> tuple[Tensor, Grid]:
    """What the head's query takes from each token for a score, (batch, tokens); and the grid.

    The product of I + mean_h (dA_h ∘ A_h)⁺ over the layers, dA being the score's gradient (Chefer et al. 2021, eq. 5
    and 6). `score` gives a number for each image from the model's output. RegardError as `rollout`.
    """
    return carried_relevance(model, traced(model, images, sites(model), score))


def carried_relevance(model: nn.Module, trace: Traced) -> tuple[Tensor, Grid]:
    r, grid = _start(model, trace, "relevance")
    for inputs in reversed(trace.layers):
        r = r + carried(inputs, r, trace.d_mixed[inputs.site.name]).mean(1)
    return _sound(r), grid


def _start(model: nn.Module, trace: Traced, method: str) -> tuple[Tensor, Grid]:
    """The head's query as a row for each image, and the grid. All layers must have a matrix."""
    for inputs in trace.layers:
        require_matrix(inputs, method)
    first = trace.layers[0]
    if first.grid is None or any(inputs.num_keys != first.num_keys for inputs in trace.layers):
        raise RegardError(f"{method}: the tokens of a {type(model).__name__} do not lie on one grid through all layers")
    r = head_query(model, first.grid).to(first.x.device, torch.promote_types(first.x.dtype, torch.float32))
    return r.expand(first.batch, -1), first.grid


def head_rows(model: nn.Module, trace: Traced, layer: int) -> tuple[Tensor, Grid]:
    """What the head's query takes from each token in one layer, (batch, heads, tokens)."""
    inputs = trace.layers[layer]
    require_matrix(inputs, "rows")
    if inputs.grid is None:
        raise RegardError(f"rows: the tokens of {inputs.site.name} do not lie on an image")
    r = head_query(model, inputs.grid).to(inputs.x.device, torch.promote_types(inputs.x.dtype, torch.float32))
    return _sound(carried(inputs, r.expand(inputs.batch, -1))), inputs.grid


def grid_of(model: nn.Module, images: Tensor) -> Grid:
    """The patches of these images; for a model without patches, cells of a sixteenth of the longer side."""
    height, width = images.shape[-2:]
    if isinstance(model, ViT):
        return model.patch_embed.grid(height, width, prefix=model.grid.prefix)
    patch: Any = getattr(getattr(model, "patch_embed", None), "patch_size", None)
    prefix: Any = getattr(model, "num_prefix_tokens", None)
    if isinstance(patch, tuple) and prefix is not None:
        return Grid(height // patch[0], width // patch[1], int(prefix))
    cell = -(-max(height, width) // CELLS)
    return Grid(-(-height // cell), -(-width // cell))


def on_grid(pixels: Float[Tensor, "batch height width"], grid: Grid) -> Float[Tensor, "batch rows columns"]:
    """The mean over each patch."""
    return F.adaptive_avg_pool2d(pixels[:, None], (grid.height, grid.width))[:, 0]


def gradient_map(trace: Traced, grid: Grid) -> Float[Tensor, "batch rows columns"]:
    """The size of the score's gradient, summed over channels (Simonyan et al. 2013)."""
    assert trace.d_images is not None
    return on_grid(_sound(trace.d_images.abs().sum(1)), grid)


def gradient_x_input_map(trace: Traced, images: Tensor, grid: Grid) -> Float[Tensor, "batch rows columns"]:
    """Gradient times normalised pixel, summed over channels: signed, 0 for the mean colour of the training images."""
    assert trace.d_images is not None
    return on_grid(_sound((trace.d_images * images).sum(1)), grid)


def grad_cam_map(
    model: nn.Module, images: Tensor, target: Target, layer: LayerChoice = None
) -> tuple[Float[Tensor, "batch rows columns"], str]:
    """(Σ_c α_c X_c)⁺, α_c the mean gradient of channel c over the grid (Selvaraju et al. 2017, eq. 1 and 2).

    X is the input of the last layer of attention, the last place where a class token has not yet taken what it reads;
    of a network of stages, its last feature map. Also the layer's name. RegardError for another model.
    """
    if hasattr(model, "stem") and hasattr(model, "blocks"):
        return _cam_of_features(model, images, target), "the last feature map"
    (site,) = chosen_sites(sites(model), -1 if layer is None else layer)
    trace = traced(model, images, [site], target.score, inputs_too=True)
    inputs = trace.layers[0]
    if inputs.grid is None or site.name not in trace.d_input:
        raise RegardError(f"grad_cam: the tokens of {site.name} do not lie on an image")
    _, x = inputs.grid.split(inputs.x)
    _, d_x = inputs.grid.split(_sound(trace.d_input[site.name]))
    return (d_x.mean((1, 2))[:, None, None] * x).sum(-1).relu(), site.name


def _cam_of_features(model: Any, images: Tensor, target: Target) -> Tensor:
    kept: list[Tensor] = []
    handle = model.blocks[-1].register_forward_hook(lambda _, __, output: kept.append(output))
    try:
        with evaluating(model), frozen(model), torch.enable_grad():
            score = target.score(model(images.detach().clone().requires_grad_())).sum()
            (gradient,) = torch.autograd.grad(score, kept[0])
    finally:
        handle.remove()
    return (_sound(gradient).mean((2, 3), keepdim=True) * kept[0].detach()).sum(1).relu()


def _sound(values: Tensor) -> Tensor:
    if not bool(values.isfinite().all()):
        raise RegardError(f"explain: {NOT_FINITE}; there is no map to show")
    return values
