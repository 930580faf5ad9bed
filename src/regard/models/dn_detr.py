"""DN-DETR: a DETR that learns from few images, with boxes as queries, two stages, and denoising.

Each part has a switch in the configuration: queries that are boxes, refined layer by layer (DAB-DETR, Liu et al. 2022);
queries chosen from the encoder's tokens ("two-stage", Deformable DETR, Zhu et al. 2020, section 4.2); denoising queries
in training (DN-DETR, Li et al. 2022; contrastive: DINO, Zhang et al. 2022); deformable attention over several scales.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, Literal, NamedTuple

import torch
from annotated_types import MultipleOf
from jaxtyping import Bool, Float
from torch import Tensor, nn

from regard.errors import RegardError
from regard.layers import Activation, Tap, first_input, layer_taps, record
from regard.models.backbone import create_backbone, vit_stride
from regard.models.bounds import Count, CountOrNone, Depth, DepthOrNone, Rate, Ratio, Strides, Width
from regard.models.box_decoder import BoxDecoder, BoxDecoderLayer, BoxDelta, Predictions, label_head
from regard.models.denoising_queries import DenoisingQueries, denoising_attention_mask, make_denoising_queries
from regard.models.detr import check_pixels
from regard.models.hybrid_encoder import HybridEncoder, Memory, matrix_weights


@dataclass(frozen=True)
class DNDETRConfig:
    """All that a DN-DETR is built from, and the loss of its labels."""

    num_classes: Count = 80
    in_chans: Width = 3
    backbone: str = "resnet50"
    """Any of timm's models that has feature maps; or a model with a single map (`sasa_resnet50`, `dinov2_vits14`), if
    one of `strides` is the stride of that map."""
    backbone_blocks: tuple[Count, ...] = ()
    """Blocks of a backbone that is a ViT, counted from 1, whose patches are joined; the last one alone unless given."""
    frozen_norm: bool = True
    """The backbone's batch norms are constants, as for pretrained weights."""
    strides: Strides = (8, 16, 32)
    """Pixels of the image for each pixel of a map, from the finest map on; each is twice the one before. Maps that are
    coarser than the backbone's coarsest are made from it, and maps that are finer than a ViT's only one from that."""
    embed_dim: Annotated[Width, MultipleOf(4)] = 256
    num_heads: Width = 8
    depth: DepthOrNone = 1
    """Encoder layers on the backbone's coarsest map."""
    decoder_depth: Depth = 6
    mlp_ratio: Ratio = 4.0
    dropout: Rate = 0.0
    activation: Activation = "relu"
    num_queries: Count = 300
    mixer: str | tuple[str, ...] = "attention"
    """In the place of the encoder's self-attention: any mixer that supports masks and positions."""
    mixer_options: Mapping[str, Any] | None = None
    """As ViT's."""
    box_queries: bool = True
    """A query is a box, which each layer of the decoder refines."""
    two_stage: bool = True
    """Queries are the encoder's tokens with the best scores; else they are learned."""
    num_denoising: CountOrNone = 100
    """The approximate number of denoising queries for each image in training; 0 for none."""
    contrastive: bool = True
    """Half of the denoising queries are negatives, whose target is no object."""
    cross_attention: Literal["deformable", "dense"] = "deformable"
    """How queries attend to the maps: to a few learned points around their boxes, or to all tokens."""
    num_points: Width = 4
    """Points on each map, for each head of deformable attention."""
    label_loss: Literal["focal", "varifocal", "matchability"] = "matchability"


class DenoisingOutput(NamedTuple):
    """The denoising queries, and the predictions of every decoder layer for them."""

    predictions: Predictions
    queries: DenoisingQueries


class DNDETROutput(NamedTuple):
    """The predictions of every decoder layer for the matched queries; the last layer's are the model's."""

    logits: Float[Tensor, "layers batch queries classes"]
    """A sigmoid of each is the score of a class; there is no "no object"."""
    boxes_cxcywh: Float[Tensor, "layers batch queries 4"]
    """(centre x, centre y, width, height), in [0, 1] of the image without its padding."""
    proposals: Predictions | None
    """The encoder's predictions for every token, as one layer; None without `two_stage`."""
    chosen_boxes: Float[Tensor, "batch queries 4"]
    """The boxes that the decoder starts from."""
    denoising: DenoisingOutput | None
    """Only in training, when the images' objects are given, even if there are none."""


