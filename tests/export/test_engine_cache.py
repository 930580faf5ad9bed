"""`--engine`: the answers are the run's; a file is written once, and again only where it is damaged."""

import json
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests_of_export import command

import regard
from regard import RegardError
from regard.api import engine_cache
from regard.api.engine_files import installed_engines
from regard.ops.precision import has_bf16

GOLDEN = Path(__file__).parent.parent / "golden_runs"
FILES = [
    engine
    for engine, packages in {"onnx": ("onnxscript", "onnxruntime"), "openvino": ("onnxscript", "openvino")}.items()
    if all(find_spec(package) for package in packages)
]
IMAGES = [
    np.random.default_rng(n).integers(0, 256, shape, np.uint8) for n, shape in enumerate([(64, 64, 3), (48, 64, 3)])
]


@pytest.fixture
def run(tmp_path):
    def copied(task):
        return shutil.copytree(GOLDEN / task, tmp_path / task)

    return copied


def require_same(found, wanted):
    """Answers to IMAGES."""
    for ours, theirs in zip(wanted, found, strict=True):
        if hasattr(ours, "probabilities"):
            assert theirs.label == ours.label
            assert theirs.probabilities == pytest.approx(ours.probabilities, abs=1e-4)
        else:
            assert len(theirs) == len(ours) > 0
            assert theirs.scores.tolist() == pytest.approx(ours.scores.tolist(), abs=1e-4)
            assert theirs.boxes_xyxy[0].tolist() == pytest.approx(ours.boxes_xyxy[0].tolist(), abs=0.01)


def answers(predictor):
    return predictor.predict(IMAGES, **({"threshold": 0.0} if hasattr(predictor, "fused") else {}))


# In a process of its own: exports are strict, and the tests' shape checker decorates.
WRITES = """
import sys
import regard
run, *engines = sys.argv[1:]
for engine in engines:
    assert regard.load(run, engine=engine).engine == f"{engine} fp32"
"""


