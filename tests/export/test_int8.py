"""int8: the ladder, its calibration images, and what is written where no rung serves."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tests_of_export import command

import regard
from regard import RegardError
from regard.data import open_images
from regard.export.quantize import speed_ratio

pytest.importorskip("onnxruntime")
pytest.importorskip("nncf", reason="nncf is not installed")
pytest.importorskip("openvino", reason="OpenVINO is not installed")

RUN = Path(__file__).parent.parent / "golden_runs" / "classification"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A ViT that reads digits: an untrained one's answers are chance, and change with every rounding."""
    run = tmp_path_factory.mktemp("digits") / "run"
    command = [sys.executable, "-m", "regard", "train", "vit-digits", "--out", str(run), "--set", "train.epochs=12"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return run


def exported(run, out, kind, *options):
    return command("export", run, "--to", kind, "-o", out, *options)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "name"), [("onnx", "model.onnx"), ("openvino", "model.xml")])
def test_a_digits_run(trained, kind, name, tmp_path):
    options = ("--precision", "int8", "--max-drop", "1", "--calibrate", "64")
    done = exported(trained, tmp_path / "out", kind, *options)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "out" / "export.json").read_text())
    assert sorted(path.name for path in (tmp_path / "out").iterdir() if path.suffix != ".bin") == ["export.json", name]
    assert report["precision"] == "int8"
    assert report["way"] in ("transformer preset", "without SmoothQuant", "default", "exclusions by sensitivity")
    assert report["after"] >= report["before"] - 0.01
    assert report["images"] == 450
    assert len(report["interval"]) == 2
    images = open_images("digits", channels=1, val_fraction=0.25, split_seed=0)
    trained_on = {images.train.name(index) for index in range(len(images.train))}
    assert report["calibration"]["images"] == len(set(report["calibration"]["names"])) == 64
    assert set(report["calibration"]["names"]) <= trained_on
    assert list(report["speed"]) == ["bf16" if kind == "openvino" else "fp32"]
    loaded = regard.load(tmp_path / "out" / name)
    assert loaded.predict(np.zeros((8, 8), np.uint8)).class_names
    assert regard.evaluate(tmp_path / "out" / name).metrics()["accuracy"] == pytest.approx(report["after"])


def test_fewer_images_than_a_batch(tmp_path):
    for options, part in (
        ({"calibrate": 7}, "at least a batch, 8 images"),
        ({"calibrate": 15, "batch": 16}, "at least a batch, 16 images"),
        ({"calibrate": 0}, "number of images"),
        ({"to": "pt2"}, "onnx or openvino"),
    ):
        with pytest.raises(RegardError, match=part):
            regard.export_model(RUN, out=tmp_path / "new", precision="int8", **options)
    assert not list(tmp_path.iterdir())


def test_a_ratio_of_speeds():
    class Engine:
        def __init__(self, work):
            self.work = work

        def run(self, pixels):
            for _ in range(self.work):
                pixels @ pixels

    assert speed_ratio(Engine(1), Engine(40), np.ones((150, 150))) > 4


def planted(run, folder):
    """A run with a weight in every row that eight bits cannot hold beside the others, and that meets zeros."""
    import torch
    from safetensors.torch import load_file, save_file

    shutil.copytree(run, folder)
    weights = load_file(folder / "model.safetensors")
    for name in [name for name in weights if name.endswith("norm2.weight")]:
        weights[name][0] = weights[name.replace("weight", "bias")][0] = 0
    for name in [name for name in weights if name.endswith("mlp.fc1.weight")]:
        weights[name][:, 0] = 1e5
    assert all(bool(torch.isfinite(value).all()) for value in weights.values())
    save_file(weights, folder / "model.safetensors")


@pytest.mark.slow
def test_a_run_that_no_rung_serves(trained, tmp_path):
    """For OpenVINO the file falls to bf16, and says so; for ONNX it is rejected."""
    planted(trained, tmp_path / "run")
    # What excludes layers would exclude all that were planted.
    text = """
import sys
import regard
from regard.export import quantize
quantize.RUNGS = ("without SmoothQuant", "ORT dynamic")
for kind in ("openvino", "onnx"):
    options = {"precision": "int8", "max_drop": 1, "calibrate": 64}
    made = regard.export_model(sys.argv[1], kind, f"{sys.argv[2]}/{kind}", **options)
    print(made.file.name, made.passed)
"""
    call = [sys.executable, "-c", text, str(tmp_path / "run"), str(tmp_path)]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["model.bf16.xml True", "model.onnx.rejected False"]
    assert regard.load(tmp_path / "openvino" / "model.bf16.xml").model.engine.outputs
    report = json.loads((tmp_path / "openvino" / "export.json").read_text())
    assert (report["precision"], report["asked"]) == ("bf16", "int8")
    assert report["tried"][0]["way"] == "without SmoothQuant"
    assert any("the file is in bf16" in warning for warning in report["warnings"])
    assert sorted(path.name for path in (tmp_path / "onnx").iterdir()) == ["export.json", "model.onnx.rejected"]


@pytest.mark.slow
def test_a_changed_weight_is_rejected_and_its_layer_named(tmp_path):
    """Of a file in which one weight is another, the first layer that deviates is the one of that weight."""
    text = """
import sys
import numpy as np, onnx
from onnx import numpy_helper
import regard
from regard.api import export
from regard.export import write
for name in sys.argv[3:]:
    real = write.write
    def write_changed(made, file, to):
        real(made, file, to)
        model = onnx.load(file)
        tensor = next(t for t in model.graph.initializer if t.name.endswith(name))
        values = numpy_helper.to_array(tensor).copy()
        values.flat[np.abs(values).argmax()] += 20
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
        onnx.save(model, file)
    write.write = write_changed
    made = regard.export_model(sys.argv[1], "onnx", f"{sys.argv[2]}-{name}")
    write.write = real
    print(made.file.name, made.report.first_deviating_layer)
"""
    names = ["blocks.0.mlp.fc1.bias", "blocks.1.mlp.fc2.bias", "blocks.1.norm1.weight", "head.bias"]
    call = [sys.executable, "-c", text, RUN, tmp_path / "new", *names]
    done = subprocess.run([str(one) for one in call], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    layers = [name.rpartition(".")[0] for name in names]
    assert done.stdout.splitlines() == [f"model.onnx.rejected {layer}" for layer in layers]
