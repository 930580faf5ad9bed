"""A trained detector in use."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from regard.data import (
    BadImage,
    DetectionPreprocessing,
    DetectionSource,
    Objects,
    OnBadImage,
    detection_evaluation_loader,
    detection_evaluation_transform,
    from_pil,
    pad,
    read_image,
)
from regard.errors import RegardError
from regard.layers import fused
from regard.losses import SIGMOID_COSTS, SetPredictionLoss, xyxy_of
from regard.tasks.detection.metrics import DetectionEvaluation
from regard.tasks.detection.result import BoxRefinement, Detections

# Detections an image that COCO's figures count.
MOST = 100
NOTHING = Objects(torch.zeros(0, 4), torch.zeros(0).long(), torch.zeros(0), torch.zeros(0).bool())


class Detector:
    """A model with what it needs to read an image file: its preprocessing, and the names and ids of its classes."""

    def __init__(
        self,
        model: nn.Module,
        class_names: Sequence[str],
        category_ids: Sequence[int],
        preprocessing: DetectionPreprocessing,
    ) -> None:
        self.model = model.eval()
        self.class_names, self.category_ids = tuple(class_names), tuple(category_ids)
        self.preprocessing = preprocessing
        self._transform = detection_evaluation_transform(preprocessing)
        self._sigmoid = getattr(model, "scores", "softmax") == "sigmoid"

    @classmethod
    def from_metadata(cls, model: nn.Module, metadata: Mapping[str, Any], where: str) -> "Detector":
        """With what a run's metadata.json keeps. RegardError where the names are not as many as the model's classes."""
        names, ids = metadata["class_names"], metadata["category_ids"]
        wanted = metadata["model"]["config"]["num_classes"]
        if not len(names) == len(ids) == wanted:
            raise RegardError(f"{where}: {len(names)} class names, {len(ids)} category ids, {wanted} classes")
        return cls(model, names, ids, DetectionPreprocessing.from_dict(metadata["preprocessing"]))

    def fused(self) -> "Detector":
        """One with the same answers, sooner: batch norms are constants that convolutions take in. Not for training."""
        return Detector(fused(self.model), self.class_names, self.category_ids, self.preprocessing)

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def predict(
        self,
        images: Sequence[str | Path | Image.Image | Tensor],
        *,
        threshold: float = 0.5,
        batch_size: int = 8,
    ) -> list[Detections]:
        """The objects of each image: a file, a Pillow image, or a uint8 tensor (channels, height, width).

        Objects of a score of at least `threshold`, the most certain first, with boxes in pixels of the image as it is
        stored. There is no non-maximum suppression: each query answers for itself. Raises BadImage, which names the
        file, for one that cannot be read.
        """
        _require_share("threshold", threshold)
        answers = []
        for start in range(0, len(images), batch_size):
            some = images[start : start + batch_size]
            names = [
                str(image) if isinstance(image, str | Path) else f"images[{number}]"
                for number, image in enumerate(some, start)
            ]
            answers += self._answers([self._read(image) for image in some], names, threshold)
        return answers

    def predict_files(
        self, files: Sequence[Path], *, threshold: float = 0.5, batch_size: int = 8
    ) -> Iterator[Detections | BadImage]:
        """An answer for each file, in order: its objects, or for one that cannot be read the error that names it."""
        _require_share("threshold", threshold)
        for start in range(0, len(files), batch_size):
            read: list[Tensor | BadImage] = []
            for file in files[start : start + batch_size]:
                try:
                    read.append(self._read(file))
                except BadImage as error:
                    read.append(error)
            names = [str(file) for file, image in zip(files[start:], read, strict=False) if isinstance(image, Tensor)]
            found = iter(self._answers([image for image in read if isinstance(image, Tensor)], names, threshold))
            for image in read:
                yield image if isinstance(image, BadImage) else next(found)

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
        """What all queries find in a source's images, or in this process's share of them, beside what is there.

        `class_names` says what the source's labels mean, where they are not this detector's own.
        Raises RegardError for a class that the detector does not know.
        """
        meaning = torch.tensor(self._indices(self.class_names if class_names is None else class_names))
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
            labels = [meaning[label] for label in batch.labels]
            output = self._output(batch.images, batch.mask)
            total += float(loss(*output, labels, batch.boxes_cxcywh).total) * len(batch)
            found += self._decoded(output, batch.stored_sizes, batch.names, 0.0)
            indices += batch.indices
        objects = [source.objects[index] for index in indices]
        return DetectionEvaluation(
            tuple(found),
            tuple(Objects(one.boxes_xyxy, meaning[one.labels], one.areas, one.crowd) for one in objects),
            tuple(source.image_ids[index] for index in indices),
            self.class_names,
            total / len(found) if found else math.nan,
            tuple(skipped),
        )

    @torch.inference_mode()
    def box_refinement(self, image: str | Path | Image.Image | Tensor) -> BoxRefinement:
        """What every layer says of every query, over an image as `predict` takes it. Raises BadImage."""
        read = self._read(image)
        size = (read.shape[1], read.shape[2])
        pixels, mask = pad([self._transform(read, NOTHING)[0]])
        output = self.model(pixels.to(self.device), mask.to(self.device))
        scores, labels = self._scores(output.logits[:, 0].float().cpu()).max(-1)
        start = getattr(output, "chosen_boxes", None)
        return BoxRefinement(
            _corners(output.boxes_cxcywh[:, 0].float().cpu(), size),
            labels,
            scores,
            self.class_names,
            start_xyxy=None if start is None else _corners(start[0].float().cpu(), size),
            proposed=getattr(output, "proposals", None) is not None,
        )

    def _loss(self) -> SetPredictionLoss:
        """What the model's own answers are held to: without proposals and noised objects, which are for training."""
        if self._sigmoid:
            label_loss = getattr(self.model, "label_loss", None)
            return SetPredictionLoss(len(self.class_names), costs=SIGMOID_COSTS, label_loss=label_loss)
        return SetPredictionLoss(len(self.class_names))

    def _indices(self, class_names: Sequence[str]) -> list[int]:
        strange = [name for name in class_names if name not in self.class_names]
        if strange:
            raise RegardError(
                f"the data have classes that the model does not know: {', '.join(strange)}; "
                f"it knows: {', '.join(self.class_names)}"
            )
        return [self.class_names.index(name) for name in class_names]

    def _read(self, image: str | Path | Image.Image | Tensor) -> Tensor:
        """An image as uint8 (channels, height, width), of its own size."""
        channels = self.preprocessing.channels
        if isinstance(image, str | Path):
            return read_image(Path(image), channels)
        if isinstance(image, Image.Image):
            return from_pil(image, channels)
        if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] != channels or 0 in image.shape:
            raise RegardError(
                f"predict: a tensor must be uint8 ({channels}, height, width), got {image.dtype} {tuple(image.shape)}"
            )
        return image.cpu()

    def _answers(self, images: Sequence[Tensor], names: Sequence[str], threshold: float) -> list[Detections]:
        if not images:
            return []
        pixels, mask = pad([self._transform(image, NOTHING)[0] for image in images])
        sizes = [(image.shape[1], image.shape[2]) for image in images]
        return self._decoded(self._output(pixels, mask), sizes, names, threshold)

    @torch.inference_mode()
    def _output(self, images: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        output = self.model(images.to(self.device), mask.to(self.device))
        return output.logits.float(), output.boxes_cxcywh.float()

    def _scores(self, logits: Tensor) -> Tensor:
        """Of each class; without that of "no object", where there is one."""
        return logits.sigmoid() if self._sigmoid else logits.softmax(-1)[..., :-1]

    def _decoded(
        self, output: tuple[Tensor, Tensor], sizes: Sequence[tuple[int, int]], names: Sequence[str], threshold: float
    ) -> list[Detections]:
        """The last layer's answers in pixels, the most certain first; what is not finite is left out.

        Of each query its best class; where each class has a score of its own, the best of all pairs, as many as COCO
        counts: a query that is in doubt may name two.
        """
        logits, boxes = (part[-1].cpu() for part in output)
        scores = self._scores(logits)
        if not self._sigmoid:
            best = scores.max(-1, keepdim=True)
            scores = torch.full_like(scores, -1.0).scatter(-1, best.indices, best.values)
        answers = []
        for score, box, size, name in zip(scores, boxes, sizes, names, strict=True):
            score = score.masked_fill(~box.isfinite().all(-1, keepdim=True), -1.0).nan_to_num(-1.0).flatten()
            order = score.argsort(descending=True, stable=True)[: int((score >= threshold).sum())]
            order = order[:MOST] if self._sigmoid else order
            query, label = order // scores.shape[2], order % scores.shape[2]
            corners = _corners(box[query], size)
            answers.append(Detections(name, size, corners, label, score[order], self.class_names, self.category_ids))
        return answers


def _corners(boxes_cxcywh: Tensor, size: tuple[int, int]) -> Tensor:
    """Boxes in [0, 1] as boxes_xyxy in pixels of an image of (height, width), cut at its edges."""
    height, width = size
    extent = torch.tensor([width, height, width, height], dtype=torch.float32)
    return (xyxy_of(boxes_cxcywh) * extent).clamp(min=0).minimum(extent)


def _require_share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise RegardError(f"{name} is {value}; it must be between 0 and 1")
