"""A trained classifier and a trained detector as files: verified, used like the runs, and without PyTorch.

Files are made in processes of their own: exports are strict, and the tests' shape checker decorates.
"""

import json
import os
import runpy
import shutil
import subprocess
import sys
from importlib.metadata import distribution
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from PIL import Image
from tests_of_export import command

import regard
from regard import RegardError
from regard.data import open_images

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript", reason="onnxscript, which PyTorch's exporter needs, is not installed")

GOLDEN = Path(__file__).parent.parent / "golden_runs"
KINDS = [
    "onnx",
    pytest.param(
        "openvino", marks=pytest.mark.skipif(find_spec("openvino") is None, reason="OpenVINO is not installed")
    ),
]
NAMES = {"onnx": "model.onnx", "openvino": "model.xml"}
BARE = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """exported(task, kind) -> (run, folder): made once, by the command."""
    made = {}

    def export(task, kind):
        if (task, kind) not in made:
            folder = tmp_path_factory.mktemp(f"{task}-{kind}")
            shutil.copytree(GOLDEN / task, folder / "run")
            done = command("export", folder / "run", "--to", kind, "-o", folder / "out")
            assert done.returncode == 0, done.stderr
            assert len(done.stderr.splitlines()) <= 1  # that an older version made the run
            made[task, kind] = folder / "run", folder / "out"
        return made[task, kind]

    return export


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_classifier(exported, kind):
    run, out = exported("classification", kind)
    report = json.loads((out / "export.json").read_text())
    images = open_images("digits", channels=1, val_fraction=0.25, split_seed=0)
    assert report["passed"] is True
    assert report["faults"] == []
    assert report["images"] == len(images.val) == 450
    assert report["images_are"] == "held-out"
    assert report["agreement"] == 1.0
    assert report["before"] == report["after"]
    assert report["interval"] == [0.0, 0.0]
    assert [one["shape"][0] for one in report["parity"]] == [1, 5]
    assert all(one["largest_difference"] <= 1e-4 for one in report["parity"])

    before, after = regard.load(run, device="cpu"), regard.load(out / NAMES[kind])
    assert after.class_names == before.class_names
    assert after.preprocessing == before.preprocessing
    pixels = [images.val.read(index) for index in range(450)]
    for ours, theirs in zip(before.predict(pixels), after.predict(pixels), strict=True):
        assert ours.label == theirs.label
        assert dict(zip(ours.class_names, ours.probabilities, strict=True)) == pytest.approx(
            dict(zip(theirs.class_names, theirs.probabilities, strict=True)), abs=1e-4
        )
    assert regard.evaluate(out / NAMES[kind]).metrics() == pytest.approx(regard.evaluate(run).metrics(), abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_images_of_every_kind(exported, kind, tmp_path):
    """Files and pixels of every kind that `predict` reads give the same answers from the file as from the run."""
    run, out = exported("classification", kind)
    before, after = regard.load(run, device="cpu"), regard.load(out / NAMES[kind])
    random = np.random.default_rng(0)
    colour = random.integers(0, 256, (30, 47, 3), np.uint8)
    tall = Image.fromarray(random.integers(0, 65536, (40, 9), np.uint16))
    tall.save(tmp_path / "deep.png")
    Image.fromarray(colour).save(tmp_path / "turned.jpg", exif=_turned())
    Image.fromarray(np.dstack([colour, colour[..., 0]])).save(tmp_path / "clear.png")
    Image.fromarray(colour).convert("P").save(tmp_path / "palette.gif")
    Image.fromarray(colour).convert("CMYK").save(tmp_path / "cmyk.tif")
    inputs = [*sorted(map(str, tmp_path.iterdir())), colour, colour[..., 0], Image.fromarray(colour)]
    inputs += [(tmp_path / "deep.png").read_bytes(), torch.from_numpy(colour[None, ..., 0].copy())]
    for ours, theirs in zip(before.predict(inputs), after.predict(inputs), strict=True):
        assert theirs.label == ours.label
        assert theirs.probabilities == pytest.approx(ours.probabilities, abs=1e-4)


def _turned():
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_detector(exported, kind):
    run, out = exported("detection", kind)
    report = json.loads((out / "export.json").read_text())
    assert report["passed"] is True
    assert report["metric"] == "ap"
    assert report["after"] == pytest.approx(report["before"], abs=1e-3)
    sizes = [one["shape"][2:] for one in report["parity"]]
    assert len({tuple(size) for size in sizes}) == 2
    assert all(height != width for height, width in sizes)

    before, after = regard.load(run, device="cpu"), regard.load(out / NAMES[kind])
    assert after.class_names == before.class_names
    assert after.category_ids == before.category_ids
    assert after.calibration == before.calibration
    random = np.random.default_rng(0)
    for count, size in ((1, (64, 64)), (17, (48, 64))):
        images = [random.integers(0, 256, (*size, 3), np.uint8) for _ in range(count)]
        for ours, theirs in zip(
            before.predict(images, threshold=0.0), after.predict(images, threshold=0.0), strict=True
        ):
            assert len(theirs) == len(ours) > 0
            assert theirs.scores[:10].tolist() == pytest.approx(ours.scores[:10].tolist(), abs=1e-4)
            assert theirs.boxes_xyxy[0].tolist() == pytest.approx(ours.boxes_xyxy[0].tolist(), abs=0.01)


LOOSE = """
import sys
from dataclasses import replace
from pathlib import Path
import numpy as np
import regard
from regard.export.write import make, with_size, write
from regard.tasks import Calibration
run, kind, file = sys.argv[1:]
detector = regard.load(run, device="cpu")
pixels = list(np.random.default_rng(1).integers(0, 256, (3, 64, 48, 3), np.uint8))
scores = [float(one.scores.median()) for one in detector.predict(pixels, threshold=0.0, nms="off")]
least = tuple(np.linspace(min(scores), max(scores), len(detector.class_names)).tolist())
detector.calibration = replace(Calibration.default(0.4, detector.class_names), thresholds=least)
write(make(*with_size(detector, None), to=kind), Path(file), kind)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_what_a_detector_reports_stands_in_the_graph(kind, tmp_path):
    """Thresholds, suppression and the number of objects: the outputs are what `predict` gives.

    An untrained detector is sure of nothing: its file gets thresholds that half of the pairs pass.
    """
    file = tmp_path / NAMES[kind]
    call = [sys.executable, "-c", LOOSE, str(GOLDEN / "detection"), kind, str(file)]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    detector, loaded = regard.load(GOLDEN / "detection", device="cpu"), regard.load(file)
    detector.calibration = loaded.calibration
    pixels = np.random.default_rng(1).integers(0, 256, (3, 64, 48, 3), np.uint8)
    assert detector.preprocessing.prepared_size(64, 48) == (64, 48)
    found = loaded.model.engine.run(pixels)
    suppressed = 0
    for index, wanted in enumerate(detector.predict(list(pixels))):
        count = int(found["num_detections"][index])
        suppressed += len(detector.predict(pixels[index], nms="off")) - len(wanted)
        assert count == len(wanted) > 3
        assert found["scores"][index, :count] == pytest.approx(wanted.scores.numpy(), abs=1e-5)
        assert found["labels"][index, :count].tolist() == wanted.labels.tolist()
        assert found["boxes_xyxy"][index, :count] == pytest.approx(wanted.boxes_xyxy.numpy(), abs=1e-2)
        assert not found["scores"][index, count:].any()
    assert suppressed > 0


SEVERAL = """
import sys
from pathlib import Path
import torch
import regard
from regard.data import Preprocessing
from regard.export.write import make, with_size, write
from regard.models import ViTConfig, build
from regard.tasks import Classifier, LabelThresholds
resize, size, kind, file, folder = sys.argv[1:]
torch.manual_seed(0)
config = ViTConfig(img_size=(16, 24), patch_size=4, num_classes=3, embed_dim=16, depth=1, num_heads=2, pool="avg")
pre = Preprocessing((16, 24), 3, (0.5, 0.4, 0.3), (0.2, 0.3, 0.2), "bicubic", 1.0, resize=resize)
thresholds = LabelThresholds(("a", "b", "c"), (0.3, 0.5, 0.7), 0.5, (), 9, "measured")
classifier = Classifier(build(config), ("a", "b", "c"), pre, thresholds)
classifier.model_name = "vit_tiny_patch16_224"
regard.save(classifier, folder)
sized, shape = with_size(classifier, size or None)
write(make(sized, shape, to=kind), Path(file), kind)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("resize", "size"), [("crop", ""), ("letterbox", ""), ("squash", "dynamic"), ("crop", "20x32")]
)
def test_several_labels_and_every_kind_of_resize(kind, resize, size, tmp_path):
    file = tmp_path / NAMES[kind]
    call = [sys.executable, "-c", SEVERAL, resize, size, kind, str(file), str(tmp_path / "saved")]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    before, after = regard.load(tmp_path / "saved", device="cpu"), regard.load(file)
    assert after.calibration == before.calibration
    if size == "20x32":
        assert after.preprocessing.img_size == (20, 32)
        before = type(before)(before.model, before.class_names, after.preprocessing, before.calibration)
    random = np.random.default_rng(0)
    images = [random.integers(0, 256, (*shape, 3), np.uint8) for shape in ((16, 24), (40, 31), (9, 70))]
    for ours, theirs in zip(before.predict(images), after.predict(images), strict=True):
        assert theirs.labels == ours.labels
        assert theirs.probabilities == pytest.approx(ours.probabilities, abs=1e-5)
    # The printed reader gives the same, but for how Pillow rounds what it resizes.
    reader = runpy.run_path(str(files("regard.export") / "reader.py"))
    run, contract = reader["open_model"](str(file))
    for number, (image, one) in enumerate(zip(images, after.predict(images), strict=True)):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
        found = dict(reader["answer"](run, contract, str(tmp_path / f"{number}.png")))
        wanted = dict(zip(one.class_names, one.probabilities, strict=True))
        assert all(probability == pytest.approx(wanted[name], abs=0.02) for name, probability in found.items())
        assert set(found) == set(one.labels)


