"""What each layer of local attention in a model looks at, for one image."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from regard.errors import RegardError
from regard.layers import Grid, LocalAttention2d
from regard.mixers.local import Local
from regard.models import ViT
from regard.ops.local.windows import neighbours


@dataclass(frozen=True)
class LocalLayer:
    """One layer of local attention, with the queries and keys that an image gave it.

    The logits of pixel j for pixel i are (q_i·k_j + q_i·r_{j-i}) · scale (Ramachandran et al. 2019, eq. 3).
    """

    name: str
    number: int
    """Its number for `--layer`: that of its block, or the number of layers of local attention before it."""
    window: tuple[int, int]
    q: Float[Tensor, "heads height width head_dim"]
    k: Float[Tensor, "heads height width head_dim"]
    rel_rows: Float[Tensor, "row_offsets row_dim"]
    rel_cols: Float[Tensor, "col_offsets col_dim"]
    scale: float
    dilation: int = 1
    border: str = "clip"
    prefix_k: Float[Tensor, "heads prefix head_dim"] | None = None
    """Keys of class token and registers, which every pixel sees in addition to its window."""

    @property
    def grid(self) -> Grid:
        return Grid(*self.q.shape[1:3])


@dataclass(frozen=True)
class Window:
    """What one pixel looks at. The weights of each head sum to one over the window's pixels and the prefix."""

    rows: Int64[Tensor, " rows"]
    """The window's rows on the grid, and `cols` its columns; some may be beyond the border."""
    cols: Int64[Tensor, " cols"]
    there: Bool[Tensor, "rows cols"]
    """Whether the grid has this pixel."""
    weights: Float[Tensor, "heads rows cols"]
    """Zero where the grid has no pixel."""
    prefix: Float[Tensor, "heads prefix"]


def local_layers(model: nn.Module, image: Float[Tensor, "in_chans height width"]) -> list[LocalLayer]:
    """The layers of local attention of a model in order of computation, with the queries and keys of an image.

    `image` is preprocessed. RegardError if the model has no such layer.
    """
    with torch.no_grad():
        found = _of_vit(model, image) if isinstance(model, ViT) else _of_feature_maps(model, image)
    if not found:
        raise RegardError(f"{type(model).__name__} has no local attention to show")
    return found


def window_at(layer: LocalLayer, row: int, col: int) -> Window:
    """The window of pixel (row, col), computed by the definition. RegardError if the layer's grid has no such pixel."""
    grid = layer.grid
    if not (0 <= row < grid.height and 0 <= col < grid.width):
        raise RegardError(
            f"pixel ({row}, {col}) is not there: the grid of {layer.name} is {grid.height} × {grid.width}"
        )
    down = neighbours(grid.height, layer.window[0], layer.dilation, layer.border)
    right = neighbours(grid.width, layer.window[1], layer.dilation, layer.border)
    there = down.there[row][:, None] & right.there[col]
    q = layer.q[:, row, col]
    keys = layer.k[:, down.pixel[row]][:, :, right.pixel[col]]
    to_rows, to_cols = q.split([layer.rel_rows.shape[1], layer.rel_cols.shape[1]], dim=-1)
    logits = torch.einsum("hd,hrcd->hrc", q, keys)
    logits = logits + (to_rows @ layer.rel_rows[down.offset[row]].T)[:, :, None]
    logits = logits + (to_cols @ layer.rel_cols[right.offset[col]].T)[:, None, :]
    inside = logits.masked_fill(~there, -torch.inf).flatten(1)
    prefix_k = q.new_empty(len(q), 0, q.shape[1]) if layer.prefix_k is None else layer.prefix_k
    to_prefix = torch.einsum("hd,hpd->hp", q, prefix_k)
    softmax = (torch.cat([to_prefix, inside], dim=1) * layer.scale).softmax(-1)
    prefix, weights = softmax.split([prefix_k.shape[1], inside.shape[1]], dim=1)
    rows = _places(down.pixel[row], down.there[row], layer.dilation)
    cols = _places(right.pixel[col], right.there[col], layer.dilation)
    return Window(rows, cols, there, weights.unflatten(1, there.shape), prefix)


