"""DETR: a backbone, a Transformer and learned queries that find all objects at once (Carion et al. 2020)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import torch
import torch.nn.functional as F
from annotated_types import MultipleOf
from jaxtyping import Bool, Float
from torch import Tensor, nn

from regard.errors import RegardError
from regard.layers import Activation, Grid, NormPlace, Tap, record
from regard.models.backbone import create_backbone
from regard.models.bounds import Count, Depth, DepthOrNone, Rate, Ratio, Width
from regard.models.encoder_decoder import TransformerDecoder, TransformerEncoder
from regard.ops import masked_sine_positions


@dataclass(frozen=True)
class DETRConfig:
    """All that a DETR is built from; the defaults are the paper's (section 4)."""

    num_classes: Count = 91
    in_chans: Width = 3
    backbone: str = "resnet50"
    """Any of timm's models that has feature maps, a SASA-ResNet (`sasa_resnet50`) or a DINOv2 (`dinov2_vits14`)."""
    dilated: bool = False
    """The backbone's last stage dilates and keeps the resolution of the one before (DC5)."""
    frozen_norm: bool = True
    """The backbone's batch norms are constants, as for pretrained weights."""
    embed_dim: Annotated[Width, MultipleOf(4)] = 256
    num_heads: Width = 8
    depth: DepthOrNone = 6
    """Layers of the encoder."""
    decoder_depth: Depth = 6
    mlp_ratio: Ratio = 8.0
    dropout: Rate = 0.1
    norm: NormPlace = "post"
    activation: Activation = "relu"
    num_queries: Count = 100
    """The most objects that an image's predictions can hold."""
    mixer: str | tuple[str, ...] = "attention"
    """In the place of the encoder's self-attention, a name of MIXERS or one a layer: any mixer that supports masks and
    positions. `performer` and `local` cost linearly in the number of pixels."""
    mixer_options: Mapping[str, Any] | None = None
    """As ViT's."""


class DETROutput(NamedTuple):
    """The predictions of every decoder layer: the last layer's are the model's, the others' are trained as well."""

    logits: Float[Tensor, "layers batch queries classes"]
    """One for each class, and one for "no object", which comes last."""
    boxes_cxcywh: Float[Tensor, "layers batch queries 4"]
    """(centre x, centre y, width, height), in [0, 1] of the image without its padding."""


class BoxHead(nn.Module):
    """A box of each query: sigmoid of an MLP with three linear maps and ReLU between."""

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(embed_dim, out) for out in (embed_dim, embed_dim, 4))

    def forward(self, x: Float[Tensor, "*shape embed_dim"]) -> Float[Tensor, "*shape 4"]:
        first, second, last = self.layers
        return last(second(first(x).relu()).relu()).float().sigmoid()


