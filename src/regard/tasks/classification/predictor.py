"""A trained classifier in use."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor, nn

from regard.data import BadImage, ImageSource, OnBadImage, Preprocessing, evaluation_loader, evaluation_transform
from regard.errors import RegardError
from regard.tasks.classification.metrics import Evaluation
from regard.tasks.classification.result import Prediction
from regard.tasks.image_predictor import ImagePredictor, LoadedImage, OneImage, most_images
from regard.tasks.predictor import require_count
from regard.weights.described import class_names_of, preprocessing_table


class Classifier(ImagePredictor[Prediction]):
    """A model with its preprocessing and the names of its classes: `classifier("a.png").label`."""

    def __init__(self, model: nn.Module, class_names: Sequence[str], preprocessing: Preprocessing) -> None:
        super().__init__(model, class_names, preprocessing)
        self.preprocessing = preprocessing
        self._transform = evaluation_transform(preprocessing)

    @classmethod
    def from_metadata(cls, model: nn.Module, metadata: Mapping[str, Any], where: str) -> "Classifier":
        """From a run's metadata.json. RegardError where the names are not as many as the model's classes."""
        preprocessing = Preprocessing.from_dict(preprocessing_table(metadata, where))
        return cls(model, class_names_of(metadata, where), preprocessing)

    @overload
    def predict(  # type: ignore[overload-overlap]  # a str is iterable as well
        self, images: OneImage, batch_size: int = 64
    ) -> Prediction: ...
    @overload
    def predict(self, images: Iterable[OneImage], batch_size: int = 64) -> list[Prediction]: ...

    def predict(self, images: OneImage | Iterable[OneImage], batch_size: int = 64) -> Prediction | list[Prediction]:
        """One image -> its prediction; a list, tuple or generator of images -> a list of predictions.

        An image is a path, a Pillow image, a file's bytes, an open binary file, a uint8 array (height, width) or
        (height, width, 1, 3 or 4 channels), or a uint8 tensor (channels, height, width) with the model's channels.
        Raises BadImage, which names the file, for a file that cannot be read, and RegardError for anything else, and
        where the model's numbers are not finite.
        """
        if not self.class_names:
            raise RegardError("predict: the model has no classes; `classifier.model(images)` gives its features")
        return self._predict(images, batch_size, self._answers)

    __call__ = predict

    def predict_files(self, files: Iterable[str | Path], batch_size: int = 64) -> Iterator[Prediction | BadImage]:
        """For each file, in order: its prediction, or the error that names it where it cannot be read."""
        return self._predict_files(files, batch_size, self._answers)

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
        Raises RegardError for a class that the classifier does not know.
        """
        own_label = self._class_indices(class_names)
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
        logits, labels = [torch.empty(0, len(self.class_names))], [torch.empty(0, dtype=torch.int64)]
        names: list[str] = []
        skipped: list[str] = []
        for batch in loader:
            if len(batch.images):
                logits.append(self._logits(batch.images))
                labels.append(own_label[batch.labels])
            names += batch.names
            skipped += batch.skipped
        return Evaluation(torch.cat(logits), torch.cat(labels), tuple(names), self.class_names, tuple(skipped))

    def _preprocess(
        self, pixels: UInt8[Tensor, "channels stored_height stored_width"]
    ) -> Float32[Tensor, "channels height width"]:
        return self._transform(pixels)

    def _answers(self, images: Sequence[LoadedImage]) -> list[Prediction]:
        logits = self._logits(torch.stack([image.prepared for image in images]))
        self._require_finite([image.name for image in images], logits.isfinite().all(1).tolist())
        predictions = []
        for image, row in zip(images, logits, strict=True):
            probabilities, order = row.softmax(0).sort(descending=True, stable=True)
            names = tuple(self.class_names[label] for label in order.tolist())
            predictions.append(Prediction(image.name, names, tuple(probabilities.tolist())))
        return predictions

    @torch.inference_mode()
    def _logits(self, images: Tensor) -> Float[Tensor, "batch num_classes"]:
        return self.model(images.to(self.device)).float().cpu()
