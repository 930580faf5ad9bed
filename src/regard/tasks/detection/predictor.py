"""A trained detector in use."""

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
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
    queries_for,
)
from regard.errors import RegardError, shown
from regard.layers import fused
from regard.losses import SIGMOID_COSTS, SetPredictionLoss, xyxy_of
from regard.tasks.detection.calibration import DEFAULT_THRESHOLD, Calibration
from regard.tasks.detection.metrics import DetectionEvaluation
from regard.tasks.detection.result import BoxRefinement, Detections
from regard.tasks.detection.suppression import overlap_of, suppressed
from regard.tasks.image_predictor import ImagePredictor, LoadedImage, OneImage
from regard.tasks.predictor import require_count, require_fraction
from regard.weights.described import class_names_of, preprocessing_table

# COCO's figures count at most this many detections an image.
COCOS_MOST = 100
NMS = float | str  # an IoU, "auto" or "off"
Threshold = float | str  # a score or "auto"
NOTHING = Objects(torch.zeros(0, 4), torch.zeros(0).long(), torch.zeros(0), torch.zeros(0).bool())


class Detector(ImagePredictor[Detections]):
    """A model with its preprocessing and the names and ids of its classes: `detector("a.png").draw()`.

    calibration: what was chosen at the end of its training, and is done where nothing else is asked for: suppression or
    none, and the least score of each class. Without one, no box is suppressed, and the least score is 0.5.
    """

    def __init__(
        self,
        model: nn.Module,
        class_names: Sequence[str],
        category_ids: Sequence[int],
        preprocessing: DetectionPreprocessing,
        calibration: Calibration | None = None,
    ) -> None:
        super().__init__(model, class_names, preprocessing)
        self.calibration = calibration
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
        preprocessing = DetectionPreprocessing.from_dict(preprocessing_table(metadata, where))
        stated = metadata.get("calibration")
        return cls(
            model, names, ids, preprocessing, None if stated is None else Calibration.from_dict(stated, names, where)
        )

    def fused(self) -> "Detector":
        """A faster detector with the same answers: batch norms are fused into the convolutions. Not for training."""
        faster = Detector(fused(self.model), self.class_names, self.category_ids, self.preprocessing, self.calibration)
        faster.max_megapixels = self.max_megapixels
        faster.model_name, faster.source = self.model_name, self.source
        return faster

    @overload
    def predict(  # type: ignore[overload-overlap]  # a str is iterable as well
        self,
        images: OneImage,
        *,
        threshold: Threshold = "auto",
        nms: NMS = "auto",
        max_detections: int | None = None,
        batch_size: int = 8,
    ) -> Detections: ...
    @overload
    def predict(
        self,
        images: Iterable[OneImage],
        *,
        threshold: Threshold = "auto",
        nms: NMS = "auto",
        max_detections: int | None = None,
        batch_size: int = 8,
    ) -> list[Detections]: ...

    def predict(
        self,
        images: OneImage | Iterable[OneImage],
        *,
        threshold: Threshold = "auto",
        nms: NMS = "auto",
        max_detections: int | None = None,
        batch_size: int = 8,
    ) -> Detections | list[Detections]:
        """One image -> its objects; a list, tuple or generator of images -> a list of theirs.

        An image is a path, a Pillow image, a file's bytes, an open binary file, a uint8 array (height, width) or
        (height, width, 1, 3 or 4 channels), or a uint8 tensor (channels, height, width) with the model's channels.
        Objects have a score of at least `threshold`: all of them, or the `max_detections` most certain ones of an
        image; the most certain come first, and boxes are in pixels of the image as it is stored. `nms` is the IoU above
        which a box is suppressed by a more certain one of its class, or "off": each query answers for itself. "auto"
        does what was chosen in training (see `calibration`). Raises BadImage, which names the file, for a file that
        cannot be read, and RegardError for anything else, and where the model's numbers are not finite.
        """
        return self._predict(images, batch_size, self._answering(threshold, nms, max_detections))

    __call__ = predict

    def predict_files(
        self,
        files: Iterable[str | Path],
        *,
        threshold: Threshold = "auto",
        nms: NMS = "auto",
        max_detections: int | None = None,
        batch_size: int = 8,
    ) -> Iterator[Detections | BadImage]:
        """For each file, in order: its objects, or the error that names it where it cannot be read."""
        return self._predict_files(files, batch_size, self._answering(threshold, nms, max_detections))

    def evaluate(
        self,
        source: DetectionSource,
        *,
        batch_size: int = 8,
        num_workers: int = 0,
        on_bad_image: OnBadImage = "stop",
        class_names: Sequence[str] | None = None,
        category_ids: Sequence[int] | None = None,
        max_detections: int | None = None,
        nms: NMS = "auto",
        rank: int = 0,
        world_size: int = 1,
    ) -> DetectionEvaluation:
        """What all queries find in a source's images, or in the shard of process `rank`, beside the true objects.

        nms: as of `predict`; what was found before it is `raw`.

        `class_names` and `category_ids` are what the source calls its classes, if these are not the detector's own.
        max_detections: how many of an image count, the most certain ones. Unless given it is COCO's 100; where an image
        of the source holds more objects than that, as many as the queries that `regard data check` advises for them.
        Where a model's numbers are not finite the loss is NaN, and `not_finite` names the images.
        Raises RegardError for a class that has objects and that the detector does not know.
        """
        require_count("batch_size", batch_size)
        counted = counted_detections(source.objects) if max_detections is None else max_detections
        require_count("max_detections", counted)
        overlap = self._overlap(nms)
        used = torch.cat([torch.zeros(0, dtype=torch.int64), *(one.labels for one in source.objects)]).unique().tolist()
        own_label = self._class_indices(class_names, used)
        loss = self._loss().to(self.device).eval()
        found: dict[int, Detections] = {}
        raw: dict[int, Detections] = {}
        skipped: list[str] = []
        not_finite: list[str] = []
        total = 0.0
        for batch in self._evaluation_batches(source, batch_size, num_workers, on_bad_image, rank, world_size):
            skipped += batch.skipped
            if not len(batch):
                continue
            labels = [own_label[label] for label in batch.labels]
            output = self._output_of(batch)
            unsound = [name for name, sound in zip(batch.names, self._sound(output), strict=True) if not sound]
            if not unsound:  # the loss leaves out what is not finite, so that it would be 0
                # Image by image: the loss of several is divided by their objects, and would depend on the batch.
                for one in range(len(batch)):
                    of_image = (part[:, one : one + 1] for part in output)
                    total += float(loss(*of_image, labels[one : one + 1], batch.boxes_cxcywh[one : one + 1]).total)
            not_finite += unsound
            every = self._decoded(output, batch.stored_sizes, batch.names, torch.zeros(1))
            raw.update(zip(batch.indices, (one.chosen(slice(counted)) for one in every), strict=True))
            if overlap is not None:
                kept = (suppressed(one, overlap, counted) for one in every)
                found.update(zip(batch.indices, kept, strict=True))
        indices = sorted(raw)  # the data's order: COCO ranks equal scores by it
        objects = [source.objects[index] for index in indices]
        before = tuple(raw[index] for index in indices)
        return DetectionEvaluation(
            before if overlap is None else tuple(found[index] for index in indices),
            tuple(Objects(one.boxes_xyxy, own_label[one.labels], one.areas, one.crowd) for one in objects),
            tuple(source.image_ids[index] for index in indices),
            self.class_names,
            total / len(before) if before and not not_finite else math.nan,
            tuple(skipped),
            max_detections=counted,
            category_ids=self._ids_of(class_names, category_ids),
            not_finite=tuple(not_finite),
            nms=overlap,
            raw=None if overlap is None else before,
            thresholds=None if self.calibration is None else self.calibration.thresholds,
        )

    def least_scores(self, threshold: Threshold = "auto") -> tuple[float, ...]:
        """The least score of each class that `predict` reports. RegardError for what is neither a score nor "auto"."""
        if isinstance(threshold, str):
            if threshold != "auto":
                raise RegardError(f"threshold is {shown(threshold)}, not auto; it must be a number between 0 and 1")
            if self.calibration is not None:
                return self.calibration.thresholds
            threshold = DEFAULT_THRESHOLD
        require_fraction("threshold", threshold)
        return (float(threshold),) * len(self.class_names)

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

    def _answering(
        self, threshold: Threshold, nms: NMS, most: int | None
    ) -> Callable[[Sequence[LoadedImage]], list[Detections]]:
        least = torch.tensor(self.least_scores(threshold))
        if most is not None:
            require_count("max_detections", most)
        return partial(self._answers, least=least, overlap=self._overlap(nms), most=most)

    def _overlap(self, nms: object) -> float | None:
        """The IoU above which boxes are suppressed; None: none are."""
        if isinstance(nms, str) and nms == "auto":
            return None if self.calibration is None else self.calibration.nms
        return overlap_of(nms, auto=True)

    def _answers(
        self, images: Sequence[LoadedImage], least: Tensor, overlap: float | None, most: int | None
    ) -> list[Detections]:
        output = self._output(*pad([image.prepared for image in images]))
        names = [image.name for image in images]
        self._require_finite(names, self._sound(output))
        found = [
            one.chosen(slice(most)) if overlap is None else suppressed(one, overlap, most)
            for one in self._decoded(output, [image.size for image in images], names, least)
        ]
        return [replace(one, pixels=image.pixels) for one, image in zip(found, images, strict=True)]

    def _ids_of(
        self, class_names: Sequence[str] | None, category_ids: Sequence[int] | None
    ) -> tuple[int | None, ...] | None:
        """What the data call each class of the model; None for one that they do not have."""
        if category_ids is None:
            return None
        ids = dict(zip(self.class_names if class_names is None else class_names, category_ids, strict=True))
        return tuple(ids.get(name) for name in self.class_names)

    def _sound(self, output: tuple[Tensor, Tensor]) -> list[bool]:
        """For each image, whether any query has a finite box and score."""
        logits, boxes = (tensor[-1] for tensor in output)
        return (self._scores(logits).isfinite().any(-1) & boxes.isfinite().all(-1)).any(-1).tolist()

    def _evaluation_batches(
        self,
        source: DetectionSource,
        batch_size: int,
        num_workers: int,
        on_bad_image: OnBadImage,
        rank: int,
        world_size: int,
    ) -> Iterable[Any]:
        """Batches of images of one size; none is padded."""
        return chain.from_iterable(
            detection_evaluation_loader(
                source, self.preprocessing, batch_size, num_workers, on_bad_image, rank, world_size
            )
        )

    def _output_of(self, batch: Any) -> tuple[Tensor, Tensor]:
        """What the model gives for one of these batches."""
        return self._output(batch.images, batch.mask)

    @torch.inference_mode()
    def _output(self, images: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        output = self.model(images.to(self.device), mask.to(self.device))
        return output.logits.float(), output.boxes_cxcywh.float()

    def _scores(self, logits: Tensor) -> Tensor:
        """The score of each class; where "no object" is a class of the softmax, its score is left out."""
        return logits.sigmoid() if self._sigmoid else logits.softmax(-1)[..., :-1]

    def _decoded(
        self,
        output: tuple[Tensor, Tensor],
        sizes: Sequence[tuple[int, int]],
        names: Sequence[str],
        least: Tensor,
    ) -> list[Detections]:
        """The last layer's predictions in pixels, of at least the score of their class, the most certain first.

        With a softmax, each query gives its best class. With sigmoids, every pair of a query and a class counts, so
        that a query in doubt may name two classes. Those that are not finite are left out, and a warning counts them.
        """
        logits, boxes = (tensor[-1].cpu() for tensor in output)
        scores = self._scores(logits)
        usable = scores.isfinite() & boxes.isfinite().all(-1, keepdim=True)
        spoilt = (~usable).any(-1) & usable.any(-1).any(-1, keepdim=True)  # where nothing is usable, others say so
        if spoilt.any():
            warnings.warn(
                f"{self._of_run}{int(spoilt.sum())} of {spoilt.numel()} queries have a score or a box that is not "
                "finite, which is left out",
                stacklevel=2,
            )
        scores = scores.masked_fill(~usable, -1.0)
        if not self._sigmoid:
            best = scores.max(-1, keepdim=True)
            scores = torch.full_like(scores, -1.0).scatter(-1, best.indices, best.values)
        detections = []
        for score, box, size, name in zip(scores, boxes, sizes, names, strict=True):
            enough, score = (score >= least).flatten(), score.flatten()
            order = score.argsort(descending=True, stable=True)
            order = order[enough[order]]
            query, label = order // scores.shape[2], order % scores.shape[2]
            corners = _corners(box[query], size)
            detections.append(Detections(name, size, corners, label, score[order], self.class_names, self.category_ids))
        return detections


def counted_detections(objects: Sequence[Objects]) -> int:
    """How many detections of an image an evaluation counts: COCO's 100, or more where an image holds more objects."""
    most = max((int((~one.crowd).sum()) for one in objects), default=0)
    return COCOS_MOST if most <= COCOS_MOST else queries_for(most)


def _corners(boxes_cxcywh: Tensor, size: tuple[int, int]) -> Tensor:
    """Boxes in [0, 1] as boxes_xyxy in pixels of an image of (height, width), cut at its edges."""
    height, width = size
    extent = torch.tensor([width, height, width, height], dtype=torch.float32)
    return (xyxy_of(boxes_cxcywh) * extent).clamp(min=0).minimum(extent)
