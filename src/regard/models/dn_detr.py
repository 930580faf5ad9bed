"""A DETR that learns from little: boxes as queries, chosen among the encoder's tokens, and denoising.

What it is made of, each part with a switch: queries that are boxes, refined layer by layer (DAB-DETR, Liu et al. 2022);
queries chosen from the encoder's tokens ("two-stage", Deformable DETR, Zhu et al. 2020, section 4.2); noised ground
truth as further queries in training (DN-DETR, Li et al. 2022; contrastive: DINO, Zhang et al. 2022); deformable
attention over several scales.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, Literal, NamedTuple

import torch
from annotated_types import Interval, MultipleOf
from jaxtyping import Bool, Float
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn

from regard.errors import RegardError
from regard.layers import Activation
from regard.models.backbone import create_backbone
from regard.models.box_decoder import BoxDecoder, BoxDecoderLayer, BoxDelta, Predictions, label_head
from regard.models.denoising_queries import DenoisingQueries, denoising_attention_mask, make_denoising_queries
from regard.models.detr import check_pixels
from regard.models.hybrid_encoder import HybridEncoder, Memory, matrix_weights


@dataclass(frozen=True)
class DNDETRConfig:
    """The arguments of `DNDETR`, which has their defaults; and what its scores are trained to be."""

    num_classes: PositiveInt = 80
    in_chans: PositiveInt = 3
    backbone: str = "resnet50"
    frozen_norm: bool = True
    strides: tuple[PositiveInt, ...] = (8, 16, 32)
    embed_dim: Annotated[PositiveInt, MultipleOf(4)] = 256
    num_heads: PositiveInt = 8
    depth: NonNegativeInt = 1
    decoder_depth: PositiveInt = 6
    mlp_ratio: PositiveFloat = 4.0
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    activation: Activation = "relu"
    num_queries: PositiveInt = 300
    mixer: str | tuple[str, ...] = "attention"
    mixer_options: Mapping[str, Any] | None = None
    box_queries: bool = True
    two_stage: bool = True
    num_denoising: NonNegativeInt = 100
    contrastive: bool = True
    cross_attention: Literal["deformable", "dense"] = "deformable"
    num_points: PositiveInt = 4
    label_loss: Literal["focal", "varifocal", "matchability"] = "matchability"


class Denoised(NamedTuple):
    """What every layer says of the noised queries, and what they were made of."""

    answers: Predictions
    noised: DenoisingQueries


class DNDETROutput(NamedTuple):
    """What every layer of the decoder says of the matched queries; the last layer's is the answer."""

    logits: Float[Tensor, "layers batch queries classes"]
    """A sigmoid of each is the score of a class; there is no "no object"."""
    boxes_cxcywh: Float[Tensor, "layers batch queries 4"]
    """(centre x, centre y, width, height), in [0, 1] of the image without its padding."""
    proposals: Predictions | None
    """What the encoder says of every token, as one layer; None without `two_stage`."""
    chosen_boxes: Float[Tensor, "batch queries 4"]
    """What the queries start from."""
    denoised: Denoised | None
    """In training, where objects are given, be there none of them."""


