"""`explain`: a model, a preprocessed image and a method -> an `Explanation`, with its faithfulness."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from regard.errors import RegardError
from regard.explain.explanation import Explanation, Thumbnail
from regard.explain.faithfulness import Judge, blurred
from regard.explain.maps import (
    Traced,
    carried_relevance,
    carried_rollout,
    grad_cam_map,
    gradient_map,
    gradient_x_input_map,
    grid_of,
    head_query,
    head_rows,
    traced,
)
from regard.explain.methods import METHODS, method_named
from regard.explain.mixing import mixings
from regard.explain.perturbation import integrated_gradients_map, occlusion_map
from regard.explain.row_engine import rows
from regard.explain.sites import LayerChoice, Site, chosen_sites, evaluating, numbers_of, sites
from regard.explain.target import ClassChoice, Target, target_of
from regard.explain.tokens import parse_token, representative_tokens, token_name
from regard.layers import Grid
from regard.models import ViT


class Found(NamedTuple):
    """A map, and what it is of."""

    map: Tensor
    grid: Grid
    layer: str = ""
    query: str = ""
    head: int | None = None
    prefix_share: float = 0.0
    error: float = 0.0
    passes: str = ""
    layers: Sequence[Thumbnail] = ()
    heads: Sequence[Thumbnail] = ()
    unjudged: str = ""


def explain(
    model: nn.Module,
    image: Float[Tensor, "channels height width"],
    *,
    method: str | None = None,
    target: ClassChoice = None,
    layer: LayerChoice = None,
    head: int | None = None,
    token: int | str | None = None,
    seen: UInt8[Tensor, "channels height width"] | None = None,
    class_names: Sequence[str] = (),
    multi_label: bool = False,
    judge: Judge | bool = True,
    judged: Float[Tensor, "channels own_height own_width"] | None = None,
    title: str = "",
    stored_size: tuple[int, int] | None = None,
) -> Explanation:
    """What a model's answer for one image rests on.

    image: preprocessed, of any size that the model takes; `seen` is the same before normalisation, for pictures (made
    of `image` unless given).
    method: one of `METHODS` that give a map; unless given "rows", or "influence" where a layer has no mixing matrix.
    target: a class by number or name, the likeliest unless given. layer, head, token: of "rows" and "influence"; unless
    given the last layer, the mean over heads, and what the head reads (for influence the first representative token).
    judge: True judges the map on this image, or on `judged`, the same in the model's own size; or a `Judge`, which
    keeps what it measured for further maps; or False.

    A model without a head has no classes: its score is the cosine with the features of the whole image. There it is
    largest and has no gradient; so gradients are taken half-way between the image and its blurred copy.
    RegardError for what is not there, and for a method that does not serve the model.
    """
    name = method_named(method)
    if image.ndim != 3:
        raise RegardError(f"explain: give one image (channels, height, width), got {tuple(image.shape)}")
    if name in ("window", "embeddings"):
        raise RegardError(f"explain: {name} is a figure of local attention, no map; `regard.explain_image` draws it")
    if name in ("points", "queries"):
        raise RegardError(f"explain: {name} are of detectors; a {type(model).__name__} is none")
    name = name or _usual(model, layer)
    if name not in ("rows", "influence"):
        _require_none(name, token=token, head=head)
    if name not in ("rows", "influence", "grad-cam"):
        _require_none(name, layer=layer)
    with torch.no_grad(), evaluating(model):
        of_class = target_of(model, model(image[None]), target, class_names=class_names, multi_label=multi_label)
    found = _found(name, model, image, seen, of_class, layer, head, token)
    faithfulness = None
    if judge is not False and not found.unjudged:
        judge = _judge(model, image if judged is None else judged, of_class) if judge is True else judge
        faithfulness = judge(found.map)
    about = METHODS[name]
    return Explanation(
        found.map.detach().cpu(),
        found.grid,
        _picture(image) if seen is None else seen,
        name,
        found.layer,
        found.head,
        found.query,
        of_class.name if about.of_class else None,
        found.prefix_share,
        signed=about.signed,
        exact=not found.error,
        error=found.error,
        faithfulness=faithfulness,
        unjudged=found.unjudged or ("it was left out" if judge is False else ""),
        passes=found.passes,
        stored_size=stored_size,
        title=title,
        layers=found.layers,
        heads=found.heads,
    )


def _judge(model: nn.Module, image: Tensor, target: Target) -> Judge:
    """A judge of the same class. The features that should stay are those of the image in this size."""
    if target.reference is not None:
        with torch.no_grad(), evaluating(model):
            target = replace(target, reference=model(image[None]))
    return Judge(model, image, target)


def _usual(model: nn.Module, layer: LayerChoice) -> str:
    """rows where the layer has a matrix, influence where a mixer has none; of a model that is no ViT gradients."""
    if not _reads_tokens(model):
        return "gradient-x-input"
    (first, *_) = chosen_sites(sites(model), -1 if layer is None else layer)
    return "rows" if first.is_matrix else "influence"


def _found(
    name: str,
    model: nn.Module,
    image: Tensor,
    seen: Tensor | None,
    target: Target,
    layer: LayerChoice,
    head: int | None,
    token: int | str | None,
) -> Found:
    images, grid = image[None], grid_of(model, image[None])
    if name in ("rows", "influence"):
        if not _reads_tokens(model):
            raise RegardError(
                f"{name}: is of ViTs; `regard.explain.rows` reads the attention of a {type(model).__name__}, and the "
                "method window draws that of a SASA-ResNet"
            )
        if name == "influence" or token is not None:
            return _of_a_token(name, model, image, seen, layer, head, token)
        return _of_the_head(model, images, layer, head)
    if name == "rollout":
        r, on = carried_rollout(model, traced(model, images, sites(model)))
        return _of_row(r[0], on, "all", _reads(model, on), passes="1 forward pass")
    at = images if target.reference is None else (images + blurred(image)[None]) / 2
    if name == "relevance":
        r, on = carried_relevance(model, traced(model, at, sites(model), target.score))
        return _of_row(r[0], on, "all", _reads(model, on), passes="1 forward pass and 1 backward pass")
    both = "1 forward pass and 1 backward pass"
    if name == "gradient":
        return Found(gradient_map(_gradients(model, at, target), grid)[0], grid, passes=both)
    if name == "gradient-x-input":
        return Found(gradient_x_input_map(_gradients(model, at, target), images, grid)[0], grid, passes=both)
    if name == "grad-cam":
        cam, where = grad_cam_map(model, at, target, layer)
        return Found(cam[0], Grid(cam.shape[1], cam.shape[2]), where, passes=both)
    if name == "occlusion":
        lost, passes = occlusion_map(model, image, target, grid)
        return Found(lost, grid, passes=f"{passes} forward passes")
    integrated = integrated_gradients_map(model, image, target, grid)
    return Found(integrated, grid, passes="32 forward and backward passes")


def _gradients(model: nn.Module, images: Tensor, target: Target) -> Traced:
    return traced(model, images, [], target.score)


def _of_row(r: Tensor, grid: Grid, layer: str, query: str, **more: Any) -> Found:
    """A row over all tokens as a map of the patches, and the share of the prefix."""
    share = (r[: grid.prefix].sum() / r.sum()).item() if grid.prefix and bool(r.sum() > 0) else 0.0
    return Found(_patches(r, grid), grid, layer, query, prefix_share=share, **more)


def _patches(r: Tensor, grid: Grid) -> Tensor:
    return r[grid.prefix :].unflatten(0, (grid.height, grid.width))


def _reads_tokens(model: nn.Module) -> bool:
    """Whether it is known which tokens the head reads."""
    try:
        return bool(head_query(model, Grid(1, 1, 9)).any())
    except RegardError:
        return False


def _reads(model: nn.Module, grid: Grid) -> str:
    weights = head_query(model, grid)
    parts = [token_name(grid, number) for number in range(grid.prefix) if weights[number] > 0]
    if bool(weights[grid.prefix :].any()):
        parts.append("mean over patches")
    return " and ".join(parts)


def _of_the_head(model: nn.Module, images: Tensor, layer: LayerChoice, head: int | None) -> Found:
    """What the head's query takes in one layer; all layers and its heads as thumbnails."""
    known = sites(model)
    (site, *_) = chosen_sites(known, -1 if layer is None else layer)
    trace = traced(model, images, [one for one in known if one.is_matrix or one is site] if layer is None else [site])
    place = next(number for number, inputs in enumerate(trace.layers) if inputs.site == site)
    heads, grid = head_rows(model, trace, place)
    heads = heads[0]
    query = _reads(model, grid)
    if head is not None:
        head = int(numbers_of(head, len(heads), "head")[0])
    layers = []
    if layer is None and len(trace.layers) > 1:
        for number, inputs in enumerate(trace.layers):
            own = heads if number == place else head_rows(model, trace, number)[0][0]
            layers.append(Thumbnail(_layer_name(inputs.site), _patches(own.mean(0), grid)))
    small = [Thumbnail(f"head {number}", _patches(one, grid)) for number, one in enumerate(heads)]
    row = heads.mean(0) if head is None else heads[head]
    return _of_row(
        row,
        grid,
        _layer_name(site),
        query,
        head=head,
        passes="1 forward pass",
        layers=layers,
        heads=small if len(small) > 1 else (),
    )