def positional_logits(layer: LocalLayer) -> Float[Tensor, "heads row_offsets col_offsets"]:
    """What the embeddings add to the logits at each offset: the mean of q·r · scale over all pixels' queries q."""
    mean = layer.q.mean((1, 2))
    to_rows, to_cols = mean.split([layer.rel_rows.shape[1], layer.rel_cols.shape[1]], dim=-1)
    return layer.scale * ((to_rows @ layer.rel_rows.T)[:, :, None] + (to_cols @ layer.rel_cols.T)[:, None, :])


def offsets(layer: LocalLayer) -> tuple[list[int], list[int]]:
    """The offsets in pixels: downwards for each row of `rel_rows`, to the right for each row of `rel_cols`."""

    def centred(count: int) -> list[int]:
        return [layer.dilation * (number - count // 2) for number in range(count)]

    return centred(len(layer.rel_rows)), centred(len(layer.rel_cols))


def pick_layer(layers: Sequence[LocalLayer], number: int) -> LocalLayer:
    """The layer of that number; -1 is the last. RegardError if there is no layer of local attention of that number."""
    if -len(layers) <= number < 0:
        return layers[number]
    for layer in layers:
        if layer.number == number:
            return layer
    known = ", ".join(str(layer.number) for layer in layers)
    raise RegardError(f"layer {number} is no layer of local attention; those are: {known} (-1 is the last)")


def _of_vit(model: ViT, image: Tensor) -> list[LocalLayer]:
    grid = model.patch_embed.grid(image.shape[1], image.shape[2], prefix=model.grid.prefix)
    mixers = {i: block.mixer for i, block in enumerate(model.blocks) if isinstance(block.mixer, Local)}
    names = {i: f"blocks.{i}.mixer_input" for i in mixers}
    inputs = model.intermediates(image.unsqueeze(0), list(names.values())) if mixers else {}
    found = []
    for number, mixer in mixers.items():
        q, k, _ = (part[0].float().cpu() for part in mixer.heads(inputs[names[number]]))
        lying = (grid.height, grid.width)
        found.append(
            LocalLayer(
                name=f"layer {number}",
                number=number,
                window=(mixer.window, mixer.window),
                q=q[:, grid.prefix :].unflatten(1, lying),
                k=k[:, grid.prefix :].unflatten(1, lying),
                rel_rows=mixer.rel_rows.detach().float().cpu(),
                rel_cols=mixer.rel_cols.detach().float().cpu(),
                scale=mixer.head_dim**-0.5,
                prefix_k=k[:, : grid.prefix] if grid.prefix else None,
            )
        )
    return found


def _of_feature_maps(model: nn.Module, image: Tensor) -> list[LocalLayer]:
    found: list[LocalLayer] = []

    def keep(name: str) -> Callable[[LocalAttention2d, tuple[Tensor, ...]], None]:
        return lambda layer, inputs: found.append(_of_feature_map(layer, inputs[0], name, len(found)))

    layers = {name: module for name, module in model.named_modules() if isinstance(module, LocalAttention2d)}
    hooks = [layer.register_forward_pre_hook(keep(name)) for name, layer in layers.items()]
    try:
        if layers:
            model(image.unsqueeze(0))
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _of_feature_map(layer: LocalAttention2d, x: Tensor, name: str, number: int) -> LocalLayer:
    q, k, _ = (part[0].float().cpu() for part in layer.heads(x))
    return LocalLayer(
        name=f"layer {number}: {name}",
        number=number,
        window=(layer.window, layer.window),
        q=q,
        k=k,
        rel_rows=layer.rel_rows.detach().float().cpu(),
        rel_cols=layer.rel_cols.detach().float().cpu(),
        scale=q.shape[-1] ** -0.5,
        dilation=layer.dilation,
        border=layer.border,
    )


def _places(pixel: Int64[Tensor, " window"], there: Bool[Tensor, " window"], dilation: int) -> Int64[Tensor, " window"]:
    """All positions of a window along an axis, computed from one that is on the grid."""
    known = int(there.int().argmax())  # there is one: the query itself
    return pixel[known] + dilation * (torch.arange(len(pixel)) - known)