class DNDETR(nn.Module):
    """Features of several strides -> `HybridEncoder` -> queries that are boxes -> `BoxDecoder`.

    `backbone` is any of timm's with feature maps; one with a single map (`sasa_resnet50`, `dinov2_vits14`) serves where
    `strides` begin with its own. Levels coarser than it has are made. `mixer` takes the place of self-attention among
    the tokens of the coarsest map. `num_denoising` is the number of noised queries an image, 0 for none;
    half of them are negatives where it is `contrastive`.
    Raises RegardError for a backbone, a mixer or a combination that cannot serve.
    """

    scores = "sigmoid"
    """Of each class on its own."""

    def __init__(
        self,
        *,
        num_classes: int = 80,
        in_chans: int = 3,
        backbone: str = "resnet50",
        frozen_norm: bool = True,
        strides: Sequence[int] = (8, 16, 32),
        embed_dim: int = 256,
        num_heads: int = 8,
        depth: int = 1,
        decoder_depth: int = 6,
        mlp_ratio: float = 4.0,
        dropout: float = 0.0,
        activation: Activation = "relu",
        num_queries: int = 300,
        mixer: str | Sequence[str] = "attention",
        mixer_options: Mapping[str, Any] | None = None,
        box_queries: bool = True,
        two_stage: bool = True,
        num_denoising: int = 100,
        contrastive: bool = True,
        cross_attention: str = "deformable",
        num_points: int = 4,
        label_loss: str = "matchability",
    ) -> None:
        super().__init__()
        require_parts(box_queries=box_queries, two_stage=two_stage, num_denoising=num_denoising, strides=strides)
        self.num_classes, self.num_queries, self.num_denoising = num_classes, num_queries, num_denoising
        self.contrastive, self.label_loss = contrastive, label_loss
        self.backbone = create_backbone(backbone, in_chans=in_chans, frozen_norm=frozen_norm, reductions=tuple(strides))
        shared: dict[str, Any] = {"mlp_ratio": mlp_ratio, "dropout": dropout, "activation": activation}
        self.pyramid = HybridEncoder(
            self.backbone.level_chans,
            strides,
            embed_dim,
            num_heads,
            depth,
            mixer=mixer,
            mixer_options=mixer_options,
            with_positions=cross_attention == "dense",
            **shared,
        )
        layers = [
            BoxDecoderLayer(
                embed_dim,
                num_heads,
                cross_attention=cross_attention,
                num_levels=len(strides),
                num_points=num_points,
                **shared,
            )
            for _ in range(decoder_depth)
        ]
        self.decoder = BoxDecoder(layers, num_classes, refine=box_queries)
        if two_stage:
            self.propose = nn.Sequential(nn.Linear(embed_dim, embed_dim), nn.LayerNorm(embed_dim))
            self.proposed_labels = label_head(embed_dim, num_classes)
            self.proposed_boxes = BoxDelta(embed_dim)
        else:
            self.queries = nn.Embedding(num_queries, embed_dim)
            self.query_boxes = nn.Parameter(
                torch.cat([torch.rand(num_queries, 2), torch.full((num_queries, 2), 0.3)], 1).logit()
            )
        if not box_queries:
            self.query_positions = nn.Embedding(num_queries, embed_dim)
        if num_denoising:
            self.label_embedding = nn.Embedding(num_classes, embed_dim)

    @property
    def two_stage(self) -> bool:
        """Whether queries are chosen from the encoder's tokens, or learned."""
        return hasattr(self, "propose")

    def forward(
        self,
        images: Float[Tensor, "batch channels height width"],
        mask: Bool[Tensor, "batch height width"] | None = None,
        labels: Sequence[Tensor] | None = None,
        boxes_cxcywh: Sequence[Tensor] | None = None,
    ) -> DNDETROutput:
        """Normalised images; `mask` is True where a pixel is real: a rectangle from the upper left of each image.

        In training, `labels` and `boxes_cxcywh` of each image's objects are what the denoising queries are made of.
        RegardError for a mask of another shape, or an image without a real pixel.
        """
        check_pixels(images, mask)
        features = self.backbone.every_level(images)
        if mask is None:
            mask = torch.ones(1, 1, 1, dtype=torch.bool, device=images.device).expand(len(images), *images.shape[2:])
            padded = False
        else:
            padded = torch.compiler.is_compiling() or not bool(mask.all())
        sizes = torch.stack([mask.any(1).sum(1), mask.any(2).sum(1)], dim=1).float()
        noised = None
        if self.training and labels is not None and boxes_cxcywh is not None:
            noised = make_denoising_queries(
                labels, boxes_cxcywh, self.num_classes, self.num_denoising, contrastive=self.contrastive
            )
        return self.detect(features, sizes, padded=padded, noised=noised)

    def detect(
        self,
        features: Sequence[Tensor],
        sizes: Float[Tensor, "batch 2"],
        *,
        padded: bool = True,
        noised: DenoisingQueries | None = None,
    ) -> DNDETROutput:
        """All after the backbone; `sizes` are each image's own (width, height) in pixels, the rest is padding.

        What features of padding are makes no difference, nor what noised queries are to the answers of the matched.
        """
        memory = self.pyramid(features, sizes, padded=padded)
        x, boxes, proposals = self._chosen(memory, sizes) if self.two_stage else self._learned(memory)
        positions = None
        if not self.decoder.refine:
            positions = self.query_positions.weight[: x.shape[1]].expand(len(x), -1, -1)
        count, attn_mask, start = x.shape[1], None, boxes
        if noised is not None:
            x = torch.cat([x, self.label_embedding(noised.labels).to(x.dtype)], dim=1)
            start = torch.cat([boxes, noised.boxes_cxcywh], dim=1)
            attn_mask = denoising_attention_mask(noised, count)
        found = self.decoder(x, start, memory, positions=positions, attn_mask=attn_mask)
        denoised = None
        if noised is not None:
            denoised = Denoised(Predictions(*(part[:, :, count:] for part in found)), noised)
        matched = Predictions(*(part[:, :, :count] for part in found))
        return DNDETROutput(*matched, proposals=proposals, chosen_boxes=boxes, denoised=denoised)

    def _chosen(self, memory: Memory, sizes: Tensor) -> tuple[Tensor, Tensor, Predictions | None]:
        """What the queries hold and their boxes: those of the best tokens; and what the encoder says of every token.

        Nothing of padding is said to be an object, so that it scores least.
        """
        seen = self.propose(memory.tokens)
        logits = self.proposed_labels(seen)
        if memory.mask is not None:
            logits = logits.masked_fill(~memory.mask[..., None], NOTHING)
        boxes = self.proposed_boxes(seen, anchors(memory.shapes, self.pyramid.strides, sizes))
        best = logits.amax(-1).topk(min(self.num_queries, logits.shape[1]), dim=1).indices[..., None]
        x, start = (of_all.detach().take_along_dim(best, 1) for of_all in (seen, boxes))
        return x, start, Predictions(logits[None], boxes[None])

    def _learned(self, memory: Memory) -> tuple[Tensor, Tensor, Predictions | None]:
        """What the queries hold and their boxes, the same for every image."""
        batch = len(memory.tokens)
        x = self.queries.weight.to(memory.tokens.dtype).expand(batch, -1, -1)
        return x, self.query_boxes.sigmoid().expand(batch, -1, -1), None

    @property
    def gradient_checkpointing(self) -> bool:
        """Recompute each layer of encoder and decoder in the backward pass instead of keeping its activations."""
        return self.decoder.gradient_checkpointing

    @gradient_checkpointing.setter
    def gradient_checkpointing(self, on: bool) -> None:
        self.pyramid.encoder.gradient_checkpointing = self.decoder.gradient_checkpointing = on

    def flops(self, height: int, width: int) -> int:
        """Operations for one image of so many pixels: a multiply and an add are two; norms and softmax are left out."""
        shapes = [(-(-height // stride), -(-width // stride)) for stride in self.pyramid.strides]
        tokens = sum(rows * columns for rows, columns in shapes)
        total = self.backbone.flops(height, width) + self.pyramid.flops(shapes)
        total += self.decoder.flops(min(self.num_queries, tokens) if self.two_stage else self.num_queries, tokens)
        if self.two_stage:
            heads = (self.propose, self.proposed_labels, self.proposed_boxes)
            total += 2 * tokens * sum(map(matrix_weights, heads))
        return total


# The logit of a class that is not there.
NOTHING = -1e4
# Sides of the box that a token starts from: in strides of its map, and at most, in [0, 1] of the image. One as large as
# the image would be where a sigmoid is flat, so that its size would hardly learn.
ANCHOR, LARGEST = 4, 0.9


def anchors(
    shapes: Sequence[tuple[int, int]], strides: Sequence[int], sizes: Float[Tensor, "batch 2"]
) -> Float[Tensor, "batch tokens 4"]:
    """A box around each token, in [0, 1] of the image whose (width, height) in pixels `sizes` holds."""
    found = []
    for (rows, columns), stride in zip(shapes, strides, strict=True):
        y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        centres = (torch.stack([x, y], dim=-1).flatten(0, 1) + 0.5) * stride
        found.append(torch.cat([centres, torch.full_like(centres, ANCHOR * stride)], dim=1))
    centres, sides = (torch.cat(found).to(sizes.device) / sizes.repeat(1, 2)[:, None]).split(2, dim=-1)
    return torch.cat([centres, sides.clamp(max=LARGEST)], dim=-1)


def require_parts(*, box_queries: bool, two_stage: bool, num_denoising: int, strides: Sequence[int]) -> None:
    """RegardError for parts that do not work without each other, and strides that are no pyramid."""
    if not box_queries and (two_stage or num_denoising):
        raise RegardError(
            "model.box_queries is false; then model.two_stage must be false and model.num_denoising 0, since both "
            "give queries their boxes"
        )
    if not strides or any(coarse != 2 * fine for fine, coarse in pairwise(strides)):
        raise RegardError(f"model.strides is {tuple(strides)}; each must be twice the one before, as in [8, 16, 32]")