class DNDETR(nn.Module):
    """Features of several strides -> `HybridEncoder` -> queries that are boxes -> `BoxDecoder`.

    RegardError for a backbone that does not fit, a mixer that does not support masks or positions, and parts that do
    not work without each other.
    """

    scores = "sigmoid"
    """The score of each class is a sigmoid of its own."""

    def __init__(self, config: DNDETRConfig) -> None:
        super().__init__()
        _check(config)
        self.config = config
        dim, strides, own = config.embed_dim, config.strides, vit_stride(config.backbone)
        finer = strides.index(own) if own in strides else 0
        self.backbone = create_backbone(
            config.backbone,
            in_chans=config.in_chans,
            frozen_norm=config.frozen_norm,
            reductions=strides[finer:],
            blocks=config.backbone_blocks,
        )
        of_both: dict[str, Any] = {key: getattr(config, key) for key in ("mlp_ratio", "dropout", "activation")}
        self.pyramid = HybridEncoder(
            self.backbone.level_chans,
            strides,
            dim,
            config.num_heads,
            config.depth,
            mixer=config.mixer,
            mixer_options=config.mixer_options,
            with_positions=config.cross_attention == "dense",
            finer=finer,
            **of_both,
        )
        layers = [
            BoxDecoderLayer(
                dim,
                config.num_heads,
                cross_attention=config.cross_attention,
                num_levels=len(strides),
                num_points=config.num_points,
                **of_both,
            )
            for _ in range(config.decoder_depth)
        ]
        self.decoder = BoxDecoder(layers, config.num_classes, refine=config.box_queries)
        if config.two_stage:
            self.propose = nn.Sequential(nn.Linear(dim, dim), nn.LayerNorm(dim))
            self.proposed_labels = label_head(dim, config.num_classes)
            self.proposed_boxes = BoxDelta(dim)
        else:
            count = config.num_queries
            self.queries = nn.Embedding(count, dim)
            self.query_boxes = nn.Parameter(torch.cat([torch.rand(count, 2), torch.full((count, 2), 0.3)], 1).logit())
        if not config.box_queries:
            self.query_positions = nn.Embedding(config.num_queries, dim)
        if config.num_denoising:
            self.label_embedding = nn.Embedding(config.num_classes, dim)

    def forward(
        self,
        images: Float[Tensor, "batch channels height width"],
        mask: Bool[Tensor, "batch height width"] | None = None,
        labels: Sequence[Tensor] | None = None,
        boxes_cxcywh: Sequence[Tensor] | None = None,
    ) -> DNDETROutput:
        """Normalised images; `mask` is True where a pixel is real: a rectangle from the upper left of each image.

        In training, denoising queries are made from the `labels` and `boxes_cxcywh` of each image's objects.
        RegardError for a mask of another shape, or an image without a real pixel.
        """
        check_pixels(images, mask)
        features = self.backbone.every_level(images)
        if mask is None:
            every = torch.ones(1, 1, 1, dtype=torch.bool, device=images.device)
            mask = every.expand(images.shape[0], *images.shape[2:])
            padded = False
        else:
            padded = torch.compiler.is_compiling() or not bool(mask.all())
        sizes = torch.stack([mask.any(1).sum(1), mask.any(2).sum(1)], dim=1).float()
        denoising = None
        if self.training and labels is not None and boxes_cxcywh is not None:
            denoising = self.denoising(labels, boxes_cxcywh)
        return self.detect(features, sizes, padded=padded, denoising=denoising)

    def denoising(self, labels: Sequence[Tensor], boxes_cxcywh: Sequence[Tensor]) -> DenoisingQueries | None:
        """The denoising queries of a training step, for the objects of each image; None for a model without."""
        return make_denoising_queries(
            labels,
            boxes_cxcywh,
            self.config.num_classes,
            self.config.num_denoising,
            contrastive=self.config.contrastive,
        )

    def detect(
        self,
        features: Sequence[Tensor],
        sizes: Float[Tensor, "batch 2"],
        *,
        padded: bool = True,
        denoising: DenoisingQueries | None = None,
    ) -> DNDETROutput:
        """The model after the backbone; `sizes` are each image's own (width, height) in pixels, the rest is padding.

        Features of padding change nothing, and denoising queries change no prediction of the matched queries.
        """
        memory = self.pyramid(features, sizes, padded=padded)
        x, boxes, proposals = self._chosen(memory, sizes) if self.config.two_stage else self._learned(memory)
        positions = None
        if not self.decoder.refine:
            positions = self.query_positions.weight[: x.shape[1]].expand(x.shape[0], -1, -1)
        count, attn_mask, start = x.shape[1], None, boxes
        if denoising is not None:
            x = torch.cat([x, self.label_embedding(denoising.labels).to(x.dtype)], dim=1)
            start = torch.cat([boxes, denoising.boxes_cxcywh], dim=1)
            attn_mask = denoising_attention_mask(denoising, count)
        predictions = self.decoder(x, start, memory, positions=positions, attn_mask=attn_mask)
        matched = Predictions(*(part[:, :, :count] for part in predictions))
        output = DNDETROutput(*matched, proposals=proposals, chosen_boxes=boxes, denoising=None)
        if denoising is None:
            return output
        others = Predictions(*(part[:, :, count:] for part in predictions))
        return output._replace(denoising=DenoisingOutput(others, denoising))

    def _chosen(self, memory: Memory, sizes: Tensor) -> tuple[Tensor, Tensor, Predictions | None]:
        """The contents and the boxes of the queries, from the tokens with the best scores; and all tokens' predictions.

        The logits of padding are so low that padding is chosen last.
        """
        tokens = self.propose(memory.tokens)
        logits = self.proposed_labels(tokens)
        if memory.mask is not None:
            logits = logits.masked_fill(~memory.mask[..., None], NOTHING)
        boxes = self.proposed_boxes(tokens, anchors(memory.shapes, self.pyramid.strides, sizes))
        best = logits.amax(-1).topk(min(self.config.num_queries, logits.shape[1]), dim=1).indices[..., None]
        # Not take_along_dim: it compares the sizes of the batch, and would make them a constant of an export.
        x, start = (of_all.detach().gather(1, best.expand(-1, -1, of_all.shape[2])) for of_all in (tokens, boxes))
        return x, start, Predictions(logits[None], boxes[None])

    def _learned(self, memory: Memory) -> tuple[Tensor, Tensor, Predictions | None]:
        """The contents and the boxes of learned queries, which are the same for every image."""
        batch = memory.tokens.shape[0]
        x = self.queries.weight.to(memory.tokens.dtype).expand(batch, -1, -1)
        return x, self.query_boxes.sigmoid().expand(batch, -1, -1), None

    def intermediate_names(self) -> list[str]:
        """The names that `intermediates` knows: layers in the order of computation, then the fields of the output."""
        return [*self._taps(), *self._result_names()]

    def intermediates(
        self,
        images: Float[Tensor, "batch channels height width"],
        mask: Bool[Tensor, "batch height width"] | None = None,
        names: Sequence[str] | None = None,
    ) -> dict[str, Tensor]:
        """The named intermediates of one forward pass without denoising (all of them unless `names` picks).

        RegardError for an unknown name, and as `forward`.
        """

        def results() -> list[Tensor]:
            output = self(images, mask)
            return [*(output.proposals or ()), output.chosen_boxes, output.logits, output.boxes_cxcywh]

        return record(self._taps(), self._result_names(), results, names)

    def _result_names(self) -> list[str]:
        proposals = [f"proposals.{name}" for name in Predictions._fields] if self.config.two_stage else []
        return [*proposals, "chosen_boxes", *Predictions._fields]

    def _taps(self) -> dict[str, Tap]:
        return {
            **{f"features.{level}": Tap(project, first_input) for level, project in enumerate(self.pyramid.project)},
            **self.pyramid.encoder.taps("pyramid.encoder"),
            "memory": Tap(self.pyramid, lambda _, memory: memory.tokens),
            "decoder.input": Tap(self.decoder, first_input),
            **layer_taps("decoder.layers", self.decoder.layers, inside=["attention", "cross"]),
        }

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
        total += self.decoder.flops(
            min(self.config.num_queries, tokens) if self.config.two_stage else self.config.num_queries, tokens
        )
        if self.config.two_stage:
            heads = (self.propose, self.proposed_labels, self.proposed_boxes)
            total += 2 * tokens * sum(map(matrix_weights, heads))
        return total


