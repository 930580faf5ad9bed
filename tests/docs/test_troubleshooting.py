"""docs/troubleshooting.md: each message on it is raised here, and is as the page shows it."""

import errno
import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from page_of_messages import Place, messages_of, pattern_of

import regard
import regard.training.state
from regard.errors import RegardError
from regard.files import locked
from regard.mixers import MIXERS
from regard.tasks import ClassificationTask

PAGE = Path(__file__).parents[2] / "docs" / "troubleshooting.md"
MESSAGES = messages_of(PAGE.read_text(encoding="utf-8"))
LEAST = 30
CASES: dict[str, Callable[[Place], object]] = {}


def case(heading: str) -> Callable[[Callable[[Place], object]], Callable[[Place], object]]:
    """Raises the message under `heading`."""

    def keep(raises: Callable[[Place], object]) -> Callable[[Place], object]:
        assert heading not in CASES
        CASES[heading] = raises
        return raises

    return keep


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one step on the embedded digits."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    regard.train("vit-digits", out=folder, **Place.TINY)
    return folder


@pytest.fixture
def place(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.chdir(tmp_path)
    for name, value in {"COLUMNS": "160", "NO_COLOR": "1", "TERM": "dumb", "XDG_CACHE_HOME": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    shutil.copytree(run, tmp_path / "run")
    return Place(tmp_path, monkeypatch)


@pytest.mark.parametrize("heading", MESSAGES)
def test_a_message_is_what_is_printed(heading: str, place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    shown = MESSAGES[heading]
    capsys.readouterr()
    try:
        status = CASES[heading](place)
    except RegardError as error:
        printed = f"regard.errors.RegardError: {error}"
    else:
        assert status == 1
        printed = capsys.readouterr().err.splitlines()[-1]
    assert re.fullmatch(pattern_of(shown), printed), f"the page has\n{shown}\nand this is printed\n{printed}"


def test_the_page_has_these_messages_and_no_others() -> None:
    assert set(MESSAGES) == set(CASES)
    assert len(MESSAGES) >= LEAST


# The machine and what is installed on it.


@case("No GPU is found")
def _(place):
    place.patch.setattr(torch.cuda, "device_count", lambda: 0)
    place.patch.setattr(torch.version, "cuda", "13.0")
    return place.tells("train", "vit-digits", "--device", "cuda")


@case("PyTorch is a build without CUDA")
def _(place):
    place.patch.setattr(torch.cuda, "device_count", lambda: 0)
    place.patch.setattr(torch.version, "cuda", None)
    return place.tells("train", "vit-digits", "--device", "cuda")


@case("Memory runs out while training")
def _(place):
    def fill(*_: object) -> torch.Tensor:
        return torch.empty(10**15)

    place.patch.setattr(ClassificationTask, "loss", fill)
    return place.trains("--out", "new")


def machine_says(place: Place, error: Exception) -> int:
    """What becomes of an error that another machine would raise in `regard predict`."""

    def fail(*_: object, **__: object) -> None:
        raise error

    place.patch.setattr(torch.nn.Linear, "forward", fail)
    return place.tells("predict", "run", place.image("a.png"))


@case("Memory runs out elsewhere")
def _(place):
    return machine_says(place, torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."))


@case("The GPU is newer than PyTorch")
def _(place):
    return machine_says(place, RuntimeError("CUDA error: no kernel image is available for execution on the device"))


@case("torch and torchvision do not fit")
def _(place):
    return machine_says(place, RuntimeError("operator torchvision::nms does not exist"))


@case("A process that reads images is killed")
def _(place):
    said = "DataLoader worker (pid 7) is killed by signal: Bus error."
    return machine_says(place, RuntimeError(said))


@case("Too many processes read images")
def _(place):
    place.patch.setattr(os, "cpu_count", lambda: 2)
    return place.trains("--set", "data.num_workers=64")


@case("An extra is missing for an export")
def _(place):
    place.patch.setitem(sys.modules, "onnx", None)
    return place.tells("export", "run", "--to", "onnx")


@case("The disk is full")
def _(place):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    place.patch.setattr(regard.training.state, "write_json", full)
    return place.trains("--out", "new")


# Names and settings.


@case("A key of --set is unknown")
def _(place):
    return place.trains("--set", "train.learning_rate=0.001")


@case("The value of a key is not allowed")
def _(place):
    return place.trains("--set", "train.precision=fp16")


@case("A recipe is unknown")
def _(place):
    return place.tells("train", "vit-digit")


@case("A model is unknown")
def _(place):
    regard.create_model("vit_base_patch16")


@case("A mixer is unknown")
def _(place):
    return place.trains("--set", "model.mixer=swin")


@case("The heads do not divide the channels")
def _(place):
    regard.create_model("vit_tiny_patch16_224", num_heads=5)


@case("The data are of an unknown kind")
def _(place):
    return place.tells("train", "vit-digits", "--data", "imagenet")


@case("That is no run")
def _(place):
    return place.tells("train", "--resume", "runs/mine")


# Images in folders.


@case("There are no folders of classes")
def _(place):
    place.image("photos/cat/1.png")
    return place.tells("train", "small-images", "--data", "folder:photos")


@case("A class has no images")
def _(place):
    place.image("photos/cat/1.png")
    (place.path / "photos/dog").mkdir()
    return place.tells("train", "small-images", "--data", "folder:photos")


@case("Photographs of a telephone are passed over")
def _(place):
    for label in ("cat", "dog"):
        place.image(f"photos/{label}/1.png").rename(place.path / f"photos/{label}/1.heic")
    place.without("pillow_heif")
    return place.tells("train", "small-images", "--data", "folder:photos")


@case("A file is not an image")
def _(place):
    place.classes("photos")
    Path("photos/cat/1.png").write_text("<html>", encoding="utf-8")
    return place.trains("--data", "folder:photos")


@case("An image is cut short")
def _(place):
    file = place.classes("photos")[0]
    file.write_bytes(file.read_bytes()[:300])
    return place.trains("--data", "folder:photos", "--out", "new")


@case("A folder holds no image")
def _(place):
    (place.path / "photos").mkdir()
    return place.tells("predict", "run", "photos")


@case("The classes are not those of the model")
def _(place):
    place.classes("photos")
    return place.tells("evaluate", "run", "--data", "folder:photos")


# Images with boxes.


@case("The annotations are not found")
def _(place):
    place.image("scenes/1.png")
    return place.detects("coco:scenes")


@case("The annotations are not JSON")
def _(place):
    place.coco()
    Path("scenes/annotations/instances_train.json").write_text('{"images": [', encoding="utf-8")
    return place.detects("coco:scenes")


@case("A category id is unknown")
def _(place):
    place.coco(category_id=7)
    return place.detects("coco:scenes")


@case("A box is inside out")
def _(place):
    place.coco(bbox=[30, 30, -10, 10])
    return place.detects("coco:scenes")


@case("Images of the annotations are missing")
def _(place):
    place.coco()
    (place.path / "scenes/train/1.png").unlink()
    return place.detects("coco:scenes")


@case("There is no box")
def _(place):
    place.coco(count=0)
    return place.detects("coco:scenes")


@case("YOLO: there is no data.yaml")
def _(place):
    place.yolo()
    Path("scenes/data.yaml").unlink()
    return place.detects("yolo:scenes")


@case("YOLO: a path leads nowhere")
def _(place):
    place.yolo(train="pictures/train")
    return place.detects("yolo:scenes")


@case("YOLO: the labels are not found")
def _(place):
    place.yolo()
    shutil.rmtree("scenes/labels")
    return place.detects("yolo:scenes")


@case("YOLO: coordinates are in pixels")
def _(place):
    place.yolo(label="0 32 32 10 10")
    return place.detects("yolo:scenes")


# Weights.


@case("Weights cannot be downloaded")
def _(place):
    place.offline()
    regard.create_model("vit_tiny_patch16_224", pretrained=True)


@case("Pretrained weights are unknown")
def _(place):
    return place.trains("--set", "model.weights=vit_tiny_patch16_224.augreg_in1k")


@case("The number of classes differs")
def _(place):
    torch.save(regard.create_model("vit_pico_patch2_8", num_classes=7).state_dict(), "seven.pth")
    return place.tells("train", "vit-digits", "--set", "model.weights=seven.pth")


@case("Weights are of another model")
def _(place):
    torch.save({"fc.weight": torch.zeros(3, 4)}, "other.pth")
    regard.load_weights(regard.create_model("vit_pico_patch2_8"), "other.pth")


@case("A checkpoint holds more than weights")
def _(place):
    torch.save(torch.nn.Linear(2, 3), "whole.pth")
    regard.load_weights(regard.create_model("vit_pico_patch2_8"), "whole.pth")


@case("A web page lies in the place of the weights")
def _(place):
    Path("weights.pth").write_text("<!DOCTYPE html><html></html>", encoding="utf-8")
    regard.load_weights(regard.create_model("vit_pico_patch2_8"), "weights.pth")


@case("A pointer of Git LFS lies in the place of the weights")
def _(place):
    Path("model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n", encoding="utf-8")
    regard.load_weights(regard.create_model("vit_pico_patch2_8"), "model.safetensors")


# Sizes of images.


@case("The image is not whole patches")
def _(place):
    regard.create_model("vit_tiny_patch16_224", depth=1)(torch.rand(1, 3, 230, 230))


@case("The mixer has one size of image")
def _(place):
    regard.create_model("vit_tiny_patch16_224", depth=1, mixer="mlp")(torch.rand(1, 3, 256, 256))


@case("The number of channels differs")
def _(place):
    regard.create_model("vit_tiny_patch16_224", depth=1)(torch.rand(1, 1, 224, 224))


# Training.


@case("The loss is not finite")
def _(place):
    return place.trains("--set", "train.lr=1e30", "--set", "train.clip_grad=0", "--set", "train.warmup=0", steps=6)


@case("The minutes are too few")
def _(place):
    return place.tells("train", "vit-digits", "--minutes", 0.1)


@case("The run folder exists")
def _(place):
    return place.trains("--out", "run")


@case("Another recipe is resumed")
def _(place):
    return place.tells("train", "--resume", "run", "--set", "model.depth=2")


@case("Another process writes into the folder")
def _(place):
    with locked(place.path / "run"):
        return place.tells("train", "--resume", "run", "--set", "train.max_steps=2")


# Mixers and looking into them.


@case("A mixer does not support a mask")
def _(place):
    MIXERS["fourier"](16)(torch.rand(1, 4, 16), mask=torch.tensor([[True, True, True, False]]))


@case("A mixer has no attention to show")
def _(place):
    regard.train("vit-digits", out=place.path / "fnet", mixer="fourier", **Place.TINY)
    return place.tells("explain", "fnet", place.image("a.png"), "--method", "rollout")


@case("A fused kernel is not there")
def _(place):
    q = torch.rand(1, 2, 8, 8, 16)
    place.patch.setitem(sys.modules, "natten", None)
    regard.ops.local_attention(q, q, q, window=3, border="shift", impl="natten")


# Exports and videos.


@case("The exported file is not there")
def _(place):
    return place.tells("predict", "model.onnx", place.image("a.png"))


@case("The file is no export")
def _(place):
    Path("model.onnx").write_text("<html>", encoding="utf-8")
    return place.tells("predict", "model.onnx", place.image("a.png"))


@case("A .pt2 is not read")
def _(place):
    Path("model.pt2").write_bytes(b"PK")
    return place.tells("predict", "model.pt2", place.image("a.png"))


@case("A video cannot be opened")
def _(place):
    pytest.importorskip("av")
    Path("clip.mp4").write_bytes(b"no video")
    return place.tells("predict", "run", "clip.mp4", "-o", "found")
