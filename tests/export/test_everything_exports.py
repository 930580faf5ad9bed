"""Every model as ONNX with a free batch: ONNX Runtime and OpenVINO give what PyTorch gives, at batches of 1, 2 and 5.

Each group is exported by `cells.py` in a process of its own: without the shape checker's decorators.
"""

import functools
import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from regard.mixers import MIXERS

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript", reason="onnxscript, which PyTorch's exporter needs, is not installed")

VITS = [f"{mixer}, {pool}" for mixer in MIXERS for pool in ("token", "avg")]
SIZES = [f"{mixer}, another size" for mixer in MIXERS if mixer != "mlp"]
CELLS = {
    "vits": [*VITS, *SIZES, "registers, distilled"],
    "large_windows": ["local, 19 x 23", "local, a window beyond the grid", "local, free sides"],
    "others": [
        *("DINOv2", "sasa_resnet26", "sasa_resnet38", "sasa_resnet50", "attention stem"),
        *("FNet", "LanguageModel", "Transformer"),
    ],
    "detectors": ["DETR", "DETR, mask", "DETR, local", "DN-DETR", "DN-DETR, mask", "DN-DETR, dense"],
    "free_sides": ["DETR, free sides", "DETR, mask and free sides", "DN-DETR, free sides"],
}


@functools.cache
def group(name):
    command = [sys.executable, str(Path(__file__).with_name("cells.py")), name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    cells = map(json.loads, done.stdout.splitlines())
    return {cell["cell"]: cell for cell in cells}


def holds(cell):
    assert "error" not in cell, cell["error"]
    assert cell["domains"] == [""]
    assert not [name for name in cell["operations"] if "regard" in name]
    assert "onnx" in cell["differences"]
    for engine, largest in cell["differences"].items():
        assert largest <= 1e-4, (engine, largest)


def test_a_vit():
    holds(group("one")["attention, token"])


@pytest.mark.slow
@pytest.mark.parametrize(("name", "cell"), [(name, cell) for name, cells in CELLS.items() for cell in cells])
def test_every_model(name, cell):
    holds(group(name)[cell])


@pytest.mark.slow
@pytest.mark.parametrize("name", CELLS)
def test_no_cell_is_forgotten(name):
    assert sorted(group(name)) == sorted(CELLS[name])


@pytest.mark.skipif(find_spec("openvino") is None, reason="OpenVINO is not installed")
def test_openvino_takes_part():
    assert "openvino" in group("one")["attention, token"]["differences"]