# The logit of every class where there is padding.
NOTHING = -1e4
# Sides of a token's anchor, in strides of its map; and their upper bound, in [0, 1] of the image. Near 1 a sigmoid is
# flat, so that the size would hardly learn.
ANCHOR, LARGEST = 4, 0.9


def anchors(
    shapes: Sequence[tuple[int, int]], strides: Sequence[int], sizes: Float[Tensor, "batch 2"]
) -> Float[Tensor, "batch tokens 4"]:
    """A box around each token, in [0, 1] of the image whose (width, height) in pixels `sizes` holds."""
    boxes = []
    for (rows, columns), stride in zip(shapes, strides, strict=True):
        y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        centres = (torch.stack([x, y], dim=-1).flatten(0, 1) + 0.5) * stride
        boxes.append(torch.cat([centres, torch.full_like(centres, ANCHOR * stride)], dim=1))
    centres, sides = (torch.cat(boxes).to(sizes.device) / sizes.repeat(1, 2)[:, None]).split(2, dim=-1)
    return torch.cat([centres, sides.clamp(max=LARGEST)], dim=-1)


def _check(config: DNDETRConfig) -> None:
    """RegardError for parts that do not work without each other, and for strides that do not double."""
    if not config.box_queries and (config.two_stage or config.num_denoising):
        raise RegardError(
            "model.box_queries is false; then model.two_stage must be false and model.num_denoising 0, since both "
            "give queries their boxes"
        )
    if not config.strides or any(coarse != 2 * fine for fine, coarse in pairwise(config.strides)):
        raise RegardError(f"model.strides is {config.strides}; each must be twice the one before, as in [8, 16, 32]")
