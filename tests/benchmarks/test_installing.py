"""What the benchmark of an installation counts."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOG = """2026-11-29T15:28:25,901   Downloading typer-0.29.2-py3-none-any.whl.metadata (18 kB)
2026-11-29T15:28:25,901   Downloading typer-0.29.2-py3-none-any.whl (121 kB)
2026-11-29T15:28:28,964     Downloading setuptools-84.2.1-py3-none-any.whl (1.5 MB)
2026-11-29T15:28:28,959   Downloading setuptools-84.2.1-py3-none-any.whl (1.5 MB)
2026-11-29T15:28:26,033   Downloading docopt-0.6.2.tar.gz (25 kB)
2026-11-29T15:28:26,033   Downloading torch-2.14.1-cp311-cp311-manylinux_2_28_x86_64.whl (2.0 GB)
"""


@pytest.fixture
def installing(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import installing

    yield installing
    for name in ("installing", "image_size", "peer"):
        sys.modules.pop(name, None)


def test_each_package_is_counted_once_and_without_its_metadata(installing):
    assert installing.downloaded(LOG) == pytest.approx(0.121 + 1.5 + 0.025 + 2000)


def test_what_regard_wants_and_what_an_extra_adds(installing):
    base = installing.closure("regard")
    assert base >= {"torch", "torchvision", "numpy", "tomli-w", "pydantic-core", "jinja2"}
    assert not base & {"regard", "pytest", "openvino", "captum"}
    onnx, openvino = (installing.closure("regard", [extra]) - base for extra in ("onnx", "openvino"))
    assert onnx >= {"onnx", "onnxruntime", "onnxscript"}
    assert onnx < openvino  # which names `regard[onnx]`


def test_a_package_has_a_size_and_a_wheel_too(installing, tmp_path):
    import zipfile

    assert installing.of({"typer", "rich"}) > 0.5
    with zipfile.ZipFile(tmp_path / "torch-2.13.0+cpu-cp311-cp311-linux.whl", "w") as archive:
        archive.writestr("a.py", b"x" * 3_000_000)
    found = installing.of_wheel(tmp_path / "torch-2.13.0+cpu-cp311-cp311-linux.whl")
    assert found == {"wheel": "torch-2.13.0+cpu", "download_mb": 3, "mb": 3}