def write(run, *engines):
    done = subprocess.run([sys.executable, "-c", WRITES, run, *engines], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.skipif(not FILES, reason="no engine is installed")
@pytest.mark.parametrize("task", ["classification", "detection"])
def test_a_file_is_written_once_and_again_where_it_is_damaged(task, run):
    folder = run(task)
    write(folder, *FILES)
    kept = sorted((folder / "engines").glob("*/model.*"))
    assert {file.parent.name.split("-")[0] for file in kept} == set(FILES)
    before = {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in kept}
    wanted = answers(regard.load(folder, device="cpu"))
    for engine in FILES:  # which could not be exported in this process
        predictor = regard.load(folder, engine=engine)
        assert predictor.engine == f"{engine} fp32"
        require_same(answers(predictor), wanted)
    if task == "classification":  # a detector's scenes take minutes under the shape checker
        whole = regard.evaluate(folder, device="cpu").metrics()
        assert regard.evaluate(folder, engine=FILES[0]).metrics() == pytest.approx(whole, abs=1e-4)
    assert {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in kept} == before

    damaged = kept[-1]  # weights, of OpenVINO
    data = bytearray(before[damaged][1])
    data[len(data) // 2] ^= 0xFF
    damaged.write_bytes(data)
    write(folder, *FILES)
    require_same(answers(regard.load(folder, engine=FILES[-1])), wanted)
    assert damaged.read_bytes() != bytes(data)
    reports = [json.loads((file.parent / "export.json").read_text()) for file in kept]
    assert all(report["passed"] and len(report["parity"]) == 2 for report in reports)


@pytest.mark.slow
@pytest.mark.skipif("onnx" not in FILES, reason="ONNX Runtime is not installed")
def test_the_command(run, tmp_path):
    folder = run("classification")
    Image.fromarray(IMAGES[0]).save(tmp_path / "image.png")

    def predicted(engine):
        done = command("predict", folder, tmp_path / "image.png", "--engine", engine, "--json")
        assert done.returncode == 0, done.stderr
        return done

    done = predicted("auto")
    assert done.stderr.startswith("engine: ")
    found = json.loads(done.stdout)
    wanted = json.loads(predicted("torch").stdout)
    assert str(found)[:60] == str(wanted)[:60]
    choice = next(iter(json.loads((folder / "engines" / "auto.json").read_text()).values()))
    assert {"torch fp32", "optimize fp32", "onnx fp32"} <= choice["milliseconds"].keys()


def test_engines_inside_pytorch(run):
    folder = run("classification")
    wanted = answers(regard.load(folder, device="cpu"))
    for engine in ("torch", "optimize"):
        predictor = regard.load(folder, engine=engine)
        assert predictor.engine == f"{engine} fp32"
        require_same(answers(predictor), wanted)
    assert not (folder / "engines").exists()


def test_what_is_fastest_is_chosen_once(run, monkeypatch):
    folder, timed = run("classification"), []

    def times(kept, candidates):
        timed.append(candidates)
        return {"torch fp32": 3.0, "optimize fp32": 2.0}

    monkeypatch.setattr(engine_cache._Kept, "_times", times)
    monkeypatch.setattr(engine_cache, "installed_engines", lambda: ["torch", "optimize"])
    assert [regard.load(folder, engine="auto").engine for _ in range(2)] == ["optimize fp32"] * 2
    wanted = [
        ("torch", "fp32"),
        ("optimize", "fp32"),
        *([("optimize", "bf16")] if has_bf16(torch.device("cpu")) else []),
    ]
    assert timed == [wanted]
    (folder / "engines" / "auto.json").write_text("not JSON")
    assert regard.load(folder, engine="auto").engine == "optimize fp32"
    assert len(timed) == 2
    monkeypatch.setattr(engine_cache, "_machine", lambda: "another one")
    assert regard.load(folder, engine="auto", precision="fp32").engine == "optimize fp32"
    assert timed[2] == [("torch", "fp32"), ("optimize", "fp32")]


def test_only_what_passes_is_timed(run, monkeypatch):
    folder = run("classification")
    monkeypatch.setattr(engine_cache, "installed_engines", lambda: ["torch", "optimize"])

    def spoilt(kept, precision):
        raise RegardError("does not answer as the run does")

    monkeypatch.setattr(engine_cache._Kept, "optimized", spoilt)
    assert regard.load(folder, engine="auto").engine == "torch fp32"
    with pytest.raises(RegardError, match="does not answer as the run does"):
        regard.load(folder, engine="optimize")


def test_a_model_that_answers_otherwise_is_refused(run, monkeypatch):
    from regard.export import optimize as room

    folder, honest = run("classification"), room.optimize

    def spoilt(model, precision, **options):
        faster = honest(model, precision, **options)
        if isinstance(faster, torch.nn.Module):  # of the predictor's inner call
            faster.register_forward_hook(lambda module, inputs, output: output + 2 * output.flip(-1))
        return faster

    monkeypatch.setattr(room, "optimize", spoilt)
    with pytest.raises(RegardError, match=r"--engine optimize: does not answer as the run does: 1 images of"):
        regard.load(folder, engine="optimize")


def test_what_is_refused(run, monkeypatch, tmp_path):
    folder = run("classification")
    for options, told in [
        ({"engine": "opnvino"}, "did you mean 'openvino'"),
        ({"engine": "onnx", "precision": "bf16"}, "onnx has fp32"),
        ({"engine": "torch", "precision": "fp64"}, "unknown precision"),
        ({"precision": "bf16"}, "torch has fp32"),
        ({"engine": "torch", "device": "cuda"}, "leave out --device"),
    ]:
        with pytest.raises(RegardError) as caught:
            regard.load(folder, **options)
        assert told in str(caught.value)
    with pytest.raises(RegardError, match="reads texts"):
        regard.load(GOLDEN / "seq2seq", engine="auto")
    (tmp_path / "model.onnx").touch()
    with pytest.raises(RegardError, match="is a file of one engine"):
        regard.load(tmp_path / "model.onnx", engine="openvino")
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(RegardError, match=r"needs the package openvino: pip install 'regard\[openvino\]'"):
        regard.load(folder, engine="openvino")
    assert "openvino" not in installed_engines()
    assert not (folder / "engines").exists()
