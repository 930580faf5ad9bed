"""Videos and cameras, one frame after another, so that memory does not grow with their length. By PyAV."""

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import UInt8

from regard.errors import RegardError, one_line
from regard.files import expanded

if TYPE_CHECKING:
    import av.container

VIDEO_ENDINGS = frozenset(
    (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".ts", ".mts", ".3gp", ".ogv")
)
CAMERA = "camera:"
# How systems call their cameras: PyAV's name of the kind of device, and the address of number 0.
_DEVICES = {"linux": ("v4l2", "/dev/video{}"), "darwin": ("avfoundation", "{}"), "win32": ("dshow", "video={}")}
# Ticks of a second in what is written: the usual rates of frames, 24000/1001 among them, come out within a tick.
_TICKS = 60_000
_USUAL_RATE = 25  # frames a second, where a file does not say when a frame is shown


@dataclass(frozen=True)
class Frame:
    """One frame of a video."""

    index: int
    """Counted from 0 in the video, whatever the stride."""
    time: float
    """Seconds from the first frame."""
    pixels: UInt8[np.ndarray, "height width 3"]


def is_video(source: str | Path) -> bool:
    """Whether a path or an address is one of a video (by its ending), or of a camera."""
    path = Path(source)
    return str(source).startswith(CAMERA) or (path.suffix.lower() in VIDEO_ENDINGS and not path.is_dir())


def read_video(source: str | Path, *, stride: int = 1) -> Iterator[Frame]:
    """Every `stride`-th frame of a video file, or of a camera ("camera:0"), upright.

    It is opened at once, and closed at the end. What cannot be decoded is passed over, and a warning counts it.
    RegardError without PyAV, for a camera that is not there, and for a file that is none or has no frame.
    """
    container = _opened(str(source))
    if not container.streams.video:
        container.close()
        raise RegardError(f"{source}: holds no video stream")
    return _frames(container, str(source), stride)


def _frames(container: "av.container.InputContainer", name: str, stride: int) -> Iterator[Frame]:
    import av

    stream: Any = container.streams.video[0]
    stream.thread_type = "AUTO"
    index, start, time = 0, None, -1.0 / _USUAL_RATE
    damaged, why = 0, ""
    with container:
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets, None)
                decoded: Any = [] if packet is None else packet.decode()
            except av.FFmpegError as error:
                damaged, why = damaged + 1, error.strerror or one_line(error)
                if isinstance(error, av.error.InvalidDataError):
                    continue
                packet, decoded = None, []
            for frame in decoded:
                shown = frame.time
                start = shown if start is None else start
                time = time + 1 / _USUAL_RATE if shown is None else shown - (start or 0.0)
                if index % stride == 0:
                    yield Frame(index, time, _upright(frame))
                index += 1
            del decoded
            if packet is None:
                break
    if not index:
        raise RegardError(f"{name}: has no frame that can be decoded{f': {why}' if why else ''}")
    if damaged:
        warnings.warn(f"{name}: {damaged} of its packets cannot be decoded, and are passed over: {why}", stacklevel=2)


def _upright(frame: Any) -> UInt8[np.ndarray, "height width 3"]:
    """Telephones write how far a film is to be turned, counter-clockwise in degrees."""
    pixels = frame.to_ndarray(format="rgb24")
    return np.ascontiguousarray(np.rot90(pixels, round(frame.rotation / 90))) if frame.rotation else pixels


def _opened(source: str) -> "av.container.InputContainer":
    try:
        import av
    except ImportError:
        raise RegardError(f"{source}: reading videos needs PyAV; pip install 'regard[video]'") from None
    if source.startswith(CAMERA):
        return _camera(source)
    path = expanded(source)
    if not path.is_file():
        raise RegardError(f"{source}: {'is no regular file' if path.exists() else 'no such file'}")
    try:
        return av.open(str(path.absolute()), options={"protocol_whitelist": "file"})
    except (av.FFmpegError, OSError) as error:
        raise RegardError(f"{source}: is no video that can be read: {error.strerror or one_line(error)}") from None


def _camera(source: str) -> "av.container.InputContainer":
    import av

    number = source.removeprefix(CAMERA)
    kind, address = _DEVICES.get(sys.platform, _DEVICES["linux"])
    if not number or (sys.platform != "win32" and not number.isdigit()):
        raise RegardError(f"{source}: a camera has a number, the first one is camera:0")
    try:
        return av.open(address.format(number), format=kind)
    except (av.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        raise RegardError(f"{source}: there is no such camera, or it is in use: {reason}") from None


class VideoWriter:
    """Writes frames into an MP4 file within a `with`: the file is there at its end, and not after an error.

    A generator that is closed within has come to its end. All frames get the size of the first, with sides that are
    even, as H.264 wants them. RegardError where the file exists, or cannot be written.
    """

    def __init__(self, path: Path) -> None:
        if os.path.lexists(path):
            raise RegardError(f"{path}: exists already; choose another folder")
        self.path, self._beside = path, path.with_name(f".{path.stem}.{os.getpid()}.mp4")
        self._last = -1

    def __enter__(self) -> "VideoWriter":
        import av

        with self._told():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._container = av.open(str(self._beside), "w", format="mp4")
            codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
            stream: Any = self._container.add_stream(codec, rate=_USUAL_RATE)
            stream.pix_fmt, stream.codec_context.time_base = "yuv420p", Fraction(1, _TICKS)
            self._stream = stream
        return self

    def add(self, pixels: UInt8[np.ndarray, "height width 3"], time: float) -> None:
        """Shows a frame from `time` on, in seconds."""
        import av

        if self._last < 0:
            self._stream.height, self._stream.width = (side + side % 2 for side in pixels.shape[:2])
        size = {"width": self._stream.width, "height": self._stream.height}
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24").reformat(
            **size, format="yuv420p"
        )
        self._last = max(round(time * _TICKS), self._last + 1)
        frame.pts, frame.time_base = self._last, Fraction(1, _TICKS)
        with self._told():
            self._container.mux(self._stream.encode(frame))

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        import av

        try:
            if self._last < 0 or kind not in (None, GeneratorExit):
                with suppress(av.FFmpegError, OSError):
                    self._container.close()
                return
            with self._told():
                self._container.mux(self._stream.encode())
                self._container.close()
                self._beside.replace(self.path)
        finally:
            self._beside.unlink(missing_ok=True)

    @contextmanager
    def _told(self) -> Iterator[None]:
        import av

        try:
            yield
        except (av.FFmpegError, OSError) as error:
            reason = getattr(error, "strerror", None) or one_line(error)
            raise RegardError(f"{self.path}: could not be saved: {reason}") from error
