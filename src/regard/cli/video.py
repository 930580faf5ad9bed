"""`regard predict RUN VIDEO`: lines of text or of JSON as the frames come, and a video with what was found drawn in."""

import json
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from regard.cli.terminal import say
from regard.errors import RegardError

if TYPE_CHECKING:
    from regard.tasks import Predictor
    from regard.tasks.video import VideoFrame


def predict_videos(
    predictor: "Predictor",
    sources: Sequence[str],
    options: Mapping[str, Any],
    out: Path | None,
    top: int,
    *,
    as_json: bool,
) -> None:
    """One video after another; those that cannot be read are named, and the others are done all the same.

    `out` is a folder for NAME.mp4, or an .mp4 file. options: of `regard.predict_video`.
    """
    bad = False
    for source, place in zip(sources, _places(sources, out), strict=True):
        try:
            _predict_video(predictor, source, options, place, top, as_json=as_json)
        except RegardError as error:
            if len(sources) == 1:
                raise
            say(f"error: {error}", err=True)
            bad = True
    if bad:
        raise typer.Exit(1)


def _predict_video(
    predictor: "Predictor", source: str, options: Mapping[str, Any], place: Path | None, top: int, *, as_json: bool
) -> None:
    from regard.api import predict_video

    count = 0
    with _until_interrupted(source) as interrupted:
        frames: Any = predict_video(predictor, source, out=place, **options)
        try:
            for frame in frames:
                count += 1
                row = _row(frame, top)
                if as_json:
                    say(json.dumps({"file": source, **row}))
                elif place is None:
                    say(f"{frame.index} ({frame.time:.2f} s): {_words(row) or 'nothing'}")
                if interrupted():
                    break
            frames.close()
        except BaseException as error:  # nobody reads the lines any more, or Ctrl-C: nothing half-written shall stay
            frames.throw(error)
            raise
    if place is not None:
        say(f"{source}: {count} frame{'s' * (count != 1)}: {place}", err=as_json)


def _row(frame: "VideoFrame", top: int) -> dict[str, Any]:
    """A frame as a line of JSON; boxes are left, top, right, bottom in pixels."""
    from regard.tasks import Detections

    row: dict[str, Any] = {"frame": frame.index, "time": round(frame.time, 4)}
    answer = frame.answer
    if not isinstance(answer, Detections):
        classes = [{"class": name, "probability": round(score, 6)} for name, score in answer.top(top)]
        return {**row, "classes": classes}
    objects = zip(answer.names, answer.scores.tolist(), answer.boxes_xyxy.tolist(), strict=True)
    found = [
        {"class": name, "score": round(score, 4), "box": [round(side, 1) for side in box]}
        for name, score, box in objects
    ]
    return {**row, "objects": found}


def _words(row: Mapping[str, Any]) -> str:
    found = [*row.get("classes", ()), *row.get("objects", ())]
    return ", ".join(f"{one['class']} {one.get('score', one.get('probability')):.2f}" for one in found)


def _places(sources: Sequence[str], out: Path | None) -> list[Path | None]:
    """The file for each video: OUT/NAME.mp4, with a number where a name comes twice."""
    if out is None:
        return [None] * len(sources)
    if out.suffix.lower() == ".mp4":
        if len(sources) > 1:
            raise RegardError(f"{out}: is one file for {len(sources)} videos; name a folder with -o")
        return [out]
    names = [
        Path(source.replace(":", "-")).stem if source.startswith("camera:") else Path(source).stem for source in sources
    ]
    twice = Counter(names)
    return [
        out / (f"{name}.mp4" if twice[name] == 1 else f"{name}-{number}.mp4") for number, name in enumerate(names, 1)
    ]


@contextmanager
def _until_interrupted(source: str) -> Iterator[Callable[[], bool]]:
    """A camera has no end: the first Ctrl-C ends it well, with its file; of a video it stays an interruption."""
    asked: list[int] = []
    if not source.startswith("camera:"):
        yield lambda: False
        return

    def ask(number: int, _: object) -> None:
        asked.append(number)
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield lambda: bool(asked)
    finally:
        signal.signal(signal.SIGINT, before)