def environment(folder, *packages):
    """The Python of a new environment that has these packages, what they need, and nothing else."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    site = next(folder.glob("lib*/python*/site-packages"))
    waiting, seen = list(packages), set()
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name in seen:
            continue
        seen.add(name)
        found = distribution(name)
        needed = [Requirement(text) for text in found.requires or ()]
        waiting += [one.name for one in needed if one.marker is None or one.marker.evaluate({"extra": ""})]
        for top in {Path(file).parts[0] for file in found.files or () if ".." not in Path(file).parts}:
            if not (site / top).exists():
                (site / top).symlink_to(found.locate_file(top))
    return folder / "bin" / "python"


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_printed_reader_needs_no_torch(exported, kind, tmp_path):
    _, out = exported("classification", kind)
    text = command("export", "--to", kind, "--snippet").stdout
    assert text == (files("regard.export") / "reader.py").read_text(encoding="utf-8")
    (tmp_path / "reader.py").write_text(text, encoding="utf-8")
    images = open_images("digits", channels=1, val_fraction=0.25, split_seed=0).val
    for index in range(450):
        Image.fromarray(images.read(index)[0].numpy()).save(tmp_path / f"{index:03}.png")
    python = environment(tmp_path / "environment", "numpy", "pillow", {"onnx": "onnxruntime"}.get(kind, kind))
    for absent in ("torch", "regard"):
        call = [python, "-c", f"import {absent}"]
        assert b"ModuleNotFoundError" in subprocess.run(call, env=BARE, capture_output=True, check=False).stderr
    names = sorted(path.name for path in tmp_path.glob("*.png"))
    call = [python, "reader.py", str(out / NAMES[kind]), *names]
    done = subprocess.run(call, cwd=tmp_path, env=BARE, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    wanted = regard.load(out / NAMES[kind]).predict([tmp_path / name for name in names])
    assert [name for name, _ in told] == names
    for (_, (label, probability)), one in zip(told, wanted, strict=True):
        assert label == one.label
        assert probability == pytest.approx(one.probabilities[0], abs=1e-4)


@pytest.mark.slow
def test_a_pt2_is_written_and_verified_and_not_read(exported):
    _, out = exported("detection", "pt2")
    report = json.loads((out / "export.json").read_text())
    assert report["passed"] is True
    assert max(one["largest_difference"] for one in report["parity"]) <= 1e-4
    with pytest.raises(RegardError, match="not read"):
        regard.load(out / "model.pt2")


@pytest.mark.slow
def test_a_file_a_size_and_a_batch(exported, tmp_path):
    run, _ = exported("classification", "onnx")
    done = command("export", run, "-o", tmp_path / "small.onnx", "--size", "12x16", "--batch", "4", "--pixels", "float")
    assert done.returncode in (0, 3), done.stderr
    file = next(tmp_path.glob("small.onnx*"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small.export.json", file.name]
    report = json.loads((tmp_path / "small.export.json").read_text())
    assert [one["shape"] for one in report["parity"]] == [[4, 1, 12, 16], [1, 1, 12, 16]]
    again = command("export", run, "-o", tmp_path / file.name.removesuffix(".rejected"))
    if file.suffix == ".onnx":
        assert (again.returncode, "exists already" in again.stderr) == (1, True)


def test_what_cannot_be_exported(tmp_path):
    run = GOLDEN / "classification"
    for options, part in [
        ({"to": "onnxx"}, "did you mean 'onnx'"),
        ({"precision": "fp64"}, "fp32"),
        ({"precision": "bf16"}, "is for --to openvino"),
        ({"pixels": "int"}, "uint8"),
        ({"size": "7x"}, "HEIGHTxWIDTH"),
        ({"size": 0}, "HEIGHTxWIDTH"),
        ({"batch": 0}, "--batch"),
        ({"batch": "many"}, "--batch"),
        ({"max_drop": -1}, "--max-drop"),
        ({"out": tmp_path}, None),
        ({"out": tmp_path / "x.xml"}, ".onnx"),
        ({"out": tmp_path / "missing" / "x.onnx"}, "is no folder"),
    ]:
        if part is None:
            (tmp_path / "there").touch()
            part = "exists already"
        with pytest.raises(RegardError) as caught:
            regard.export_model(run, **options)
        assert part in str(caught.value)
    with pytest.raises(RegardError, match="reads texts"):
        regard.export_model(GOLDEN / "seq2seq", out=tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_a_missing_extra_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(RegardError) as caught:
        regard.export_model(GOLDEN / "classification", out=tmp_path / "new")
    assert str(caught.value) == "export --to onnx needs the package onnxscript: pip install 'regard[onnx]'"
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.delitem(sys.modules, "onnxscript")
    with pytest.raises(RegardError, match=r"pip install 'regard\[openvino\]'"):
        regard.export_model(GOLDEN / "classification", "openvino", tmp_path / "new")
    monkeypatch.setitem(sys.modules, "onnx", None)  # which the extra openvino brings too
    with pytest.raises(RegardError, match=r"needs the package onnx: pip install 'regard\[openvino\]'"):
        regard.export_model(GOLDEN / "classification", "openvino", tmp_path / "new")
    assert not list(tmp_path.iterdir())
