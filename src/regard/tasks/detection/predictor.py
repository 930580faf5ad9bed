"""A trained detector in use."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, overload

import torch
from jaxtyping import Float32, UInt8
from torch import Tensor, nn

from regard.data import (
    BadImage,
    DetectionPreprocessing,
    DetectionSource,
    Objects,
    OnBadImage,
    detection_evaluation_loader,
    detection_evaluation_transform,
    pad,
)
from regard.errors import RegardError, shown
from regard.layers import fused
from regard.losses import SIGMOID_COSTS, SetPredictionLoss, xyxy_of
from regard.tasks.detection.metrics import DetectionEvaluation
from regard.tasks.detection.result import BoxRefinement, Detections
from regard.tasks.image_predictor import ImagePredictor, LoadedImage, OneImage
from regard.weights.described import class_names_of, preprocessing_table

# COCO's figures count at most this many detections an image.
MOST = 100
NOTHING = Objects(torch.zeros(0, 4), torch.zeros(0).long(), torch.zeros(0), torch.zeros(0).bool())


class Detector(ImagePredictor[Detections]):
    """A model with its preprocessing and the names and ids of its classes: `detector("a.png").draw()`."""

    def __init__(
        self,
        model: nn.Module,
        class_names: Sequence[str],
        category_ids: Sequence[int],
        preprocessing: DetectionPreprocessing,
    ) -> None:
        super().__init__(model, class_names, preprocessing)
        self.category_ids = tuple(category_ids)
        self.preprocessing = preprocessing
        self._transform = detection_evaluation_transform(preprocessing)
        self._sigmoid = getattr(model, "scores", "softmax") == "sigmoid"

    @classmethod
    def from_metadata(cls, model: nn.Module, metadata: Mapping[str, Any], where: str) -> "Detector":
        """From a run's metadata.json. RegardError where the names are not as many as the model's classes."""
        names, ids = class_names_of(metadata, where), metadata["category_ids"]
        if not isinstance(ids, list) or not all(type(one) is int for one in ids) or len(set(ids)) != len(names):
            raise RegardError(f"{where}: category_ids must be {len(names)} different whole numbers, got {shown(ids)}")
        return cls(model, names, ids, DetectionPreprocessing.from_dict(preprocessing_table(metadata, where)))

    def fused(self) -> "Detector":
        """A faster detector with the same answers: batch norms are fused into the convolutions. Not for training."""
        faster = Detector(fused(self.model), self.class_names, self.category_ids, self.preprocessing)
        faster.max_megapixels = self.max_megapixels
        return faster

    @overload
    def predict(  # type: ignore[overload-overlap]  # a str is iterable as well
        self, images: OneImage, *, threshold: float = 0.5, batch_size: int = 8
    ) -> Detections: ...
    @overload
    def predict(
        self, images: Iterable[OneImage], *, threshold: float = 0.5, batch_size: int = 8
    ) -> list[Detections]: ...

    def predict(
        self, images: OneImage | Iterable[OneImage], *, threshold: float = 0.5, batch_size: int = 8
    ) -> Detections | list[Detections]:
        """One image -> its objects; a list, tuple or generator of images -> a list of theirs.

        An image is a path, a Pillow image, a uint8 array (height, width) or (height, width, 1, 3 or 4 channels), or a
        uint8 tensor (channels, height, width) with the model's channels. Objects have a score of at least `threshold`,
        the most certain come first, and boxes are in pixels of the image as it is stored. There is no non-maximum
        suppression: each query answers for itself. Raises BadImage, which names the file, for a file that cannot be
        read, and RegardError for anything else.
        """
        _require_fraction("threshold", threshold)
        return self._predict(images, batch_size, partial(self._answers, threshold=threshold))

    __call__ = predict

    def predict_files(
        self, files: Iterable[str | Path], *, threshold: float = 0.5, batch_size: int = 8
    ) -> Iterator[Detections | BadImage]:
        """For each file, in order: its objects, or the error that names it where it cannot be read."""
        _require_fraction("threshold", threshold)
        return self._predict_files(files, batch_size, partial(self._answers, threshold=threshold))

    def evaluate(
        self,
        source: DetectionSource,
        *,
        batch_size: int = 8,
        num_workers: int = 0,
        on_bad_image: OnBadImage = "stop",
        class_names: Sequence[str] | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> DetectionEvaluation:
        """What all queries find in a source's images, or in the shard of process `rank`, beside the true objects.

        `class_names` are the source's classes, if they are not the detector's own.
        Raises RegardError for a class that has objects and that the detector does not know.
        """
        used = torch.cat([torch.zeros(0, dtype=torch.int64), *(one.labels for one in source.objects)]).unique().tolist()
        own_label = self._class_indices(class_names, used)
        loss = self._loss().to(self.device).eval()
        loader = detection_evaluation_loader(
            source, self._transform, batch_size, num_workers, on_bad_image, rank, world_size
        )
        found: list[Detections] = []
        indices: list[int] = []
        skipped: list[str] = []
        total = 0.0
        for batch in loader:
            skipped += batch.skipped
            if not len(batch):
                continue
            labels = [own_label[label] for label in batch.labels]
            output = self._output(batch.images, batch.mask)
            total += float(loss(*output, labels, batch.boxes_cxcywh).total) * len(batch)
            found += self._decoded(output, batch.stored_sizes, batch.names, 0.0)
            indices += batch.indices
        objects = [source.objects[index] for index in indices]
        return DetectionEvaluation(
            tuple(found),
            tuple(Objects(one.boxes_xyxy, own_label[one.labels], one.areas, one.crowd) for one in objects),
            tuple(source.image_ids[index] for index in indices),
            self.class_names,
            total / len(found) if found else math.nan,
            tuple(skipped),
        )

    @torch.inference_mode()
    def box_refinement(self, image: OneImage) -> BoxRefinement:
        """What every layer of the decoder says of every query. `image` is one that `predict` takes. Raises BadImage."""
        loaded = self._load(image, "image")
        pixels, mask = pad([loaded.prepared])
        output = self.model(pixels.to(self.device), mask.to(self.device))
        scores, labels = self._scores(output.logits[:, 0].float().cpu()).max(-1)
        start = getattr(output, "chosen_boxes", None)
        return BoxRefinement(
            _corners(output.boxes_cxcywh[:, 0].float().cpu(), loaded.size),
            labels,
            scores,
            self.class_names,
            start_xyxy=None if start is None else _corners(start[0].float().cpu(), loaded.size),
            proposed=getattr(output, "proposals", None) is not None,
        )

    def _loss(self) -> SetPredictionLoss:
        """The loss of the decoder's own predictions: no proposals or denoising queries, which are for training."""
        if self._sigmoid:
            label_loss = getattr(self.model, "label_loss", None)
            return SetPredictionLoss(len(self.class_names), costs=SIGMOID_COSTS, label_loss=label_loss)
        return SetPredictionLoss(len(self.class_names))

    def _preprocess(
        self, pixels: UInt8[Tensor, "channels stored_height stored_width"]
    ) -> Float32[Tensor, "channels height width"]:
        return self._transform(pixels, NOTHING)[0]

    def _answers(self, images: Sequence[LoadedImage], threshold: float) -> list[Detections]:
        output = self._output(*pad([image.prepared for image in images]))
        found = self._decoded(output, [image.size for image in images], [image.name for image in images], threshold)
        return [replace(one, pixels=image.pixels) for one, image in zip(found, images, strict=True)]

    @torch.inference_mode()
    def _output(self, images: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        output = self.model(images.to(self.device), mask.to(self.device))
        return output.logits.float(), output.boxes_cxcywh.float()

    def _scores(self, logits: Tensor) -> Tensor:
        """The score of each class; where "no object" is a class of the softmax, its score is left out."""
        return logits.sigmoid() if self._sigmoid else logits.softmax(-1)[..., :-1]

    def _decoded(
        self, output: tuple[Tensor, Tensor], sizes: Sequence[tuple[int, int]], names: Sequence[str], threshold: float
    ) -> list[Detections]:
        """The last layer's predictions in pixels, the most certain first; those that are not finite are left out.

        With a softmax, each query gives its best class. With sigmoids, every pair of a query and a class counts, so
        that a query in doubt may name two classes; the best `MOST` pairs are kept, as many as COCO counts.
        """
        logits, boxes = (tensor[-1].cpu() for tensor in output)
        scores = self._scores(logits)
        if not self._sigmoid:
            best = scores.max(-1, keepdim=True)
            scores = torch.full_like(scores, -1.0).scatter(-1, best.indices, best.values)
        detections = []
        for score, box, size, name in zip(scores, boxes, sizes, names, strict=True):
            score = score.masked_fill(~box.isfinite().all(-1, keepdim=True), -1.0).nan_to_num(-1.0).flatten()
            order = score.argsort(descending=True, stable=True)[: int((score >= threshold).sum())]
            order = order[:MOST] if self._sigmoid else order
            query, label = order // scores.shape[2], order % scores.shape[2]
            corners = _corners(box[query], size)
            detections.append(Detections(name, size, corners, label, score[order], self.class_names, self.category_ids))
        return detections


def _corners(boxes_cxcywh: Tensor, size: tuple[int, int]) -> Tensor:
    """Boxes in [0, 1] as boxes_xyxy in pixels of an image of (height, width), cut at its edges."""
    height, width = size
    extent = torch.tensor([width, height, width, height], dtype=torch.float32)
    return (xyxy_of(boxes_cxcywh) * extent).clamp(min=0).minimum(extent)


def _require_fraction(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise RegardError(f"{name} is {value}; it must be between 0 and 1")
