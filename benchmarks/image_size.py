"""How many MB of packages the image of docs/serve/Dockerfile installs, besides its base image.

Run: .venv/bin/python benchmarks/image_size.py
Counted from the files of the packages as they are installed here; nothing is built. Compiled Python (.pyc) is left out,
since the Dockerfile writes none.
"""

import re
from importlib.metadata import distribution, version
from pathlib import Path

from peer import RESULTS, save

DOCKERFILE = Path(__file__).resolve().parents[1] / "docs" / "serve" / "Dockerfile"


def packages() -> list[str]:
    """What the Dockerfile installs, without what it would depend on."""
    line = re.search(r"pip install (.*)", DOCKERFILE.read_text(encoding="utf-8"))
    assert line is not None
    assert "--no-deps" in line[1]
    assert "--no-compile" in line[1]
    return [word for word in line[1].split() if not word.startswith("-")]


def megabytes(package: str) -> float:
    """1 MB is 10^6 bytes, as registries of images count."""
    files = distribution(package).files or []
    paths = [Path(str(file.locate())) for file in files if file.suffix != ".pyc"]
    return sum(path.stat().st_size for path in paths if path.is_file()) / 1e6


def main() -> None:
    sizes = {package: {"version": version(package), "mb": round(megabytes(package), 1)} for package in packages()}
    for package, own in sizes.items():
        print(f"{package:12} {own['version']:10} {own['mb']:7.1f} MB")
    total = round(sum(float(own["mb"]) for own in sizes.values()), 1)
    path = save("image_size", {"packages": sizes, "mb": total}, path=RESULTS / "image_size.json")
    print(f"{total:.1f} MB; saved to {path}")


if __name__ == "__main__":
    main()