class DETR(nn.Module):
    """Features of the backbone become the encoder's tokens, and queries read its output (section 3.2, figure 2).

    RegardError for a backbone that does not fit, and for a mixer that does not support masks or positions.
    """

    scores = "softmax"
    """The scores are a softmax over the classes and "no object", which comes last."""

    def __init__(self, config: DETRConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.embed_dim
        self.backbone = create_backbone(
            config.backbone, dilated=config.dilated, in_chans=config.in_chans, frozen_norm=config.frozen_norm
        )
        self.project = nn.Conv2d(self.backbone.out_chans, dim, kernel_size=1)
        of_both: dict[str, Any] = {key: getattr(config, key) for key in ("mlp_ratio", "norm", "activation", "dropout")}
        self.encoder = TransformerEncoder(
            dim, config.num_heads, config.depth, mixer=config.mixer, mixer_options=config.mixer_options, **of_both
        )
        self.decoder = TransformerDecoder(
            dim, config.num_heads, config.decoder_depth, causal=False, final_norm=True, **of_both
        )
        self.queries = nn.Embedding(config.num_queries, dim)
        self.label_head = nn.Linear(dim, config.num_classes + 1)
        self.box_head = BoxHead(dim)

    def forward(
        self,
        images: Float[Tensor, "batch channels height width"],
        mask: Bool[Tensor, "batch height width"] | None = None,
    ) -> DETROutput:
        """Normalised images; `mask` is True where a pixel is real and False where it is padding.

        RegardError for a mask of another shape, or an image without a real pixel.
        """
        check_pixels(images, mask)
        features = self.backbone(images)
        return self.detect(features, None if mask is None else shrink_mask(mask, features.shape[-2:]))

    def detect(
        self,
        features: Float[Tensor, "batch out_chans rows columns"],
        mask: Bool[Tensor, "batch rows columns"] | None = None,
    ) -> DETROutput:
        """The model after the backbone. Features where `mask` is False change nothing."""
        memory, positions, keys = self.encode(features, mask)
        queries = self.queries.weight.to(memory.dtype).expand(memory.shape[0], -1, -1)
        x = self.decoder.every_layer(
            torch.zeros_like(queries), memory, memory_mask=keys, positions=queries, memory_positions=positions
        )
        return DETROutput(self.label_head(x), self.box_head(x))

    def encode(
        self, features: Float[Tensor, "batch out_chans rows columns"], mask: Bool[Tensor, "batch rows columns"] | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """The encoder's output, (batch, tokens, embed_dim), the tokens' positions and which of them are real."""
        batch, _, rows, columns = features.shape
        real = torch.ones(batch, rows, columns, dtype=torch.bool, device=features.device) if mask is None else mask
        if mask is not None:
            features = features.masked_fill(~mask[:, None], 0.0)  # else one NaN in padding would spread everywhere
        x = self.project(features).flatten(2).transpose(1, 2)
        positions = masked_sine_positions(real, x.shape[-1]).to(x.dtype)
        keys = None if mask is None else mask.flatten(1)
        return self.encoder(x, mask=keys, positions=positions, grid=Grid(rows, columns)), positions, keys

    def intermediate_names(self) -> list[str]:
        """The names that `intermediates` knows, in the order of computation."""
        return [*self._taps(), *DETROutput._fields]

    def intermediates(
        self,
        images: Float[Tensor, "batch channels height width"],
        mask: Bool[Tensor, "batch height width"] | None = None,
        names: Sequence[str] | None = None,
    ) -> dict[str, Tensor]:
        """The named intermediates of one forward pass (all of them unless `names` picks).

        RegardError for an unknown name, and as `forward`.
        """
        return record(self._taps(), DETROutput._fields, lambda: self(images, mask), names)

    def _taps(self) -> dict[str, Tap]:
        return {"features": Tap(self.backbone), **self.encoder.taps("encoder"), **self.decoder.taps("decoder")}

    @property
    def gradient_checkpointing(self) -> bool:
        """Recompute each layer of encoder and decoder in the backward pass instead of keeping its activations."""
        return self.encoder.gradient_checkpointing

    @gradient_checkpointing.setter
    def gradient_checkpointing(self, on: bool) -> None:
        self.encoder.gradient_checkpointing = self.decoder.gradient_checkpointing = on

    def flops(self, height: int, width: int) -> int:
        """Operations for one image of so many pixels: a multiply and an add are two; norms and softmax are left out."""
        rows, columns = (-(-side // self.backbone.reduction) for side in (height, width))
        grid, num_queries = Grid(rows, columns), self.queries.num_embeddings
        heads = [self.label_head, *self.box_head.layers]
        predictions = len(self.decoder.layers) * num_queries * sum(layer.weight.numel() for layer in heads)
        return (
            self.backbone.flops(height, width)
            + 2 * grid.num_tokens * self.project.weight.numel()
            + sum(layer.flops(grid) for layer in self.encoder.layers)
            + self.decoder.flops(num_queries, grid.num_tokens)
            + 2 * predictions
        )


def shrink_mask(mask: Bool[Tensor, "batch height width"], size: Sequence[int]) -> Bool[Tensor, "batch rows columns"]:
    """The mask of the feature map: each of its pixels takes the value of the image's pixel nearest to it."""
    return F.interpolate(mask[:, None].float(), size=tuple(size))[:, 0].bool()


def check_pixels(images: Tensor, mask: Tensor | None) -> None:
    """RegardError where the mask has another shape than the images, or an image has no real pixel."""
    if mask is None:
        return
    wanted = (images.shape[0], *images.shape[2:])
    if mask.shape != wanted or mask.dtype != torch.bool:
        raise RegardError(
            f"DETR: the mask must be bool, True where a pixel is real, and of shape {wanted}; "
            f"got {mask.dtype} {tuple(mask.shape)}"
        )
    if torch.compiler.is_compiling() or mask.is_meta:
        return
    empty = (~mask.flatten(1).any(1)).nonzero().flatten().tolist()
    if empty:
        raise RegardError(f"DETR: image {empty[0]} of the batch has no real pixel")
