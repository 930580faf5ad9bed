"""`regard doctor` says what is there: versions, extras, and the fast paths that are on."""

import importlib.util
import tomllib
from pathlib import Path
from typing import get_args

from regard.cli.about import OPTIONAL
from regard.ops.attention import AttentionImpl
from regard.ops.favor.attention import FavorImpl
from regard.ops.fourier import FourierImpl
from regard.ops.local.attention import LocalImpl

FAST = {"attention": AttentionImpl, "performer": FavorImpl, "fourier": FourierImpl, "local": LocalImpl}


def test_every_fast_path_is_named_with_its_state(regard):
    told = regard("doctor")
    assert told.status == 0
    for mixer, impl in FAST.items():
        for path in set(get_args(impl)) - {"auto", "math"}:
            (line,) = [line for line in told.out.splitlines() if f"{mixer}: {path} " in line]
            assert any(word in line for word in (" on ", " on", "off: ", "for exports")), line
    assert "only the readable path" not in told.out


def test_what_is_optional_is_what_the_package_says(regard):
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert OPTIONAL.keys() == project["optional-dependencies"].keys() - {"dev", "docs", "peers"}
    out = regard("doctor").out
    for extra, (package, _) in OPTIONAL.items():
        assert package in project["optional-dependencies"][extra][0]
        (line,) = [line for line in out.splitlines() if f"{package} (optional)" in line]
        there = importlib.util.find_spec(package.replace("-", "_")) is not None
        assert ("not installed" in line) is not there
        assert (f"pip install 'regard[{extra}]'" in line) is not there
    assert "timm (optional)" not in out
    assert any(line.split("│")[1:2] and "timm" in line and "optional" not in line for line in out.splitlines())


def test_engines_and_their_precisions(regard):
    out = regard("doctor").out
    for engine, package in (("onnx", "onnxruntime"), ("openvino", "openvino")):
        (line,) = [line for line in out.splitlines() if f"engine: {engine} " in line]
        there = importlib.util.find_spec(package) is not None and importlib.util.find_spec("onnxscript") is not None
        assert ("off: " in line) is not there
        assert ("fp32" in line) is ("int8" in line) is there
