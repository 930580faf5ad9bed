"""`make demo`, as README shows it."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PARTS = ["first-look", "comparison", "second-part"]


def run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.slow
def test_the_demo_that_make_runs(tmp_path: Path) -> None:
    """With a budget of one epoch a mixer, in the place of ten, and a few seconds for the detector."""
    if shutil.which("make") is None:
        pytest.skip("there is no make")
    assert run(["make", "--no-print-directory", "--dry-run", "demo"], ROOT).splitlines()[-1].endswith("/regard demo")
    out = tmp_path / "demo"
    short = ["--set", "train.epochs=1", "--detector-minutes", "0.05", "--no-open"]
    told = run([sys.executable, "-m", "regard", "demo", *short, "--out", str(out)], tmp_path)
    report = (out / "report.html").read_text(encoding="utf-8")
    for mixer in ("attention", "conv", "fourier"):
        assert mixer in told
        assert mixer in report
    assert re.findall(r'<section[^>]* id="(first-look|comparison|second-part)"', report) == PARTS
    assert "being made now" not in report
    assert "Box refinement, layer by layer" in report
    assert "detector: AP " in told
    assert "http" not in re.findall(r'(?:src|href)="([^"]*)', report)
