"""How unsure a model is of an image, between 0 and 1, so that people look first at what they can teach it."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from regard.data import BadImage
from regard.tasks.classification.predictor import Classifier
from regard.tasks.classification.result import Prediction
from regard.tasks.detection.predictor import Detector
from regard.tasks.detection.result import Detections

Answer = Prediction | Detections


def uncertainty(answer: Answer, least: Sequence[float] = ()) -> float:
    """Of classification, 1 - p of the most probable class ("least confidence").

    Where an image may have several classes, 1 - min |p - t| over the classes, each with its own threshold t. Of
    detection, 1 - min |score - t| over all boxes, where t, of `least`, is the score from which on a box of its class
    is reported: it is 1 where a box is as likely to be left out as to be reported, and 0 for an image without boxes.
    `answer` needs the boxes below the threshold, too.
    """
    if isinstance(answer, Prediction):
        if answer.thresholds is None:
            return 1.0 - answer.score
        return 1.0 - min(abs(p - t) for p, t in zip(answer.probabilities, answer.thresholds, strict=True))
    if not len(answer):
        return 0.0
    return 1.0 - float((answer.scores - torch.tensor(least)[answer.labels]).abs().min())


def answers_of(
    predictor: Classifier | Detector, files: Sequence[Path], options: Mapping[str, Any], *, unsure: bool
) -> Iterator[tuple[Answer | BadImage, float | None]]:
    """For each file, in order, what `predict_files` gives; with `unsure` also its uncertainty.

    options: threshold, nms and max_detections, for a detector. The answers are the same with `unsure` as without.
    """
    if isinstance(predictor, Classifier):
        for one in predictor.predict_files(files):
            yield one, uncertainty(one) if unsure and isinstance(one, Prediction) else None
        return
    if not unsure:
        for found in predictor.predict_files(files, **options):
            yield found, None
        return
    least = predictor.least_scores(options["threshold"])
    # Whether a box stays depends on more certain ones alone, so that the threshold may come last.
    for every in predictor.predict_files(files, **{**options, "threshold": 0.0, "max_detections": None}):
        if isinstance(every, Detections):
            found = every.above(least).chosen(slice(options["max_detections"]))
            yield found, uncertainty(every, least)
        else:
            yield every, None
