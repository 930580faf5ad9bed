"""Videos: generated frames written, predicted on and read back; few frames alive; and what is no video."""

import struct
import sys
import weakref
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import regard
from regard.data import DetectionPreprocessing, Frame, Preprocessing, VideoWriter, is_video, read_video
from regard.errors import RegardError
from regard.models import DETROutput
from regard.tasks import Classifier, Detections, Detector, Prediction
from regard.tasks.video import answers_of_frames

av = pytest.importorskip("av", reason="PyAV is not installed (the extra video)")
HEIGHT, WIDTH = 48, 64


class Half(nn.Module):
    """One box, the left half of the image, as sure as the image is bright."""

    def __init__(self) -> None:
        super().__init__()
        self.any = nn.Parameter(torch.zeros(1))
        self.batches: list[int] = []

    def forward(self, images: Tensor, mask: Tensor) -> DETROutput:
        self.batches.append(len(images))
        bright = images.mean((1, 2, 3)).clamp(0.01, 0.99)
        logits = torch.stack([torch.logit(bright), torch.zeros(len(images))], -1)[None, :, None].repeat(2, 1, 1, 1)
        return DETROutput(logits, torch.tensor([0.25, 0.5, 0.5, 1.0]).expand(2, len(images), 1, 4))


class Shade(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.any = nn.Parameter(torch.zeros(1))

    def forward(self, images: Tensor) -> Tensor:
        bright = images.mean((1, 2, 3)) * 8 - 4
        return torch.stack([-bright, bright], 1)


def detector() -> Detector:
    return Detector(Half(), ("left",), (0,), DetectionPreprocessing(32, 64, 3, (0.0,) * 3, (1.0,) * 3))


def classifier() -> Classifier:
    return Classifier(Shade(), ("dark", "light"), Preprocessing((8, 8), 3, (0.0,) * 3, (1.0,) * 3, "bilinear", 1.0))


def film(path: Path, frames: int = 21, rate: int = 25, *, size: tuple[int, int] = (HEIGHT, WIDTH)) -> Path:
    """Frame i has the grey value 12 · i, and a white upper left corner."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4" if path.suffix == ".avi" else "libx264", rate=rate)
        stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
        for index in range(frames):
            pixels = np.full((*size, 3), 12 * index % 256, dtype=np.uint8)
            pixels[: size[0] // 3, : size[1] // 4] = 255
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize(("stride", "indices"), [(1, range(21)), (5, (0, 5, 10, 15, 20)), (40, (0,))])
def test_every_nth_frame_is_read_with_its_place_in_time(stride, indices, tmp_path):
    frames = list(read_video(film(tmp_path / "a.mp4"), stride=stride))
    assert [frame.index for frame in frames] == list(indices)
    for frame in frames:
        assert frame.time == pytest.approx(frame.index / 25)
        assert frame.pixels.shape == (HEIGHT, WIDTH, 3)
        assert frame.pixels[-1, -1].tolist() == pytest.approx([12 * frame.index] * 3, abs=3)


def test_a_detector_sees_each_frame_and_the_annotated_video_is_as_long(tmp_path):
    source, out = film(tmp_path / "a.avi"), tmp_path / "new" / "b.mp4"
    found = list(regard.predict_video(detector(), source, out=out, stride=3, threshold=0.5))
    assert [frame.index for frame in found] == [0, 3, 6, 9, 12, 15, 18]
    for frame in found:
        assert isinstance(frame.answer, Detections)
        assert frame.answer.name == f"{source}[{frame.index}]"
        assert frame.answer.pixels is None
        bright = float(frame.pixels.mean()) / 255
        assert len(frame.answer) == (bright >= 0.5)
    assert found[-1].answer.boxes_xyxy.tolist() == [[0.0, 0.0, 32.0, 48.0]]
    again = list(read_video(out))
    assert [frame.time for frame in again] == pytest.approx([frame.time for frame in found], abs=1e-3)
    assert again[0].pixels.shape == (HEIGHT, WIDTH, 3)
    box = again[-1].pixels[30, 1].astype(int)  # the box's left side is orange: it has less blue than the grey there
    assert box[2] < box[0] - 60
    assert again[0].pixels[30, 1].max() < 40
    assert sorted(entry.name for entry in out.parent.iterdir()) == ["b.mp4"]


def test_a_classifier_names_each_frame_in_its_corner(tmp_path):
    source, out = film(tmp_path / "a.mp4"), tmp_path / "b.mp4"
    found = list(regard.predict_video(classifier(), source, out=out, stride=20))
    assert [frame.answer.label for frame in found] == ["dark", "light"]
    assert all(isinstance(frame.answer, Prediction) for frame in found)
    drawn, plain = (list(read_video(file, stride=stride)) for file, stride in ((out, 1), (source, 20)))
    assert len(drawn) == 2
    corner = np.s_[:12, :20]  # white letters on black, where the film is white
    assert drawn[0].pixels[corner].mean() < 200 < plain[0].pixels[corner].mean()
    assert drawn[1].pixels[-1, -1].tolist() == pytest.approx([240] * 3, abs=4)


def test_odd_sides_and_frames_of_another_size_can_be_written(tmp_path):
    with VideoWriter(tmp_path / "a.mp4") as writer:
        for time, size in ((0.0, (33, 21)), (0.5, (33, 21)), (0.5, (66, 42))):
            writer.add(np.full((*size, 3), 200, np.uint8), time)
    frames = list(read_video(tmp_path / "a.mp4"))
    assert [frame.pixels.shape for frame in frames] == [(34, 22, 3)] * 3
    assert [frame.time for frame in frames] == pytest.approx([0, 0.5, 0.5], abs=1e-3)


def test_a_film_of_a_telephone_is_turned_upright(tmp_path):
    file = film(tmp_path / "a.mp4", 3)
    whole = bytearray(file.read_bytes())
    head = whole.index(b"tkhd") + 4
    at = head + 4 + (20 if whole[head] == 0 else 32) + 16  # the matrix behind times, ids, duration, layer and volume
    assert struct.unpack(">9i", whole[at : at + 36])[0] == 0x10000
    whole[at : at + 36] = struct.pack(">9i", 0, 0x10000, 0, -0x10000, 0, 0, HEIGHT << 16, 0, 0x40000000)
    file.write_bytes(whole)
    frame = next(read_video(file))
    assert frame.pixels.shape == (WIDTH, HEIGHT, 3)
    white = frame.pixels[:, :, 0] > 128
    assert white[: WIDTH // 4 - 1, -HEIGHT // 3 + 1 :].all()  # turned clockwise: the upper left corner is upper right
    assert not white[WIDTH // 4 + 1 :].any()


def test_few_frames_are_alive_at_a_time():
    alive, most = 0, 0

    def gone() -> None:
        nonlocal alive
        alive -= 1

    def frames():
        nonlocal alive, most
        for index in range(300):
            pixels = np.zeros((8, 8, 3), np.uint8)
            weakref.finalize(pixels, gone)
            alive += 1
            most = max(most, alive)
            yield Frame(index, index / 25, pixels)
            del pixels

    model = detector()
    for count, frame in enumerate(answers_of_frames(model, frames(), "a", {"threshold": 0.0}, 4)):
        assert frame.index == count
    assert count == 299
    assert most <= 9  # a batch, the one before it, and the one that is asked for
    assert set(model.model.batches) == {4}


def test_a_loop_that_is_left_has_written_its_video_and_a_failed_one_none(tmp_path):
    source = film(tmp_path / "a.mp4")
    for frame in regard.predict_video(detector(), source, out=tmp_path / "b.mp4"):
        if frame.index == 4:
            break
    assert [frame.index for frame in read_video(tmp_path / "b.mp4")] == [0, 1, 2, 3, 4]
    broken = detector()
    broken.model.forward = lambda images, mask: 1 / 0
    with pytest.raises(ZeroDivisionError):
        list(regard.predict_video(broken, source, out=tmp_path / "c.mp4"))
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.mp4", "b.mp4"]
    with pytest.raises(RegardError, match="exists already"):
        list(regard.predict_video(detector(), source, out=source))


def test_what_cannot_be_decoded_is_passed_over_and_counted(tmp_path):
    source = film(tmp_path / "a.avi", 60)
    whole = bytearray(source.read_bytes())
    middle = whole.index(b"00dc", len(whole) // 3) + 8
    whole[middle : middle + 60] = b"\0" * 60
    source.write_bytes(whole)
    with pytest.warns(UserWarning, match=r"a\.avi: \d+ of its packets cannot be decoded, and are passed over: "):
        frames = list(read_video(source))
    assert 50 <= len(frames) < 60


def test_what_is_no_video_is_told_in_a_line(tmp_path, monkeypatch):
    text = tmp_path / "text.mp4"
    text.write_text("no video")
    silent, sound = tmp_path / "silent.mp4", tmp_path / "sound.mp4"
    with av.open(str(silent), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        container.start_encoding()
    with av.open(str(sound), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 8000, 0, Fraction(1, 8000)
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    for source, message in (
        (text, "text.mp4: is no video that can be read: Invalid data"),
        (tmp_path / "none.mp4", "none.mp4: no such file"),
        (sound, "sound.mp4: holds no video stream"),
        ("camera:first", "camera:first: a camera has a number, the first one is camera:0"),
        ("camera:97", "camera:97: there is no such camera, or it is in use: "),
        (silent, "silent.mp4: "),
    ):
        out = tmp_path / "out.mp4"
        with pytest.raises(RegardError) as error:
            list(regard.predict_video(detector(), source, out=out))
        assert message in str(error.value), error.value
        assert not out.exists()
    with pytest.raises(RegardError, match="stride is 0; it must be at least 1"):
        regard.predict_video(detector(), text, stride=0)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(RegardError, match=r"reading videos needs PyAV; pip install 'regard\[video\]'"):
        regard.predict_video(detector(), text)


def test_videos_are_known_by_their_endings(tmp_path):
    assert all(map(is_video, ("a.mp4", Path("b.MOV"), "camera:0")))
    (tmp_path / "folder.mp4").mkdir()
    assert not any(map(is_video, ("a.png", "a.gif", tmp_path / "folder.mp4", "camera")))
