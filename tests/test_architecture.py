"""The house, top to bottom: a file imports only from rooms above its own. Read over the syntax tree, nothing is run."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import regard

PACKAGE = Path(regard.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
MAX_LINES = 400

# From top to bottom; rooms on one line don't know each other.
FLOORS = [
    ("ops",),
    ("layers",),
    ("mixers",),
    ("draw",),
    ("models",),
    ("losses", "data", "weights", "recipes"),
    ("tasks",),
    ("training",),
    ("explain",),
    ("compare",),
    ("api",),
    ("cli",),
]
OPEN_TO_ALL = {"errors", "files"}
ALLOWED = {room: {r for floor in FLOORS[:i] for r in floor} for i, floor in enumerate(FLOORS) for room in floor}
# Of the rooms that stand side by side, only these may know whole models.
for stranger in ("losses", "data"):
    ALLOWED[stranger] -= {"mixers", "models"}
ALLOWED["errors"] = set()
ALLOWED["files"] = set()
ALLOWED["draw"] = {"layers"}
ALLOWED["__init__"] = {"api"}  # what `import regard` offers
ALLOWED["__main__"] = {"cli"}


def violations(source, path):
    """What a file of the package breaks, each as "path:line: what"; `path` is relative to the package."""
    room = Path(path).parts[0].removesuffix(".py")
    if room not in ALLOWED:
        return [f"{path}:1: {room} is no room of the house; give it a floor in {Path(__file__).name}"]
    found = []
    for node in ast.walk(ast.parse(source)):
        for module, line in imported(node):
            other = module.split(".")[1] if "." in module else "api"
            if module.startswith("."):
                found.append(f"{path}:{line}: relative import of {module}")
            elif other != room and other not in ALLOWED[room] | OPEN_TO_ALL:
                found.append(f"{path}:{line}: {room} imports {module}, which is not above it")
        if isinstance(node, ast.ClassDef):
            for method in node.body:
                if (
                    isinstance(method, ast.FunctionDef)
                    and method.name in ("__init__", "__new__", "__post_init__")
                    and method.args.kwarg
                ):
                    what = f"**{method.args.kwarg.arg} in the constructor of {node.name}"
                    found.append(f"{path}:{method.lineno}: {what} would swallow a typo")
        if isinstance(node, ast.ExceptHandler) and node.type is None:
            found.append(f"{path}:{node.lineno}: bare except")
    lines = source.count("\n")
    if lines >= MAX_LINES:
        found.append(f"{path}:{lines}: has {lines} lines; {MAX_LINES} are too many for one file")
    return found


def imported(node):
    """(module, line) for each module of the package that a statement imports; a relative one begins with a dot."""
    if isinstance(node, ast.Import):
        return [(alias.name, node.lineno) for alias in node.names if alias.name.split(".")[0] == "regard"]
    if isinstance(node, ast.ImportFrom) and node.level:
        return [("." * node.level + (node.module or ""), node.lineno)]
    if isinstance(node, ast.ImportFrom) and node.module == "regard":
        # A name that is no room is what the front door offers; __version__ stands in the door itself.
        names = [alias.name for alias in node.names if not alias.name.startswith("__")]
        return [(f"regard.{name}" if name in ALLOWED else "regard", node.lineno) for name in names]
    if isinstance(node, ast.ImportFrom) and node.module.startswith("regard."):
        return [(node.module, node.lineno)]
    if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        name = str(node.args[0].value)
        if called in ("import_module", "__import__") and name.split(".")[0] == "regard":
            return [(name, node.lineno)]
    return []


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_the_house_is_in_order(file):
    found = violations(file.read_text(encoding="utf-8"), file.relative_to(PACKAGE).as_posix())
    assert not found, "\n".join(found)


def test_every_room_above_is_there():
    assert {file.relative_to(PACKAGE).parts[0] for file in FILES} >= {"ops", "layers", "mixers", "models", "errors.py"}


@pytest.mark.parametrize(
    ("path", "source", "found"),
    [
        (
            "mixers/new.py",
            "import torch\nfrom regard.models import ViT\n",
            ["mixers/new.py:2: mixers imports regard.mod"],
        ),
        ("ops/new.py", "def f():\n    import regard.layers.grid\n", ["ops/new.py:2: ops imports regard.layers.grid"]),
        ("ops/new.py", "from regard import mixers, errors\n", ["ops/new.py:1: ops imports regard.mixers"]),
        ("tasks/new.py", "from regard import create_model\n", ["tasks/new.py:1: tasks imports regard, "]),
        ("tasks/new.py", "import regard\n", ["tasks/new.py:1: tasks imports regard, "]),
        ("errors.py", "import regard.ops\n", ["errors.py:1: errors imports regard.ops"]),
        ("data/new.py", "from regard.losses.box import f\n", ["data/new.py:1: data imports regard.losses.box"]),
        ("losses/new.py", "from regard.models import f\n", ["losses/new.py:1: losses imports regard.models"]),
        ("recipes/new.py", "from regard.weights import f\n", ["recipes/new.py:1: recipes imports regard.weights"]),
        ("layers/new.py", "import_module('regard.mixers')\n", ["layers/new.py:1: layers imports regard.mixers"]),
        ("mixers/new.py", "from .base import Mixer\n", ["mixers/new.py:1: relative import of .base"]),
        ("mixers/new.py", "from .. import ops\n", ["mixers/new.py:1: relative import of .."]),
        ("serve/new.py", "x = 1\n", ["serve/new.py:1: serve is no room"]),
        ("ops/new.py", "try:\n    x = 1\nexcept:\n    pass\n", ["ops/new.py:3: bare except"]),
        (
            "layers/new.py",
            "class A:\n    def __init__(self, x, **rest):\n        pass\n    def f(self, **inputs):\n        pass\n",
            ["layers/new.py:2: **rest in the constructor of A"],
        ),
        ("ops/new.py", "x = 1\n" * 400, ["ops/new.py:400: has 400 lines"]),
        ("ops/new.py", "from regard.models import A\nfrom regard.cli import b\n", ["ops/new.py:1: ", "ops/new.py:2: "]),
        # What is in order.
        (
            "ops/new.py",
            "import torch\nfrom regard.ops.local.dense_weights import f\nfrom regard.errors import unknown\n",
            [],
        ),
        ("ops/new.py", "from regard import __version__, errors, ops\nimport regard_other.models\n", []),
        ("weights/new.py", "from regard.models import ViT\nfrom regard.mixers import MIXERS\n", []),
        ("recipes/new.py", "from regard.models import configure\n", []),
        ("data/new.py", "from regard.ops import f\nfrom regard.layers import Grid\n", []),
        ("cli/new.py", "import regard\nfrom regard import api\nfrom regard.compare.report import f\n", []),
        ("__init__.py", "from regard.api import load\n", []),
        ("layers/new.py", "class A:\n    def __init__(self, *, x):\n        f(**x)\n", []),
        ("ops/new.py", "try:\n    x = 1\nexcept ValueError:\n    pass\n" + "x = 1\n" * 395, []),
    ],
)
def test_the_checker_sees(path, source, found):
    actual = violations(source, path)
    assert len(actual) == len(found)
    for line, start in zip(actual, found, strict=True):
        assert line.startswith(start)


def loaded_by(statement):
    code = f"import sys\n{statement}\nprint(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    return set(done.stdout.split())


def test_import_regard_is_cheap():
    loaded = loaded_by("import regard")
    assert "regard" in loaded
    assert not loaded & {"torch", "torchvision", "numpy", "timm", "matplotlib", "pydantic", "accelerate"}


def test_ops_need_torch_alone():
    loaded = loaded_by("import regard.ops")
    assert "torch" in loaded
    assert not loaded & {"torchvision", "timm", "matplotlib", "pydantic", "accelerate", "sklearn"}
