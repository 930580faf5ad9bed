"""What a detector finds in one image."""

import io
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float32, Int64, UInt8
from PIL import Image
from torch import Tensor

from regard.draw.boxes import draw_boxes
from regard.errors import RegardError
from regard.tasks.image_predictor import OneImage, pixels_of

# A notebook keeps the pictures that it shows: larger ones are made smaller.
LARGEST = 1024


@dataclass(frozen=True)
class BoxRefinement:
    """Box refinement of one image, layer by layer: where each query begins, and what every decoder layer says of it."""

    boxes_xyxy: Float32[Tensor, "layers queries 4"]
    """In pixels of the image as it is stored."""
    labels: Int64[Tensor, "layers queries"]
    """The best class of each query."""
    scores: Float32[Tensor, "layers queries"]
    class_names: tuple[str, ...]
    start_xyxy: Float32[Tensor, "queries 4"] | None = None
    """None for queries that begin without a box."""
    proposed: bool = False
    """True: the encoder proposed `start_xyxy` for this image. False: they are learned, and the same for all images."""

    @property
    def steps(self) -> tuple[str, ...]:
        """The names of the pictures in order: where the queries begin, if they begin with boxes, then each layer."""
        begin = () if self.start_xyxy is None else ("proposal" if self.proposed else "start",)
        return (*begin, *(f"layer {number}" for number in range(1, len(self.boxes_xyxy) + 1)))


@dataclass(frozen=True)
class Detections:
    """The objects of one image, the most certain first. They draw themselves and convert to others' formats."""

    name: str
    """The image's path, or a name such as images[3]."""
    image_size: tuple[int, int]
    """(height, width) of the image as it is stored, in whose pixels the boxes are."""
    boxes_xyxy: Float32[Tensor, "objects 4"]
    labels: Int64[Tensor, " objects"]
    scores: Float32[Tensor, " objects"]
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    """The classes' ids in the training data."""
    pixels: UInt8[Tensor, "channels height width"] | None = field(default=None, repr=False, compare=False)
    """The image, if it was predicted on in memory; None for a file, which is read again to be drawn."""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def names(self) -> tuple[str, ...]:
        """The class of each object."""
        return tuple(self.class_names[label] for label in self.labels.tolist())

    def above(self, threshold: float | Sequence[float]) -> "Detections":
        """Those of at least this score, or of at least that of their class."""
        least = threshold if isinstance(threshold, int | float) else torch.tensor(threshold)[self.labels]
        return self.chosen(self.scores >= least)

    def chosen(self, which: Tensor | slice) -> "Detections":
        """Those at some places, or where a mask is True."""
        return replace(self, boxes_xyxy=self.boxes_xyxy[which], labels=self.labels[which], scores=self.scores[which])

    def draw(self, image: OneImage | None = None) -> Image.Image:
        """The image with a box, a name and a score for each object. Without `image`, the one that was predicted on.

        RegardError where that is a file which is gone, or `image` has another size than the one that was predicted on.
        """
        if image is None:
            image = self.name if self.pixels is None else self.pixels
        if isinstance(image, str | Path) and not Path(image).is_file():
            raise RegardError(f"draw: {image} is no file; give the image: draw(image)")
        if isinstance(image, Tensor) and image.ndim == 3 and image.shape[0] == 1:
            image = image.expand(3, -1, -1)
        pixels = pixels_of(image, 3, "draw")
        if tuple(pixels.shape[1:]) != self.image_size:
            raise RegardError(
                f"draw: an image of {pixels.shape[2]} × {pixels.shape[1]} pixels, "
                f"the boxes are of one of {self.image_size[1]} × {self.image_size[0]}"
            )
        captions = [f"{name} {score:.2f}" for name, score in zip(self.names, self.scores.tolist(), strict=True)]
        return draw_boxes(pixels, self.boxes_xyxy, self.labels.tolist(), captions)

    def _repr_png_(self) -> bytes | None:
        """A notebook shows the picture, at most `LARGEST` pixels wide and high; None, hence the text, if it is gone."""
        try:
            picture = self.draw()
        except RegardError:
            return None
        picture.thumbnail((LARGEST, LARGEST))
        buffer = io.BytesIO()
        picture.save(buffer, "png")
        return buffer.getvalue()

    def to_coco(
        self, image_id: int | str, category_ids: Sequence[int | str | None] | None = None
    ) -> list[dict[str, Any]]:
        """COCO's results: one dictionary an object; `bbox` is (left, top, width, height) in pixels.

        category_ids: what other data call the classes; an object whose class is None there is left out.
        """
        ids = self.category_ids if category_ids is None else category_ids
        sizes = torch.cat([self.boxes_xyxy[:, :2], self.boxes_xyxy[:, 2:] - self.boxes_xyxy[:, :2]], dim=1)
        rows = zip(self.labels.tolist(), sizes.tolist(), self.scores.tolist(), strict=True)
        return [
            {"image_id": image_id, "category_id": ids[label], "bbox": box, "score": score}
            for label, box, score in rows
            if ids[label] is not None
        ]

    def to_supervision(self) -> Any:
        """As `supervision.Detections`. RegardError where supervision is not installed."""
        import warnings

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that it runs without OpenCV
                import supervision
        except ImportError:
            raise RegardError("supervision is not installed; pip install 'regard[supervision]'") from None
        import numpy as np

        return supervision.Detections(
            xyxy=self.boxes_xyxy.numpy(),
            class_id=self.labels.numpy(),
            confidence=self.scores.numpy(),
            data={"class_name": np.array(self.names, dtype=str)},
        )
