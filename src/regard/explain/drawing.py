"""The picture that `regard explain` draws of a classifier and an image."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, get_args

from jaxtyping import Float, UInt8
from torch import Tensor, nn

from regard.errors import RegardError, unknown
from regard.explain.local_layers import LocalLayer, local_layers, pick_layer
from regard.explain.local_pictures import embeddings_figure, windows_figure
from regard.explain.mixing import mixings
from regard.explain.mixing_pictures import mixing_figure
from regard.explain.tokens import parse_token, representative_tokens
from regard.models import ViT

if TYPE_CHECKING:
    from regard.draw.figure import Figure

PictureKind = Literal["matrix", "influence", "window", "embeddings"]


def model_figure(
    model: nn.Module,
    image: Float[Tensor, "in_chans height width"],
    seen: UInt8[Tensor, "channels height width"],
    *,
    layer: int | None = None,
    tokens: Sequence[str] | None = None,
    kind: PictureKind | None = None,
    title: str = "",
) -> "Figure":
    """What tokens take from each other in one layer of a model, or in all layers, for a preprocessed image.

    `seen` is the image before normalisation. `tokens` are "ROW,COLUMN" of patches, or "class"; for windows they are
    pixels on the grid of the first layer shown.
    kind: "matrix" and "influence" show the mixers of a ViT; "window" and "embeddings" show layers of local attention.
    Unless given, a ViT shows the matrix of each mixer that has one and the influence of the others; another model shows
    its windows. RegardError for a layer, token or kind that the model does not have.
    """
    if kind is not None and kind not in get_args(PictureKind):
        raise unknown("kind", kind, get_args(PictureKind), where="explain")
    if kind == "window" or kind == "embeddings":
        return _local_figure(_local_layers(model, image, layer), seen, tokens, kind, title)
    if isinstance(model, ViT):
        grid = model.patch_embed.grid(image.shape[1], image.shape[2], prefix=model.grid.prefix)
        chosen = [parse_token(text, grid) for text in tokens] if tokens else representative_tokens(seen, grid)
        layers = range(len(model.blocks)) if layer is None else [layer]
        found = mixings(model, image, layers=list(layers), tokens=chosen, kind=kind)
        return mixing_figure(seen, found, tokens=chosen, title=title)
    if kind is not None:
        raise RegardError(f"{type(model).__name__} has no token mixers; `{kind}` shows those of a ViT")
    return _local_figure(_local_layers(model, image, layer), seen, tokens, "window", title)


def _local_layers(model: nn.Module, image: Tensor, layer: int | None) -> list[LocalLayer]:
    layers = local_layers(model, image)
    return layers if layer is None else [pick_layer(layers, layer)]


def _local_figure(
    layers: Sequence[LocalLayer],
    seen: Tensor,
    tokens: Sequence[str] | None,
    kind: Literal["window", "embeddings"],
    title: str,
) -> "Figure":
    if kind == "embeddings":
        if tokens:
            raise RegardError("explain: embeddings belong to offsets, not to single tokens; leave the tokens out")
        return embeddings_figure(layers, title=title)
    queries = [_pixel(text, layers[0]) for text in tokens or ()]
    return windows_figure(seen, layers, queries=queries or None, title=title)


def _pixel(text: str, layer: LocalLayer) -> tuple[int, int]:
    if text == "class":
        raise RegardError("explain: a class token has no window, it sees all tokens; name a pixel as ROW,COLUMN")
    row, col = divmod(parse_token(text, layer.grid), layer.grid.width)
    return row, col
