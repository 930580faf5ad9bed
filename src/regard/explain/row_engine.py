"""What chosen tokens take from every other, in every layer of any model, out of one forward pass.

The pass is the model's own: its fused kernels run, and its answer is the same to the bit. Beside each layer of
attention the rows that were asked for are computed from its inputs, with the keys a chunk at a time.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from regard.errors import NOT_FINITE, RegardError
from regard.explain.influence import influence, influence_error
from regard.explain.sites import Inputs, LayerChoice, Site, chosen_sites, evaluating, listening, numbers_of, sites
from regard.explain.tokens import parse_token, token_at, token_name
from regard.layers import Grid
from regard.mixers import Mixer
from regard.models import RecurrentSeq2Seq

MAX_BYTES = 2**30
# Influence is exact for a mixer's input of up to so many values; for a larger one it is estimated from random probes.
EXACT_UP_TO = 64 * 256
NUM_PROBES = 64

RowKind = Literal["matrix", "influence"]
OneQuery = int | str | tuple[int, int]
Queries = int | str | Sequence[OneQuery]


@dataclass(frozen=True)
class LayerRows:
    """Rows of one layer. `matrix`: of A in y_i = out(Σ_j A_ij value_j); `influence`: the norms ‖∂y_i/∂x_j‖."""

    name: str
    """`blocks.3`, `encoder.0`, `decoder.0`, `cross.0`."""
    number: int
    """The layer's place among all of the model's."""
    mixer: str
    kind: RowKind
    queries: tuple[int, ...]
    heads: tuple[int, ...]
    weights: Float[Tensor, "batch heads queries keys"]
    grid: Grid | None
    """How the keys lie on the image: a prefix, then patches. None for text, object queries and several maps."""
    shapes: tuple[tuple[int, int], ...] = ()
    """(rows, columns) of each map, where the keys are several maps one after the other."""
    error: float = 0.0
    """Relative standard error; 0 where the rows are exact."""

    @property
    def mean(self) -> Float[Tensor, "batch queries keys"]:
        """The mean over heads."""
        return self.weights.mean(1)


@dataclass(frozen=True)
class Rows(Sequence[LayerRows]):
    """The rows of some layers, in order of computation, and what the model answered in the same pass."""

    layers: tuple[LayerRows, ...]
    output: Any

    def __len__(self) -> int:
        return len(self.layers)

    def __iter__(self) -> Iterator[LayerRows]:
        return iter(self.layers)

    def __getitem__(self, layer: Any) -> Any:
        """By place among these layers, or by name."""
        if not isinstance(layer, str):
            return self.layers[layer]
        for one in self.layers:
            if one.name == layer:
                return one
        raise RegardError(f"layer {layer!r} is not among these rows: {', '.join(one.name for one in self.layers)}")

    @property
    def weights(self) -> Float[Tensor, "layers batch heads queries keys"]:
        """All layers as one tensor. RegardError where they differ in heads or tokens."""
        shapes = {tuple(one.weights.shape) for one in self.layers}
        if len(shapes) > 1:
            raise RegardError(f"rows: the layers differ in shape ({', '.join(map(str, sorted(shapes)))}); take rows[i]")
        return torch.stack([one.weights for one in self.layers])


def rows(
    model: nn.Module,
    images: Any,
    *,
    queries: Queries,
    layers: LayerChoice = None,
    heads: int | Sequence[int] | None = None,
    chunk: int | None = None,
    max_bytes: int = MAX_BYTES,
) -> Rows:
    """What the `queries` take from each token in the chosen layers, from one forward pass of the model as it is.

    images: (batch, channels, height, width), preprocessed, of any size that the model takes; or a list of images of
    one size. For a model with other inputs a tuple of them, or a mapping from their names: `(source, target)`.
    queries: numbers of tokens (the prefix comes first), "class", "ROW,COLUMN" of patches, or a list of these, in which
    (row, column) is a patch, too; or "all". Of a decoder, numbers of its queries. layers: numbers, names ("blocks.3",
    "cross.-1"), groups ("cross"), all unless given. heads: numbers, all unless given.
    chunk: keys that are computed at a time. max_bytes: what all rows together may take.

    Every mixer has rows: a matrix (attention, local, performer, none), or an influence (fourier, conv and mlp by
    formula; lstm by backward passes of that layer, estimated with its `error` where it is large). DETR, DN-DETR, the
    Transformer, SASA-ResNet and timm's ViTs have theirs. RegardError for any other model, for what is not there, for
    more than `max_bytes`, and where numbers are not finite.
    """
    if isinstance(model, RecurrentSeq2Seq):
        return _recurrent(model, arguments_of(images), queries, heads, max_bytes)
    chosen = chosen_sites(sites(model), layers)
    if chunk is not None and chunk < 1:
        raise RegardError(f"rows: chunk is {chunk}; it must be at least 1")
    found: dict[str, LayerRows] = {}
    later: list[tuple[Inputs, Tensor]] = []
    kept = 0

    def read(inputs: Inputs) -> None:
        nonlocal kept
        site = inputs.site
        which = query_numbers(queries, inputs)
        some = (
            None
            if heads is None or not site.is_matrix
            else numbers_of(heads, site.num_heads, "head").to(inputs.x.device)
        )
        count = site.num_heads if some is None else len(some)
        needed = _bytes(inputs, len(which), count)
        _require_room(inputs, len(which), count, needed, max(needed * len(chosen), kept + needed), max_bytes)
        kept += needed
        if site.mixer == "lstm":
            later.append((inputs, which))
            return
        weights = inputs.rows(which.to(inputs.x.device), some, chunk)
        names = tuple(range(count) if some is None else some.tolist())
        found[site.name] = _layer(inputs, which, names, weights)

    with torch.no_grad(), evaluating(model):
        with listening(model, chosen, read):
            positional, named = arguments_of(images)
            output = model(*positional, **named)
        for inputs, which in later:
            found[inputs.site.name] = _influence(inputs, which)
    return Rows(tuple(_finite(found[site.name]) for site in chosen if site.name in found), output)


def query_numbers(queries: Queries, inputs: Inputs) -> Tensor:
    """The numbers of some queries of a layer. RegardError for one that is not there."""
    count = inputs.num_queries
    if isinstance(queries, str) and queries == "all":
        return torch.arange(count)
    wanted: list[Any] = [queries] if isinstance(queries, int | str) else list(queries)
    if not wanted:
        raise RegardError("rows: no query is named; give numbers of tokens, or all")
    return torch.tensor([_query(query, inputs) for query in wanted])


def _query(query: Any, inputs: Inputs) -> int:
    grid, count, where = inputs.grid, inputs.num_queries, inputs.site.name
    on_grid = grid is not None and grid.num_tokens == count
    if isinstance(query, str | tuple):
        if not on_grid:
            raise RegardError(f"{where}: its {count} queries are no patches of an image; name them by number")
        assert grid is not None
        return parse_token(query, grid) if isinstance(query, str) else token_at(grid, *query)
    if not isinstance(query, int) or isinstance(query, bool):
        raise RegardError(f"rows: a query is a number, ROW,COLUMN or class, got {query!r}")
    if on_grid:
        assert grid is not None
        token_name(grid, query)
    elif not 0 <= query < count:
        raise RegardError(f"{where}: query {query} is not there: there are {count}, 0 to {count - 1}")
    return query


def _bytes(inputs: Inputs, num_queries: int, num_heads: int) -> int:
    width = max(inputs.x.element_size(), 4)
    return inputs.batch * num_heads * num_queries * inputs.num_keys * width


def _require_room(inputs: Inputs, num_queries: int, num_heads: int, needed: int, total: int, max_bytes: int) -> None:
    if total > max_bytes:
        raise RegardError(
            f"rows: {num_queries:,} queries × {inputs.num_keys:,} tokens in {num_heads} heads of {inputs.batch} images "
            f"take {needed:,} bytes a layer and {total:,} bytes in all, more than max_bytes = {max_bytes:,}; ask for "
            "fewer queries, heads or layers, or give a larger max_bytes"
        )


def _layer(inputs: Inputs, which: Tensor, heads: tuple[int, ...], weights: Tensor, error: float = 0.0) -> LayerRows:
    site = inputs.site
    kind: RowKind = "matrix" if site.is_matrix else "influence"
    chosen = tuple(which.tolist())
    return LayerRows(
        site.name, site.number, site.mixer, kind, chosen, heads, weights, inputs.grid, inputs.shapes, error
    )


def _influence(inputs: Inputs, which: Tensor) -> LayerRows:
    """Rows of a mixer that has no formula for them."""
    mixer = inputs.site.module
    assert isinstance(mixer, Mixer)
    num_probes = None if inputs.x.numel() <= EXACT_UP_TO else NUM_PROBES
    options = inputs.options("grid", "mask", "positions")
    weights = influence(mixer, inputs.x, tokens=which.tolist(), num_probes=num_probes, **options)
    error = 0.0 if num_probes is None else influence_error(num_probes)
    return _layer(inputs, which, (0,), weights[:, None], error)


def _recurrent(
    model: RecurrentSeq2Seq, arguments: tuple[tuple[Any, ...], dict[str, Any]], queries: Queries, heads: Any, most: int
) -> Rows:
    """The one attention of the recurrent model, by a second pass: it stands in no module of its own."""
    positional, named = arguments
    with torch.no_grad(), evaluating(model):
        output = model(*positional, **named)
        weights = model.cross_attention(*positional, **named)[:, 0]
    site = Site("cross.0", 0, model)
    numbers_of(heads, 1, "head")
    inputs = Inputs(site, (weights.new_empty(len(weights), weights.shape[2], 1),), {}, None, ())
    which = query_numbers(queries, inputs)
    chosen = LayerRows("cross.0", 0, "attention", "matrix", tuple(which.tolist()), (0,), weights[:, :, which], None)
    if math.prod(chosen.weights.shape) * 4 > most:
        raise RegardError(
            f"rows: they take {math.prod(chosen.weights.shape) * 4:,} bytes, more than max_bytes = {most:,}"
        )
    return Rows((_finite(chosen),), output)


def arguments_of(images: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What a model is called with, of images, a tuple of inputs, or a mapping from their names."""
    if isinstance(images, Mapping):
        return (), dict(images)
    if isinstance(images, tuple):
        return images, {}
    return (as_batch(images),), {}


def as_batch(images: Any) -> Tensor:
    """A batch as it is, or a list of images of one size as a batch. RegardError for images of several sizes."""
    if isinstance(images, Tensor):
        return images
    if not isinstance(images, Sequence) or not images or not all(isinstance(image, Tensor) for image in images):
        raise RegardError(
            f"images must be a tensor (batch, channels, height, width) or a list of images, got {images!r:.80}"
        )
    shapes = dict.fromkeys(tuple(image.shape) for image in images)
    if len(shapes) > 1:
        sizes = ", ".join(" × ".join(map(str, shape[-2:])) for shape in shapes)
        raise RegardError(f"images of several sizes, {sizes}: a batch has one; give them size by size, or resize them")
    return torch.stack(list(images))


def _finite(found: LayerRows) -> LayerRows:
    if not bool(found.weights.isfinite().all()):
        raise RegardError(f"layer {found.name}: {NOT_FINITE}; there are no weights to show")
    return found