def _layer_name(site: Site) -> str:
    group, _, number = site.name.rpartition(".")
    return f"layer {number}" if group == "blocks" and number.isdigit() else site.name


def _of_a_token(
    name: str,
    model: nn.Module,
    image: Tensor,
    seen: Tensor | None,
    layer: LayerChoice,
    head: int | None,
    token: int | str | None,
) -> Found:
    """What one token takes, or depends on, in one layer."""
    grid = grid_of(model, image[None])
    known = sites(model)
    (site, *_) = chosen_sites(known, -1 if layer is None else layer)
    number = _token_number(token, grid)
    if number is None:
        number = representative_tokens(_picture(image) if seen is None else seen, grid)[0]
    shown = known if layer is None else [site]
    if name == "influence":
        if not isinstance(model, ViT):
            raise RegardError(f"influence: is of the mixers of a ViT; a {type(model).__name__} has rows")
        if head is not None:
            raise RegardError(f"{site.mixer}: influence is of a mixer as a whole; it cannot be shown head by head")
        found = mixings(model, image, layers=[one.number for one in shown], tokens=[number], kind="influence")
        maps = {one.layer: one.weights[0] for one in found}
        error = max(one.error for one in found)
        row, layers = maps[site.number], [Thumbnail(f"layer {key}", _patches(one, grid)) for key, one in maps.items()]
        small: Sequence[Thumbnail] = ()
    else:
        if not site.is_matrix:
            raise RegardError(f"{site.mixer}: has no mixing matrix; ask for its influence")
        given = rows(model, image[None], queries=[number], layers=[one.number for one in shown])
        own = given[site.name]
        if own.grid is None:
            raise RegardError(f"rows: the tokens of {site.name} do not lie on an image")
        grid, error = own.grid, own.error
        heads = own.weights[0, :, 0]
        if head is not None:
            head = int(numbers_of(head, len(heads), "head")[0])
        row = heads.mean(0) if head is None else heads[head]
        alike = [one for one in given if one.grid == grid and one.kind == "matrix"]
        layers = [Thumbnail(_layer_name(known[one.number]), _patches(one.mean[0, 0], grid)) for one in alike]
        small = [Thumbnail(f"head {i}", _patches(one, grid)) for i, one in enumerate(heads)] if len(heads) > 1 else ()
    read = name == "rows" and bool(head_query(model, grid)[number] == 1)
    who = token_name(grid, number)
    what = "takes" if name == "rows" else "depends on in a layer"
    return _of_row(
        row,
        grid,
        _layer_name(site),
        who,
        head=head,
        error=error,
        passes="1 forward pass",
        layers=layers if len(layers) > 1 else (),
        heads=small,
        unjudged="" if read else f"what the {who} {what} is not what the answer rests on",
    )


def _token_number(token: int | str | None, grid: Grid) -> int | None:
    if token is None:
        return None
    if isinstance(token, str):
        return parse_token(token, grid)
    token_name(grid, token)
    return token


def _require_none(method: str, **given: object) -> None:
    for name, value in given.items():
        if value is not None:
            raise RegardError(
                f"{method}: takes no {name}; that is for rows{' and influence' if name != 'head' else ''}"
            )


def _picture(image: Tensor) -> UInt8[Tensor, "channels height width"]:
    """An image of any normalisation as a picture, from its darkest to its lightest value."""
    low, high = image.min(), image.max()
    shown = (image - low) / (high - low).clamp(min=1e-12) * 255
    shown = shown.round().byte().cpu()
    return shown if shown.shape[0] in (1, 3) else shown[:1]
