"""Predictions on the frames of a video: a few frames at a time, however long it is."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image

from regard.data import Frame
from regard.draw.boxes import draw_boxes, draw_words
from regard.tasks.classification.predictor import Classifier
from regard.tasks.classification.result import Prediction
from regard.tasks.detection.predictor import Detector
from regard.tasks.detection.result import Detections
from regard.tasks.predictor import batched

# Classes of a classified frame that are drawn.
NUM_CLASSES = 3


@dataclass(frozen=True)
class VideoFrame:
    """One frame, and what a model says of it."""

    index: int
    """Counted from 0 in the video, whatever the stride."""
    time: float
    """Seconds from the first frame."""
    pixels: UInt8[np.ndarray, "height width 3"]
    answer: Detections | Prediction

    def draw(self) -> Image.Image:
        """The frame in its size, with a box, a name and a score for each object; or with its likeliest classes."""
        pixels, answer = torch.from_numpy(self.pixels).permute(2, 0, 1), self.answer
        if isinstance(answer, Prediction):
            return draw_words(pixels, [f"{name} {score:.0%}" for name, score in answer.top(NUM_CLASSES)])
        captions = [f"{name} {score:.2f}" for name, score in zip(answer.names, answer.scores.tolist(), strict=True)]
        return draw_boxes(pixels, answer.boxes_xyxy, answer.labels.tolist(), captions, enlarge=False)


def answers_of_frames(
    predictor: Classifier | Detector, frames: Iterable[Frame], name: str, options: Mapping[str, Any], batch_size: int
) -> Iterator[VideoFrame]:
    """What the predictor says of each frame, `batch_size` of them at a time. options: as of its `predict`.

    The answers are named NAME[INDEX], and hold no pixels.
    """
    for batch in batched(frames, batch_size):
        answers: Sequence[Detections | Prediction] = predictor.predict(
            [frame.pixels for frame in batch], batch_size=batch_size, **options
        )
        for frame, answer in zip(batch, answers, strict=True):
            called: dict[str, Any] = {"name": f"{name}[{frame.index}]"}
            if isinstance(answer, Detections):
                called["pixels"] = None
            yield VideoFrame(frame.index, frame.time, frame.pixels, replace(answer, **called))
