"""What is published: its files, and that it works and shows its types where the repository is not.

The wheel is installed into an environment of its own, which borrows what Regard needs from this one, but not Regard.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
from PIL import Image

import regard

ROOT = Path(__file__).parents[1]
PYRIGHT = ROOT / "node_modules" / "pyright" / "index.js"
LARGEST = 2_000_000
# A user's mistakes, which show that the types of the wheel are seen.
MISTAKES = """import regard

regard.create_model(3)
regard.train("vit-digits", minutes="ten")
"""
pytestmark = pytest.mark.slow


def call(*command: str | Path, where: Path) -> str:
    """What a command prints, without the repository on Python's path."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=where, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """The folder of the source distribution, and of the wheel that was built from that."""
    folder = tmp_path_factory.mktemp("built")
    call(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT, where=folder)
    return folder


@pytest.fixture(scope="module")
def wheel(built) -> Path:
    (file,) = built.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory) -> Path:
    """The Python of a fresh environment with the wheel in it."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    call(sys.executable, "-m", "pip", "--python", folder, "install", "--no-deps", "--no-index", wheel, where=folder)
    (packages,) = folder.glob("lib/python*/site-packages")
    borrowed = [path for path in sys.path if Path(path).name == "site-packages"]
    (packages / "borrowed.pth").write_text("\n".join(borrowed))  # whose own .pth files are not followed
    return folder / "bin" / "python"


def test_the_wheel_is_the_package_and_nothing_else(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    package = ROOT / "src" / "regard"
    files = {path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert {path.suffix for path in files} >= {".py", ".cpp", ".j2", ".css", ".js", ".toml", ".typed"}
    mine = {name for name in names if not name.startswith(f"regard-{regard.__version__}.dist-info/")}
    assert mine == {f"regard/{path.relative_to(package)}" for path in files}
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert wheel.stat().st_size <= LARGEST


def test_the_source_distribution_builds_the_same_wheel(built, wheel, tmp_path):
    """As the repository does, to the byte; and it has what its tests and its site need."""
    call(sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", tmp_path, ROOT, where=tmp_path)
    assert (tmp_path / wheel.name).read_bytes() == wheel.read_bytes()
    (source,) = built.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert names >= {"README.md", "CHANGELOG.md", "CITATION.cff", "constraints.txt", "Makefile", "tests/test_wheel.py"}


def test_pypi_can_show_the_description(built):
    call(sys.executable, "-m", "twine", "check", "--strict", *built.iterdir(), where=built)


def test_the_python_of_readme_runs_on_the_wheel(python, tmp_path):
    """With a run and a picture as README's commands leave them; the C++ file is compiled from the wheel."""
    shutil.copytree(ROOT / "tests" / "golden_runs" / "classification", tmp_path / "runs" / "mine")
    Image.linear_gradient("L").save(tmp_path / "photo.jpg")
    (code,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.M | re.S)
    code += "\nprint(regard.__file__, out.shape, regard.ops.native_state().reason)\n"
    answer, last = call(python, "-W", "error", "-c", code, where=tmp_path).splitlines()
    assert re.fullmatch(r"\d 0\.\d+", answer)
    packages = next(python.parents[1].glob("lib/python*/site-packages"))
    assert last.startswith(f"{packages / 'regard' / '__init__.py'} torch.Size([1, 8, 56, 56, 32]) ")
    assert call(python.with_name("regard"), "--version", where=tmp_path) == f"regard {regard.__version__}\n"


@pytest.fixture
def user(tmp_path) -> Path:
    """A folder with a user's file, and one of mistakes."""
    shutil.copy(ROOT / "tests" / "user_code.py", tmp_path)
    (tmp_path / "mistakes.py").write_text(MISTAKES)
    return tmp_path


def test_mypy_reads_the_types_of_the_wheel(python, user):
    command = [sys.executable, "-m", "mypy", "--strict", "--python-executable", str(python), "--no-color-output"]
    done = subprocess.run([*command, "user_code.py", "mistakes.py"], cwd=user, capture_output=True, text=True)
    found = re.findall(r"^(\S+?):(\d+): error: .*\[([\w-]+)\]$", done.stdout, flags=re.M)
    assert found == [("mistakes.py", "3", "arg-type"), ("mistakes.py", "4", "arg-type")], done.stdout + done.stderr


@pytest.mark.skipif(not PYRIGHT.exists() or not shutil.which("node"), reason="pyright is not installed: npm ci")
def test_pyright_reads_the_types_of_the_wheel(python, user):
    (user / "pyrightconfig.json").write_text('{"typeCheckingMode": "strict"}')
    command = ["node", str(PYRIGHT), "--pythonpath", str(python), "--outputjson"]
    done = subprocess.run(command, cwd=user, capture_output=True, text=True)
    told = json.loads(done.stdout)["generalDiagnostics"]
    found = [(Path(one["file"]).name, one["range"]["start"]["line"] + 1, one.get("rule")) for one in told]
    assert found == [("mistakes.py", 3, "reportArgumentType"), ("mistakes.py", 4, "reportArgumentType")], told
