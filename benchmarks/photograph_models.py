"""The detectors of other libraries that `photographs.py` measures, all behind one face.

A detector takes a list of images (or of feature maps), each (channels, height, width) of its own size, and boxes as
fractions of their sides: `loss(images, labels, boxes_cxcywh)`, and `detect(images)`, which gives for each image
(boxes_xyxy in fractions, labels, scores) after suppression.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN, ssdlite320_mobilenet_v3_large
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign, batched_nms
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from regard.data import pad
from regard.losses import xyxy_of
from regard.models.backbone import create_body
from regard.weights.catalogue import find_pretrained

LITE0 = "tf_efficientnet_lite0"
Found = tuple[Tensor, Tensor, Tensor]
IOU = 0.7  # suppression of RT-DETR's boxes, which by itself has none
WIDTH = 128  # channels of the pyramids
VIRTUAL = 16  # pixels of a token as torchvision counts them: it rounds strides to powers of two


class SquareRTDETR(nn.Module):
    """transformers' RT-DETR on images that are brought to one square, as its authors do."""

    def __init__(self, num_classes: int, side: int, num_queries: int, *, lite0: bool) -> None:
        super().__init__()
        import transformers

        from detection_small import rt_detr

        transformers.logging.set_verbosity_error()
        self.num_classes, self.side, self.lite0 = num_classes, side, lite0
        self.detector = rt_detr(num_classes, num_queries=num_queries, lite0=lite0)
        if lite0:
            load_lite0(self.backbone)

    @property
    def backbone(self) -> nn.Module:
        found = self.detector.body.model.backbone.model
        return found._backbone if self.lite0 else found

    def train(self, mode: bool = True) -> "SquareRTDETR":
        super().train(mode)
        if self.lite0:
            keep_norms(self.backbone)
        return self

    def loss(self, images: Sequence[Tensor], labels: Sequence[Tensor], boxes: Sequence[Tensor]) -> Tensor:
        return self.detector.loss(self._square(images), labels, boxes)

    def detect(self, images: Sequence[Tensor], iou: float | None = IOU) -> list[Found]:
        logits, boxes = self.detector(self._square(images))
        found = []
        for score, box in zip(logits[-1].float().sigmoid(), boxes[-1].float(), strict=True):
            best, place = score.flatten().topk(min(100, score.numel()))
            corners, label = xyxy_of(box)[place // self.num_classes], place % self.num_classes
            kept = slice(None) if iou is None else batched_nms(corners, best, label, iou)
            found.append((corners[kept], label[kept], best[kept]))
        return found

    def _square(self, images: Sequence[Tensor]) -> Tensor:
        size = (self.side, self.side)
        return torch.cat([F.interpolate(image[None], size, mode="bilinear", antialias=True) for image in images])


class OfTorchvision(nn.Module):
    """A detector of torchvision's; suppression is its own. `pixels`: of an input's cell, 1 for images."""

    def __init__(self, model: nn.Module, *, kept_norms: nn.Module | None = None, pixels: int = 1) -> None:
        super().__init__()
        self.model, self.kept_norms, self.pixels = model, kept_norms, pixels

    @property
    def backbone(self) -> nn.Module:
        return self.model.backbone.body if hasattr(self.model.backbone, "body") else self.model.backbone

    def train(self, mode: bool = True) -> "OfTorchvision":
        super().train(mode)
        if self.kept_norms is not None:
            keep_norms(self.kept_norms)
        return self

    def loss(self, images: Sequence[Tensor], labels: Sequence[Tensor], boxes: Sequence[Tensor]) -> Tensor:
        targets = [
            {"boxes": xyxy_of(box) * self._extent(image), "labels": label + 1}  # 0 is the background
            for image, label, box in zip(images, labels, boxes, strict=True)
        ]
        return torch.stack([loss.float() for loss in self.model(list(images), targets).values()]).sum()

    def detect(self, images: Sequence[Tensor]) -> list[Found]:
        found: list[dict[str, Tensor]] = self.model(list(images))
        return [
            (one["boxes"].float() / self._extent(image), one["labels"] - 1, one["scores"].float())
            for image, one in zip(images, found, strict=True)
        ]

    def _extent(self, image: Tensor) -> Tensor:
        height, width = image.shape[1:]
        return torch.tensor([width, height, width, height], dtype=torch.float32) * self.pixels


class AsTheyAre(GeneralizedRCNNTransform):
    """Images come resized and normalised: they are padded to one size alone."""

    def __init__(self) -> None:
        super().__init__(1, 1, [0.0] * 3, [1.0] * 3)

    def normalize(self, image: Tensor) -> Tensor:
        return image

    def resize(self, image: Tensor, target: Any = None) -> tuple[Tensor, Any]:
        return image, target


class WithPyramid(nn.Module):
    """timm's backbone and torchvision's feature pyramid on its maps of stride 4 to 32."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.body = create_body(name, dilated=False, in_chans=3, pretrained=False, indices=(1, 2, 3, 4))
        widths = self.body.feature_info.channels()
        self.pyramid = FeaturePyramidNetwork(widths, WIDTH, LastLevelMaxPool())
        self.out_channels = WIDTH

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return self.pyramid({str(level): one for level, one in enumerate(self.body(images))})


class SimplePyramid(nn.Module):
    """ViTDet's (Li et al. 2022): maps of twice, once and half the resolution of a ViT's last one; and a quarter."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        ways = [nn.ConvTranspose2d(channels, WIDTH, 2, 2), nn.Conv2d(channels, WIDTH, 1)]
        ways.append(nn.Sequential(nn.MaxPool2d(2, ceil_mode=True), nn.Conv2d(channels, WIDTH, 1)))
        self.ways = nn.ModuleList(
            nn.Sequential(way, nn.GroupNorm(1, WIDTH), nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.GroupNorm(1, WIDTH))
            for way in ways
        )
        self.out_channels = WIDTH

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        maps = {str(level): way(features) for level, way in enumerate(self.ways)}
        return maps | {"pool": maps["2"][..., ::2, ::2]}


class OnFeatures(FasterRCNN):
    """Faster R-CNN whose input are feature maps; a cell of one counts as `VIRTUAL` × `VIRTUAL` pixels."""

    def forward(self, maps: list[Tensor], targets: list[dict[str, Tensor]] | None = None) -> Any:
        sizes = [(one.shape[1] * VIRTUAL, one.shape[2] * VIRTUAL) for one in maps]
        batch, _ = pad(maps)
        height, width = batch.shape[2:]
        images = ImageList(batch.new_empty(len(maps), 1, height * VIRTUAL, width * VIRTUAL), sizes)
        features = self.backbone(batch)
        proposals, of_proposals = self.rpn(images, features, targets)
        found, of_boxes = self.roi_heads(features, proposals, sizes, targets)
        return {**of_proposals, **of_boxes} if self.training else found


def faster_rcnn(num_classes: int, backbone: str, *, pretrained: bool) -> OfTorchvision:
    """Faster R-CNN with a feature pyramid, at sizes that suit a few hundred images and two cores."""
    body = WithPyramid(backbone)
    if pretrained:
        load_lite0(body.body)
    sizes = ((16,), (32,), (64,), (128,), (256,))
    model = FasterRCNN(body, **_heads(num_classes, sizes, levels=4))
    model.transform = AsTheyAre()
    return OfTorchvision(model, kept_norms=body.body if pretrained else None)


def faster_rcnn_on_features(num_classes: int, channels: int) -> OfTorchvision:
    """Its maps have strides of 8, 16, 32 and 64 virtual pixels."""
    sizes = ((24,), (56,), (120,), (256,))
    model = OnFeatures(SimplePyramid(channels), **_heads(num_classes, sizes, levels=3))
    return OfTorchvision(model, pixels=VIRTUAL)


def _heads(num_classes: int, sizes: Sequence[tuple[int, ...]], *, levels: int) -> dict[str, Any]:
    """Torchvision's own settings, but for fewer proposals and a narrower head, which two cores have the time for."""
    hidden = 512
    return {
        "rpn_anchor_generator": AnchorGenerator(tuple(sizes), ((0.5, 1.0, 2.0),) * len(sizes)),
        "rpn_pre_nms_top_n_train": 500,
        "rpn_pre_nms_top_n_test": 500,
        "rpn_post_nms_top_n_train": 300,
        "rpn_post_nms_top_n_test": 300,
        "box_roi_pool": MultiScaleRoIAlign([str(level) for level in range(levels)], 7, 2),
        "box_head": TwoMLPHead(WIDTH * 7 * 7, hidden),
        "box_predictor": FastRCNNPredictor(hidden, num_classes + 1),
        "box_score_thresh": 0.01,
        "box_batch_size_per_image": 128,
    }


def ssdlite(num_classes: int) -> OfTorchvision:
    """At its 320 × 320 pixels; from random weights."""
    model = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=num_classes + 1)
    model.transform.image_mean, model.transform.image_std = [0.0] * 3, [1.0] * 3  # images come normalised
    return OfTorchvision(model)


def load_lite0(body: nn.Module) -> None:
    """EfficientNet-Lite0's weights of ImageNet, out of the installed package."""
    entry = find_pretrained(f"{LITE0}.pytorch_model")
    assert entry is not None
    weights, wanted = entry.state(), body.state_dict()
    body.load_state_dict({name: tensor for name, tensor in weights.items() if name in wanted})


def keep_norms(module: nn.Module) -> None:
    """Batch norms use what they were trained with: batches are too small here to say better."""
    for one in module.modules():
        if isinstance(one, nn.BatchNorm2d):
            one.eval()
