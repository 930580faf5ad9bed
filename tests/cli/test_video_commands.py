"""`predict` on a video: lines as frames come, JSON lines, an annotated video, and what is said of what is none."""

import json
import subprocess
import sys

import numpy as np
import pytest

av = pytest.importorskip("av", reason="PyAV is not installed (the extra video)")


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """Ten frames of half a second."""
    file = tmp_path_factory.mktemp("films") / "film.mp4"
    with av.open(str(file), "w") as container:
        stream = container.add_stream("libx264", rate=20)
        stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
        for index in range(10):
            pixels = np.full((32, 48, 3), 20 * index, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return file


def test_lines_of_json_and_a_video(regard, run, film, tmp_path):
    told = regard("predict", run, film, "--stride", 4, "--json", "--top", 2, "-o", tmp_path)
    assert told.status == 0
    rows = [json.loads(line) for line in told.out.splitlines()]
    assert [(row["file"], row["frame"], row["time"]) for row in rows] == [
        (str(film), frame, pytest.approx(frame / 20)) for frame in (0, 4, 8)
    ]
    for row in rows:
        assert len(row["classes"]) == 2
        assert row["classes"][0]["probability"] >= row["classes"][1]["probability"]
    assert told.err == f"{film}: 3 frames: {tmp_path / 'film.mp4'}\n"
    with av.open(str(tmp_path / "film.mp4")) as container:
        assert [frame.time for frame in container.decode(video=0)] == pytest.approx([0, 0.2, 0.4])


def test_lines_of_text_without_anything_asked_for(regard, run, film):
    told = regard("predict", run, film, "--stride", 5)
    first, second = told.out.splitlines()
    assert first.startswith("0 (0.00 s): ")
    assert second.startswith("5 (0.25 s): ")


# Ctrl-C while the first frame is said; a camera's frames come from the film.
INTERRUPTED = """
import signal, sys
import av
import regard.cli.video as commands
from regard.cli.main import main
from regard.data import video

film, said, say = sys.argv.pop(1), [], commands.say

def interrupted(line, **more):
    said.append(line)
    say(line, **more)
    if len(said) == 1:
        signal.raise_signal(signal.SIGINT)

commands.say = interrupted
video._camera = lambda source: av.open(film)
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize(("source", "status", "left"), [("film", 130, []), ("camera:0", 0, ["camera-0.mp4"])])
def test_an_interrupted_video_leaves_nothing_and_an_interrupted_camera_its_file(
    run, film, tmp_path, source, status, left
):
    """In a process of its own: the interrupt shall not be heard by the one that tests."""
    arguments = ["predict", run, film if source == "film" else source, "--json", "-o", tmp_path / "out"]
    command = [sys.executable, "-c", INTERRUPTED, film, *arguments]
    told = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert told.returncode == status, told.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == left
    assert len(told.stdout.splitlines()) == 1
    if left:
        assert told.stderr == f"camera:0: 1 frame: {tmp_path / 'out' / 'camera-0.mp4'}\n"
        with av.open(str(tmp_path / "out" / "camera-0.mp4")) as container:
            assert len(list(container.decode(video=0))) == 1


def test_of_several_videos_those_that_can_be_read_are_done(regard, run, film, tmp_path):
    text = tmp_path / "text.mp4"
    text.write_text("none")
    told = regard("predict", run, text, film, film, "--stride", 9, "-o", tmp_path / "out")
    assert told.status == 1
    assert told.err.startswith(f"error: {text}: is no video that can be read")
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["film-2.mp4", "film-3.mp4"]


def test_errors_are_a_line_each(regard, run, images, film, tmp_path):
    regard("predict", run, film, "--stride", 0).fails("stride is 0; it must be at least 1")
    regard("predict", run, images[0], "--stride", 2).fails("--stride is for videos", "camera:0")
    regard("predict", run, film, images[0]).fails(f"{film}: is a video; predict it by itself")
    regard("predict", run, film, "--csv").fails(f"{film}: is a video; it takes --stride, -o and --json")
    regard("predict", run, film, film, "-o", tmp_path / "a.mp4").fails("is one file for 2 videos")
    text = tmp_path / "text.mp4"
    text.write_text("none")
    regard("predict", run, text, "-o", tmp_path / "out").fails(f"{text}: is no video that can be read")
    regard("predict", run, "camera:98").fails("camera:98: there is no such camera, or it is in use")
    assert not (tmp_path / "out").exists() or not any((tmp_path / "out").iterdir())
