"""A trained classifier in use."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Float32
from PIL import Image
from torch import Tensor, nn

from regard.data import (
    BadImage,
    ImageSource,
    OnBadImage,
    Preprocessing,
    evaluation_loader,
    evaluation_transform,
    from_pil,
    read_image,
)
from regard.errors import RegardError
from regard.tasks.classification.metrics import Evaluation
from regard.tasks.classification.result import Prediction


class Classifier:
    """A model with what it needs to read an image file: its preprocessing and the names of its classes."""

    def __init__(self, model: nn.Module, class_names: Sequence[str], preprocessing: Preprocessing) -> None:
        self.model = model.eval()
        self.class_names = tuple(class_names)
        self.preprocessing = preprocessing
        self._transform = evaluation_transform(preprocessing)

    @classmethod
    def from_metadata(cls, model: nn.Module, metadata: Mapping[str, Any], where: str) -> "Classifier":
        """With what a run's metadata.json keeps. RegardError where the names are not as many as the model's classes."""
        names = metadata["class_names"]
        wanted = metadata["model"]["config"]["num_classes"]
        if len(names) != wanted:
            raise RegardError(f"{where}: {len(names)} class names, {wanted} classes")
        return cls(model, names, Preprocessing.from_dict(metadata["preprocessing"]))

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def prepare(self, image: str | Path | Image.Image | Tensor) -> Float32[Tensor, "channels height width"]:
        """An image as the model takes it: a file, a Pillow image, or a uint8 tensor (channels, height, width)."""
        channels = self.preprocessing.channels
        if isinstance(image, str | Path):
            image = read_image(Path(image), channels)
        elif isinstance(image, Image.Image):
            image = from_pil(image, channels)
        elif image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] != channels:
            raise RegardError(
                f"predict: a tensor must be uint8 ({channels}, height, width), got {image.dtype} {tuple(image.shape)}"
            )
        return self._transform(image)

    def predict(self, images: Sequence[str | Path | Image.Image | Tensor], batch_size: int = 64) -> list[Prediction]:
        """An answer for each image. Raises BadImage, which names the file, for one that cannot be read."""
        answers = []
        for start in range(0, len(images), batch_size):
            some = images[start : start + batch_size]
            logits = self._logits(torch.stack([self.prepare(image) for image in some]))
            for number, (image, row) in enumerate(zip(some, logits, strict=True), start):
                name = str(image) if isinstance(image, str | Path) else f"images[{number}]"
                answers.append(self._answer(name, row))
        return answers

    def predict_files(self, files: Sequence[Path], batch_size: int = 64) -> Iterator[Prediction | BadImage]:
        """An answer for each file, in order: a prediction, or for one that cannot be read the error that names it."""
        for start in range(0, len(files), batch_size):
            prepared: list[Tensor | BadImage] = []
            for file in files[start : start + batch_size]:
                try:
                    prepared.append(self.prepare(file))
                except BadImage as error:
                    prepared.append(error)
            readable = [image for image in prepared if isinstance(image, Tensor)]
            logits = iter(self._logits(torch.stack(readable)) if readable else ())
            for file, image in zip(files[start:], prepared, strict=False):
                yield image if isinstance(image, BadImage) else self._answer(str(file), next(logits))

    def evaluate(
        self,
        source: ImageSource,
        *,
        batch_size: int = 256,
        num_workers: int = 0,
        on_bad_image: OnBadImage = "stop",
        class_names: Sequence[str] | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> Evaluation:
        """The logits for all images of a source, or for this process's share of it.

        `class_names` says what the source's labels mean, where they are not this classifier's own.
        Raises RegardError for a class that the classifier does not know.
        """
        meaning = torch.tensor(self._indices(self.class_names if class_names is None else class_names))
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
                labels.append(meaning[batch.labels])
            names += batch.names
            skipped += batch.skipped
        return Evaluation(torch.cat(logits), torch.cat(labels), tuple(names), self.class_names, tuple(skipped))

    def _indices(self, class_names: Sequence[str]) -> list[int]:
        strange = [name for name in class_names if name not in self.class_names]
        if strange:
            raise RegardError(
                f"the data have classes that the model does not know: {', '.join(strange)}; "
                f"it knows: {', '.join(self.class_names)}"
            )
        return [self.class_names.index(name) for name in class_names]

    def _answer(self, name: str, logits: Float[Tensor, " num_classes"]) -> Prediction:
        probabilities, order = logits.softmax(0).sort(descending=True, stable=True)
        return Prediction(name, tuple(self.class_names[i] for i in order.tolist()), tuple(probabilities.tolist()))

    @torch.inference_mode()
    def _logits(self, images: Tensor) -> Float[Tensor, "batch num_classes"]:
        return self.model(images.to(self.device)).float().cpu()
