"""Are the lower bounds of pyproject true? Tries them in a virtual environment of their own, .venv-lowest.

Run: make lowest PYTHON=python3.11
PyTorch and torchvision stay at the pin of constraints.txt: older ones than the tests ran with are not promised to
install. A bound that does not install with the others is named, and the pin takes its place. Then: `import regard`,
the commands' first words, and the quick tests of a few rooms.
"""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / ".venv-lowest"
PINNED = ("torch", "torchvision")
ROOMS = ("ops", "mixers", "recipes", "data")  # these need no peer
FIRST_WORDS = ("--version", "models", "mixers", "recipes", "doctor", "data list", "data check digits")


def main() -> None:
    if sys.version_info[:2] != (3, 11):
        print(f"pyproject's lowest Python is 3.11, this is {sys.version.split()[0]}; name one, as in PYTHON=python3.11")
    python = FOLDER / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(FOLDER)], check=True)
    install(python, wanted())
    run(python, "-c", "import regard; print('import regard', regard.__version__)")
    for words in FIRST_WORDS:
        said = run(python, "-m", "regard", *words.split(), quiet=True)
        print(next(line for line in said.splitlines() if line.strip()))
    rooms = [f"tests/{room}" for room in ROOMS]
    # What older packages warn of is no failure here.
    run(python, "-m", "pytest", "-q", "-m", "not slow", "-W", "default", "-p", "no:cacheprovider", *rooms)


def wanted() -> dict[str, str]:
    """{package: NAME==VERSION}: the lower bounds; the pins of PyTorch, torchvision and what only the tests need."""
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    tests = [line for line in extras["dev"] if line.startswith(("pytest", "hypothesis", "beartype"))]
    bounds = dict(line.split(">=") for line in [*project["dependencies"], *extras["onnx"], *extras["supervision"]])
    pinned = [*PINNED, *(line.split(">=")[0] for line in tests)]
    return {name: f"{name}=={bound}" for name, bound in bounds.items()} | {
        name: f"{name}=={pins[name]}" for name in pinned
    }


def install(python: Path, lines: dict[str, str]) -> None:
    """All at once; where that fails, PyTorch first and then each, and without its bound where that does not install."""
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    editable = ["--editable", str(ROOT)]
    if subprocess.run([*pip, *lines.values(), *editable], check=False).returncode == 0:
        return
    subprocess.run([*pip, *(lines[name] for name in PINNED), *editable], check=True)
    installed = [lines[name] for name in PINNED]
    for name, line in lines.items():
        if name in PINNED:
            continue
        if subprocess.run([*pip, line, *installed], check=False, capture_output=True).returncode == 0:
            installed.append(line)
        else:
            print(f"{line} does not install with the others; what pip chose stays")
            subprocess.run([*pip, name, *installed], check=True)


def run(python: Path, *arguments: str, quiet: bool = False) -> str:
    """What it says, if it is not to say it here. An error ends it all."""
    print("$ python", *arguments, flush=True)
    return subprocess.run(
        [str(python), *arguments], cwd=ROOT, check=True, text=True, stdout=subprocess.PIPE if quiet else None
    ).stdout


if __name__ == "__main__":
    main()
