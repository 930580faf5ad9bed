"""A trained classifier in use."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, overload

import torch
from jaxtyping import Float, Float32, Int64, UInt8
from torch import Tensor, nn
from torch.nn.functional import one_hot

from regard.data import BadImage, ImageSource, OnBadImage, Preprocessing, evaluation_loader, evaluation_transform
from regard.errors import RegardError
from regard.tasks.classification.calibration import LabelThresholds
from regard.tasks.classification.metrics import Evaluation
from regard.tasks.classification.multi_label import MultiLabelEvaluation
from regard.tasks.classification.result import Prediction
from regard.tasks.image_predictor import ImagePredictor, LoadedImage, OneImage, most_images
from regard.tasks.predictor import require_count, require_fraction
from regard.weights.described import class_names_of, preprocessing_table


class Classifier(ImagePredictor[Prediction]):
    """A model with its preprocessing and the names of its classes: `classifier("a.png").label`.

    With a `calibration` an image may have several classes, or none: `classifier("a.png").labels`.
    """

    def __init__(
        self,
        model: nn.Module,
        class_names: Sequence[str],
        preprocessing: Preprocessing,
        calibration: LabelThresholds | None = None,
    ) -> None:
        super().__init__(model, class_names, preprocessing)
        self.preprocessing = preprocessing
        self.calibration = calibration
        self._transform = evaluation_transform(preprocessing)

    @classmethod
    def from_metadata(cls, model: nn.Module, metadata: Mapping[str, Any], where: str) -> "Classifier":
        """From a run's metadata.json. RegardError where the names are not as many as the model's classes."""
        preprocessing = Preprocessing.from_dict(preprocessing_table(metadata, where))
        names, stated = class_names_of(metadata, where), metadata.get("calibration")
        calibration = None if stated is None else LabelThresholds.from_dict(stated, names, where)
        return cls(model, names, preprocessing, calibration)

    @property
    def multi_label(self) -> bool:
        """Whether an image may have several classes, or none."""
        return self.calibration is not None

    @overload
    def predict(  # type: ignore[overload-overlap]  # a str is iterable as well
        self, images: OneImage, batch_size: int = 64, *, threshold: float | int | str = "auto"
    ) -> Prediction: ...
    @overload
    def predict(
        self, images: Iterable[OneImage], batch_size: int = 64, *, threshold: float | int | str = "auto"
    ) -> list[Prediction]: ...

    def predict(
        self, images: OneImage | Iterable[OneImage], batch_size: int = 64, *, threshold: float | int | str = "auto"
    ) -> Prediction | list[Prediction]:
        """One image -> its prediction; a list, tuple or generator of images -> a list of predictions.

        An image is a path, a Pillow image, a file's bytes, an open binary file, a uint8 array (height, width) or
        (height, width, 1, 3 or 4 channels), or a uint8 tensor (channels, height, width) with the model's channels.
        threshold: where an image may have several classes, the least probability of each; "auto" is what was measured
        for each class in training. Raises BadImage, which names the file, for a file that cannot be read, and
        RegardError for anything else, and where the model's numbers are not finite.
        """
        return self._predict(images, batch_size, partial(self._answers, self._thresholds(threshold)))

    __call__ = predict

    def predict_files(
        self, files: Iterable[str | Path], batch_size: int = 64, *, threshold: float | int | str = "auto"
    ) -> Iterator[Prediction | BadImage]:
        """For each file, in order: its prediction, or the error that names it where it cannot be read."""
        return self._predict_files(files, batch_size, partial(self._answers, self._thresholds(threshold)))

    def require_classes(self) -> None:
        """RegardError for a model that gives features and no classes, as one that was pre-trained."""
        if not self.class_names:
            raise RegardError(
                f"{self._of_run}the model has no classes yet; train a recipe from it with --set model.weights=RUN, or "
                "take its features: `regard features`, `classifier.model(images)`"
            )

    def _thresholds(self, threshold: float | int | str) -> tuple[float, ...] | None:
        """Those of all classes. RegardError for anything but "auto" and a number from 0 to 1, and without classes."""
        self.require_classes()
        if threshold == "auto":
            return None if self.calibration is None else self.calibration.thresholds
        if self.calibration is None:
            raise RegardError(f"{self._of_run}threshold is for models whose images may have several classes")
        if isinstance(threshold, str):
            raise RegardError(f"threshold is {threshold!r}; it must be auto, or a number between 0 and 1")
        require_fraction("threshold", threshold)
        return (float(threshold),) * len(self.class_names)

    def evaluate(
        self,
        source: ImageSource,
        *,
        batch_size: int | None = None,
        num_workers: int = 0,
        on_bad_image: OnBadImage = "stop",
        class_names: Sequence[str] | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> Evaluation:
        """The logits for all images of a source, or for the shard of process `rank`.

        `class_names` are the source's classes, if they are not the classifier's own. batch_size: as many images, up to
        256, as a model can take without gigabytes, unless given.
        Raises RegardError for a class that the classifier does not know, and where images have several classes and the
        classifier knows one.
        """
        own_label = self._class_indices(class_names)
        if source.num_classes is not None and not self.multi_label:
            raise RegardError(
                f"{self._of_run}the images have several labels, and the model was trained to give one class"
            )
        if batch_size is None:
            batch_size = most_images(math.prod(self.preprocessing.img_size), self.device)
        require_count("batch_size", batch_size)
        loader = evaluation_loader(
            source,
            self._transform,
            batch_size=batch_size,
            num_workers=num_workers,
            on_bad_image=on_bad_image,
            rank=rank,
            world_size=world_size,
        )
        own = len(self.class_names)
        logits = [torch.empty(0, own)]
        labels = [torch.empty((0, own) if self.multi_label else 0, dtype=torch.int64)]
        names: list[str] = []
        skipped: list[str] = []
        for batch in loader:
            if len(batch.images):
                logits.append(self._logits(batch.images))
                labels.append(self._own_labels(batch.labels, own_label))
            names += batch.names
            skipped += batch.skipped
        return self.evaluation(torch.cat(logits), torch.cat(labels), names, skipped)

    def evaluation(
        self,
        logits: Float[Tensor, "images num_classes"],
        labels: Int64[Tensor, " images *classes"],
        names: Sequence[str],
        skipped: Sequence[str],
    ) -> Evaluation:
        """What the figures are computed from. labels: the classifier's own classes, or rows of zeros and ones."""
        if self.calibration is None:
            return Evaluation(logits, labels, tuple(names), self.class_names, tuple(skipped))
        thresholds = self.calibration.thresholds
        return MultiLabelEvaluation(logits, labels, tuple(names), self.class_names, tuple(skipped), thresholds)

    def _own_labels(
        self, labels: Int64[Tensor, " batch *classes"], own_label: Int64[Tensor, " known"]
    ) -> Int64[Tensor, " batch *own"]:
        """Labels of the data as the classifier's; one class an image becomes a row, where it may have several."""
        if not self.multi_label:
            return own_label[labels]
        rows = labels if labels.ndim == 2 else one_hot(labels, len(own_label))
        found = torch.zeros(len(rows), len(self.class_names), dtype=torch.int64)
        return found.index_add(1, own_label, rows).clamp(max=1)

    def _preprocess(
        self, pixels: UInt8[Tensor, "channels stored_height stored_width"]
    ) -> Float32[Tensor, "channels height width"]:
        return self._transform(pixels)

    def _answers(self, thresholds: tuple[float, ...] | None, images: Sequence[LoadedImage]) -> list[Prediction]:
        logits = self._logits(torch.stack([image.prepared for image in images]))
        self._require_finite([image.name for image in images], logits.isfinite().all(1).tolist())
        predictions = []
        for image, row in zip(images, logits, strict=True):
            every = row.sigmoid() if self.multi_label else row.softmax(0)
            probabilities, order = every.sort(descending=True, stable=True)
            names = tuple(self.class_names[label] for label in order.tolist())
            least = None if thresholds is None else tuple(thresholds[label] for label in order.tolist())
            predictions.append(Prediction(image.name, names, tuple(probabilities.tolist()), least))
        return predictions

    @torch.inference_mode()
    def _logits(self, images: Tensor) -> Float[Tensor, "batch num_classes"]:
        return self.model(images.to(self.device)).float().cpu()
