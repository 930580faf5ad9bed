"""A student and what it is held to: a frozen teacher's features, or those of its own moving average."""

import copy
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from regard.models.image_model import ImageModel
from regard.models.masked import encoded
from regard.models.vit import ViT
from regard.ops import hidden_patches


class Features(NamedTuple):
    """What a model makes of images: what its head reads, the pixels of its last map, and its logits if it has any."""

    pooled: Float[Tensor, "batch num_features"]
    pixels: Float[Tensor, "batch channels rows columns"]
    logits: Float[Tensor, "batch num_classes"] | None = None


def features_of(
    model: ImageModel,
    images: Float[Tensor, "batch in_chans height width"],
    size: tuple[int, int] | None = None,
    block: int | None = None,
) -> Features:
    """The features of a model, with its map averaged down to at most `size` (rows, columns).

    block: of a ViT, from 1: the tokens after it, in the place of those after the last norm; then `pooled` is the class
    token, or the mean of the patches where there is none.
    """
    if block is None:
        features = model.forward_features(images)
        pooled = model.forward_head(features, pre_logits=True)
    else:
        assert isinstance(model, ViT)
        name = f"blocks.{block - 1}"
        found = model.intermediates(images, [name, "features"]) if model.num_classes else {}
        tokens = found[name] if found else model.after_blocks(images, [block - 1])[0]
        pooled = tokens[:, 0] if hasattr(model, "cls_token") else tokens[:, model.grid.prefix :].mean(1)
        features = found.get("features", tokens)
    pixels = model.pixels_of(features if block is None else tokens, images)
    logits = model.forward_head(features) if model.num_classes else None
    return Features(pooled, pixels if size is None else averaged(pixels, size), logits)


def averaged(
    pixels: Float[Tensor, "batch channels rows columns"], size: tuple[int, int]
) -> Float[Tensor, "batch channels fewer_rows fewer_columns"]:
    """A map of at most `size` (rows, columns), by the means of its parts."""
    smaller = (min(pixels.shape[2], size[0]), min(pixels.shape[3], size[1]))
    return pixels if smaller == pixels.shape[2:] else F.adaptive_avg_pool2d(pixels, smaller)


class Student(nn.Module):
    """A model that learns, with a linear map from its features to each kind of a teacher's.

    grid: (rows, columns) of the teacher's map. Where its grid and the student's differ, both are averaged down to the
    coarser one. The teacher's mean and standard deviation of each channel are kept with it: `standardise` sets them.
    """

    def __init__(self, model: ImageModel, num_features: int, num_channels: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.model, self.grid = model, grid
        self.pooled = nn.Linear(model.num_features, num_features)
        self.pixels = nn.Linear(model.feature_info[-1]["num_chs"], num_channels)
        for part in (self.pooled, self.pixels):
            part.apply(model.init_weights)
        for name, channels in (("pooled", num_features), ("pixels", num_channels)):
            self.register_buffer(f"{name}_mean", torch.zeros(channels))
            self.register_buffer(f"{name}_std", torch.ones(channels))

    def standardise(self, pooled: Float[Tensor, "images features"], pixels: Float[Tensor, "places channels"]) -> None:
        """Takes mean and deviation from a teacher's features of many images."""
        for name, values in (("pooled", pooled), ("pixels", pixels)):
            self.get_buffer(f"{name}_mean").copy_(values.float().mean(0))
            self.get_buffer(f"{name}_std").copy_(values.float().std(0, correction=0))

    def standardised(self, theirs: Features) -> Features:
        """A teacher's features, with a mean of 0 and a deviation of 1 in each channel. One that never varies is 0."""
        return Features(
            self._scaled("pooled", theirs.pooled, 1), self._scaled("pixels", theirs.pixels, 3), theirs.logits
        )

    def _scaled(self, name: str, values: Tensor, dims: int) -> Tensor:
        shape = (-1, *(1,) * (dims - 1))
        mean, std = (self.get_buffer(f"{name}_{kind}").view(shape) for kind in ("mean", "std"))
        return (values - mean) / torch.where(std > 0, std, 1.0)

    def forward(self, images: Float[Tensor, "batch in_chans height width"]) -> Features:
        """The teacher's features as the student expects them, standardised; its own logits if it has any."""
        own = features_of(self.model, images, self.grid)
        pixels = self.pixels(own.pixels.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return Features(self.pooled(own.pooled), pixels, own.logits)


class SelfDistilled(nn.Module):
    """A ViT that sees a part of each image, and is held to what its own moving average sees in the whole of it.

    The target of a patch is the mean of the last `layers` blocks' outputs, each normalised over its channels, and the
    teacher's weights are m t + (1 - m) s after each step (data2vec, Baevski et al. 2022, section 3.3).
    """

    def __init__(self, vit: ViT, *, mask_ratio: float, momentum: float) -> None:
        super().__init__()
        self.vit, self.mask_ratio, self.momentum = vit, mask_ratio, momentum
        self.teacher = copy.deepcopy(vit).requires_grad_(False)
        self.layers = max(vit.config.depth // 2, 1)
        self.mask_token = nn.Parameter(torch.empty(1, 1, vit.config.embed_dim))
        nn.init.normal_(self.mask_token, std=0.02)
        self.predictor = nn.Linear(vit.config.embed_dim, vit.config.embed_dim)
        self.predictor.apply(vit.init_weights)

    def forward(
        self, images: Float[Tensor, "batch in_chans height width"], order: Int64[Tensor, "batch patches"]
    ) -> tuple[Float[Tensor, "hidden embed_dim"], Float[Tensor, "hidden embed_dim"]]:
        """What the student expects of the hidden patches, and what the teacher sees there."""
        _, hidden = hidden_patches(order, self.mask_ratio)
        tokens, grid = encoded(self.vit, images, hidden, self.mask_token)
        return self.predictor(tokens[:, grid.prefix :][hidden]), self._seen(images, grid.prefix)[hidden]

    @torch.no_grad()
    def _seen(self, images: Tensor, prefix: int) -> Float[Tensor, "batch patches embed_dim"]:
        self.teacher.eval()
        depth = self.teacher.config.depth
        outputs = self.teacher.after_blocks(images, range(depth - self.layers, depth))
        return torch.stack([F.layer_norm(x[:, prefix:], x.shape[-1:]) for x in outputs]).mean(0)

    @torch.no_grad()
    def follow(self) -> None:
        """Moves the teacher towards the student by a step of the moving average."""
        torch._foreach_lerp_(list(self.teacher.parameters()), list(self.vit.parameters()), 1 - self.momentum)
