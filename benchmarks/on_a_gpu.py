"""What needs a GPU, in at most eight minutes: the tests marked `gpu`, and the benchmarks that use one.

Run: make gpu PYTHON=/path/to/python   (or that Python with this file)
It installs nothing: it takes the PyTorch that is there, and names what it skips. Results, with the device's name, are
written under results/; the outcome of each part as on_a_gpu-<device>.json.
"""

import os
import subprocess
import sys
import tempfile
import time
import tomllib
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[1]
MINUTES = 8
BENCHMARKS = ("local_attention.py", "vit.py", "transformer.py")
NEEDED = ("torch", "torchvision", "safetensors", "pydantic", "jaxtyping")  # without these nothing runs
NAMES = {"pyyaml": "yaml", "pillow": "PIL", "scikit-learn": "sklearn", "faster-coco-eval": "faster_coco_eval"}
CONFIGURATION = "[pytest]\nmarkers =\n    gpu\n    slow\n    shape_checks\n    timeout\n"


def main() -> None:
    end = time.monotonic() + 60 * MINUTES
    missing = packages_that_are_missing()
    print("not installed:", ", ".join(missing) or "nothing")
    if any(name in NEEDED for name in missing):
        sys.exit(f"nothing can run without {', '.join(NEEDED)}")
    check_versions()
    import torch

    if not torch.cuda.is_available():
        sys.exit(f"skipped everything: PyTorch {torch.__version__} finds no CUDA device")
    print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}", flush=True)
    outcomes: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        configuration = Path(folder) / "pytest.ini"
        configuration.write_text(CONFIGURATION, encoding="utf-8")
        for file in sorted((ROOT / "tests").rglob("test_*.py")):
            if "mark.gpu" not in file.read_text(encoding="utf-8"):
                continue
            name = str(file.relative_to(ROOT))
            if find_spec("pytest") is None:
                outcomes[name] = "skipped: pytest is not installed"
                continue
            options = [
                "-c",
                str(configuration),
                "--rootdir",
                str(ROOT),
                "-q",
                "-rs",
                "-m",
                "gpu",
                "-p",
                "no:cacheprovider",
            ]
            outcomes[name] = run(["-m", "pytest", *options, name], end)
    for name in BENCHMARKS:
        outcomes[f"benchmarks/{name}"] = run([f"benchmarks/{name}"], end)
    from peer import save

    for name, outcome in outcomes.items():
        print(f"{name}: {outcome}")
    print(f"saved to {save('on_a_gpu', {'not_installed': missing, 'outcomes': outcomes})}")
    sys.exit(any(outcome.startswith("failed") for outcome in outcomes.values()))


def run(arguments: list[str], end: float) -> str:
    """How `python ARGUMENTS` ended, in the time that is left."""
    left, start = end - time.monotonic(), time.monotonic()
    if left < 10:
        return "skipped: no time was left"
    print(f"python {' '.join(arguments)}", flush=True)
    paths = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH")]))
    try:
        done = subprocess.run(
            [sys.executable, *arguments], cwd=ROOT, env={**os.environ, "PYTHONPATH": paths}, check=False, timeout=left
        )
    except subprocess.TimeoutExpired:
        return f"skipped: it did not end in the {left:.0f} s that were left"
    seconds = f"in {time.monotonic() - start:.0f} s"
    return f"passed {seconds}" if done.returncode == 0 else f"failed with status {done.returncode} {seconds}"


def project() -> dict[str, str]:
    """The lower bound of each of pyproject's dependencies."""
    table = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return dict(line.split(">=") for line in table["dependencies"])


def packages_that_are_missing() -> list[str]:
    return [
        name
        for name in [*project(), "pytest", "beartype"]
        if find_spec(NAMES.get(name, name).replace("-", "_")) is None
    ]


def check_versions() -> None:
    """Names each package that is older than pyproject asks for; such a PyTorch ends it."""
    for name, bound in project().items():
        try:
            found = version(name)
        except PackageNotFoundError:
            continue
        if parts(found) < parts(bound):
            print(f"{name} {found} is older than {bound}, the lower bound")
            if name == "torch":
                sys.exit(1)


def parts(text: str) -> tuple[int, ...]:
    """2.14.1+cu130 -> (2, 14, 1)"""
    return tuple(int(part) for part in text.partition("+")[0].split(".") if part.isdigit())


if __name__ == "__main__":
    main()
