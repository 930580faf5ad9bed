"""Loading, predicting and evaluating where a system lacks what Linux has: Windows, and containers of nobody's own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

RUNS = Path(__file__).parent / "golden_runs"

# What is missing on Windows is taken away before anything is imported.
WINDOWS = """
import builtins, importlib.abc, io, os, shutil, sys

class Gone(importlib.abc.MetaPathFinder):
    names = {"resource", "fcntl", "pwd", "grp", "termios"}

    def find_spec(self, name, path=None, target=None):
        if name in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Gone())
for name in Gone.names:
    sys.modules.pop(name, None)
for name in ("geteuid", "getuid", "getegid", "getgid", "sysconf", "getloadavg", "fchmod", "chown"):
    delattr(os, name)
shutil._use_fd_functions = False  # it opens folders

def without(real):
    def opened(path, *arguments, **options):
        if isinstance(path, str | os.PathLike):
            if os.fspath(path).startswith(("/proc", "/sys")):
                raise FileNotFoundError(2, "No such file or directory", str(path))
            if os.path.isdir(path):
                raise PermissionError(13, "Permission denied", str(path))
        return real(path, *arguments, **options)
    return opened

os.open, io.open, builtins.open = without(os.open), without(io.open), without(builtins.open)
"""

# A container that was started as `docker run --user 4711`, with nothing that can be written but one folder.
CONTAINER = """
import os, pwd

def nobody(*_):
    raise KeyError("getpwuid(): uid not found: 4711")

pwd.getpwuid = pwd.getpwnam = nobody
"""

USE = """
import sys, warnings
warnings.filterwarnings("ignore", message="only soft file lock")
import numpy as np, torch, regard
from regard.cli.main import main
from regard.training.machine import machine, peak_memory_mb
from regard.errors import RegardError

runs, out = sys.argv[1:]
classifier, detector, translator, writer = (
    regard.load(f"{runs}/{task}", device="cpu") for task in ("classification", "detection", "seq2seq", "next_token")
)
image = np.arange(256, dtype=np.uint8).reshape(16, 16)
assert classifier(image).label in classifier.class_names
assert len(detector(np.repeat(image[..., None], 3, 2), threshold=0)) > 0
assert translator("vier").text is not None
assert isinstance(writer("The", max_new_tokens=2), str)
assert regard.evaluate(f"{runs}/classification", device="cpu").metrics()["loss"] > 0
local = regard.create_model("vit_pico_patch2_8", mixer="local", mixer_options={"window": 3}).eval()
assert torch.isfinite(local(torch.zeros(1, 1, 8, 8))).all()
assert regard.load(regard.save(classifier, f"{out}/saved"), device="cpu")(image) == classifier(image)
assert {"memory_gb", "processor"} <= machine().keys() and peak_memory_mb(torch.device("cpu")) >= 0
from PIL import Image
Image.fromarray(image).save(f"{out}/a.png")
sys.argv = ["regard", "predict", f"{runs}/classification", f"{out}/a.png", "-o", f"{out}/told", "--json"]
try:
    main()
except SystemExit as end:
    assert not end.code
for run in ("~", "~/run", "~nobody-here/run"):
    try:
        regard.load(run)
    except RegardError as error:
        assert "\\n" not in str(error)
    else:
        raise AssertionError(run)
print("done")
"""


def used(program: str, tmp_path: Path, **environment: str) -> None:
    env = {key: value for key, value in os.environ.items() if key not in ("HOME", "USER", "LOGNAME", "XDG_CACHE_HOME")}
    env |= {"OMP_NUM_THREADS": "1", **environment}
    done = subprocess.run(
        [sys.executable, "-c", program + USE, str(RUNS), str(tmp_path)],
        env=env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "done"
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_on_a_system_like_windows(tmp_path):
    used(WINDOWS, tmp_path)


@pytest.mark.slow
def test_in_a_container_without_a_home_or_a_name(tmp_path):
    used(CONTAINER, tmp_path)


@pytest.mark.slow
def test_with_a_home_that_cannot_be_written(tmp_path):
    (tmp_path / "home").write_text("no folder", encoding="utf-8")  # which holds for root, too
    used(CONTAINER, tmp_path, HOME=str(tmp_path / "home"), TMPDIR=str(tmp_path / "nowhere"))
