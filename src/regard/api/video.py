"""A model on a video or a camera, frame by frame."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regard.errors import RegardError
from regard.files import expanded

if TYPE_CHECKING:
    import torch

    from regard.tasks import Predictor
    from regard.tasks.video import VideoFrame


def predict_video(
    run: "str | Path | Predictor",
    source: str | Path,
    *,
    out: str | Path | None = None,
    stride: int = 1,
    threshold: float | str = "auto",
    nms: float | str = "auto",
    max_detections: int | None = None,
    batch_size: int | None = None,
    weights: str = "model",
    device: "str | torch.device | None" = None,
) -> "Iterator[VideoFrame]":
    """Every `stride`-th frame of a video file, or of a camera ("camera:0"), with what the model says of it.

    run: as of `load`, or what it gives. A frame has an index and a time in the video, its pixels, `answer` (a
    `Prediction` or `Detections`), and draws itself. `batch_size` frames are in memory: 8, and of a camera 1, unless
    given. out: an .mp4 file that the drawn frames go into as they are asked for; it is there when the loop over them
    ends, by `break` too, and not after an error. threshold, nms, max_detections: as of `Detector.predict`.
    RegardError without PyAV, for a file that is no video or has no frame, for a camera that is not there, and for
    a stride below 1. What cannot be decoded is passed over, and a warning counts it.
    """
    from regard.data import VideoWriter, read_video
    from regard.data.video import CAMERA
    from regard.tasks import Classifier, Detector
    from regard.tasks.predictor import require_count
    from regard.tasks.video import answers_of_frames

    require_count("stride", stride)
    if batch_size is None:
        batch_size = 1 if str(source).startswith(CAMERA) else 8
    require_count("batch_size", batch_size)
    writer = None if out is None else VideoWriter(expanded(out))
    if isinstance(run, str | Path):
        from regard.api.runs import load

        run = load(run, weights=weights, device=device)
    if not isinstance(run, Classifier | Detector):
        raise RegardError(f"{run.source or 'predict_video'}: reads text; a video is for runs that read images")
    options: dict[str, Any] = {}
    if isinstance(run, Detector):
        options = {"threshold": threshold, "nms": nms, "max_detections": max_detections}
        run.least_scores(threshold)
    answers = answers_of_frames(run, read_video(source, stride=stride), str(source), options, batch_size)
    return answers if writer is None else _written(answers, writer)


def _written(answers: "Iterator[VideoFrame]", writer: Any) -> "Iterator[VideoFrame]":
    import numpy as np

    with writer:
        for frame in answers:
            writer.add(np.asarray(frame.draw()), frame.time)
            yield frame
