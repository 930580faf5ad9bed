"""The house, top to bottom: a file imports only from rooms above its own, in larger rooms also from sub-rooms above its
own, and no files import each other in a circle. Read from the syntax tree; nothing is run."""

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import regard

PACKAGE = Path(regard.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
# Their modules: "regard.ops.local.windows"; a package has the name of its folder.
MODULES = {
    ".".join((PACKAGE.name, *file.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): file
    for file in FILES
}
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
    ("choose", "export"),
    ("explain",),
    ("compare",),
    ("api",),
    ("cli",),
]
OPEN_TO_ALL = {"errors", "files", "reading"}
ALLOWED = {room: {r for floor in FLOORS[:i] for r in floor} for i, floor in enumerate(FLOORS) for room in floor}
# Of the rooms that stand side by side, only these may know whole models.
for stranger in ("losses", "data"):
    ALLOWED[stranger] -= {"mixers", "models"}
ALLOWED["errors"] = set()
ALLOWED["files"] = set()
ALLOWED["reading"] = set()
ALLOWED["draw"] = {"layers"}
ALLOWED["__init__"] = {"api"}  # what `import regard` offers
ALLOWED["__main__"] = {"cli"}

# The same within rooms, for their folders and files; one that is not named here is bound by circles alone.
SUBFLOORS = {
    "ops": [("attention", "deformable_attention", "fourier", "native", "position"), ("local", "favor")],
    "data": [
        ("addresses", "memory", "order", "repairs", "video"),
        ("images",),
        ("boxes", "text"),
        ("checks",),
        ("without_boxes",),
        ("bare_paths", "fingerprints", "open"),
        ("check", "fix", "write_examples"),
    ],
    "weights": [
        ("checkpoint", "checksum", "hub", "package_file", "rules"),
        ("files", "fit", "prefix_tokens"),
        ("formats",),
        ("wrapped",),
        ("adapt", "catalogue", "described"),
        ("load",),
        ("convert",),
    ],
    "tasks": [
        ("features", "predictor", "task", "text_metrics"),
        ("image_predictor",),
        ("classification", "detection", "next_token", "seq2seq"),
        ("labelling", "video"),
        ("pretrained",),
    ],
}
BELOW = {
    f"{room}/{sub}": {other for floor in floors[i:] for other in floor} - {sub}
    for room, floors in SUBFLOORS.items()
    for i, floor in enumerate(floors)
    for sub in floor
}


def violations(source, path):
    """What a file of the package breaks, each as "path:line: what"; `path` is relative to the package."""
    room = Path(path).parts[0].removesuffix(".py")
    if room not in ALLOWED:
        return [f"{path}:1: {room} is no room of the house; give it a floor in {Path(__file__).name}"]
    sub = "/".join(Path(path).with_suffix("").parts[:2])
    found = []
    for node in ast.walk(ast.parse(source)):
        for module, line in imported(node):
            other = module.split(".")[1] if "." in module else "api"
            if module.startswith("."):
                found.append(f"{path}:{line}: relative import of {module}")
            elif other != room and other not in ALLOWED[room] | OPEN_TO_ALL:
                found.append(f"{path}:{line}: {room} imports {module}, which is not above it")
            elif other == room and sub in BELOW:
                inner = module.split(".")[2:3]
                if not inner:
                    found.append(f"{path}:{line}: {sub} imports {module} as a whole; name the file")
                elif inner[0] in BELOW[sub]:
                    found.append(f"{path}:{line}: {sub} imports {module}, which is not above it")
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
        files = [f"{node.module}.{alias.name}" for alias in node.names]
        return [(module, node.lineno) for module in dict.fromkeys(f if f in MODULES else node.module for f in files)]
    if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        name = str(node.args[0].value)
        if called in ("import_module", "__import__") and name.split(".")[0] == "regard":
            return [(name, node.lineno)]
    return []


def on_import(tree: ast.Module) -> Iterator[ast.AST]:
    """The statements that run when a module is imported: not those in functions, nor those for type checkers alone."""
    left: list[ast.AST] = [tree]
    while left:
        node = left.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            left += node.orelse
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield node
            left += ast.iter_child_nodes(node)


def circle(sources: Mapping[str, str], *, rooms: bool) -> list[str]:
    """Modules that import each other in a circle, the first again at the end; [] where there is none.

    sources: of each module. rooms: whether the files of a sub-room (regard.ROOM.SUB) count as one.
    """

    def node(module: str) -> str:
        within = any(other.startswith(".".join(module.split(".")[:3]) + ".") for other in sources)
        return ".".join(module.split(".")[:3]) if rooms and within and module.count(".") > 1 else module

    imports: dict[str, set[str]] = {}
    for module, source in sources.items():
        others = {node(other) for part in on_import(ast.parse(source)) for other, _ in imported(part)}
        imports.setdefault(node(module), set()).update(others - {node(module)})
    try:
        graphlib.TopologicalSorter(imports).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []


@pytest.mark.parametrize("rooms", [False, True], ids=["files", "sub-rooms"])
def test_nothing_imports_in_a_circle(rooms):
    assert not circle({module: file.read_text(encoding="utf-8") for module, file in MODULES.items()}, rooms=rooms)


@pytest.mark.parametrize(
    ("sources", "of_files", "of_rooms"),
    [
        ({"regard.ops.a": "from regard.ops.b import f", "regard.ops.b": "import regard.ops.a"}, True, True),
        (
            {
                "regard.ops": "from regard.ops.a import f",
                "regard.ops.a": "try:\n    from regard.ops import g\nexcept ImportError:\n    pass",
            },
            True,
            True,
        ),
        # A circle of sub-rooms, though not of files.
        (
            {
                "regard.ops.local.flex": "from regard.ops.attention import f",
                "regard.ops.attention": "from regard.ops.local.windows import f",
                "regard.ops.local.windows": "",
            },
            False,
            True,
        ),
        # In order: one way, in a function, or for types alone.
        ({"regard.ops.a": "from regard.ops.b import f", "regard.ops.b": ""}, False, False),
        (
            {"regard.ops.a": "import regard.ops.b", "regard.ops.b": "def f():\n    from regard.ops.a import g"},
            False,
            False,
        ),
        (
            {
                "regard.ops.a": "import regard.ops.b",
                "regard.ops.b": "if TYPE_CHECKING:\n    from regard.ops.a import g",
            },
            False,
            False,
        ),
        (
            {
                "regard.ops.local": "from regard.ops.local.flex import f",
                "regard.ops.local.flex": "from regard.ops.local.windows import f",
                "regard.ops.local.windows": "from regard.ops.attention import f",
            },
            False,
            False,
        ),
    ],
)
def test_the_checker_sees_circles(sources, of_files, of_rooms):
    assert bool(circle(sources, rooms=False)) == of_files
    assert bool(circle(sources, rooms=True)) == of_rooms


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_the_house_is_in_order(file):
    found = violations(file.read_text(encoding="utf-8"), file.relative_to(PACKAGE).as_posix())
    assert not found, "\n".join(found)


def test_each_part_of_data_has_its_floor():
    parts = {
        file.relative_to(PACKAGE / "data").parts[0].removesuffix(".py") for file in (PACKAGE / "data").rglob("*.py")
    }
    assert parts - {"__init__"} == {part for floor in SUBFLOORS["data"] for part in floor}


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
        # Between sub-rooms.
        (
            "data/images/new.py",
            "from regard.data.boxes.coco import f\n",
            ["data/images/new.py:1: data/images imports reg"],
        ),
        ("data/boxes/new.py", "import regard.data.checks.issue\n", ["data/boxes/new.py:1: data/boxes imports reg"]),
        ("data/boxes/new.py", "from regard.data.text import pairs\n", ["data/boxes/new.py:1: data/boxes imports reg"]),
        ("data/text/new.py", "from regard.data.boxes import coco\n", ["data/text/new.py:1: data/text imports reg"]),
        ("data/checks/new.py", "from regard.data import open\n", ["data/checks/new.py:1: data/checks imports reg"]),
        (
            "data/checks/new.py",
            "from regard.data import Issue\n",
            ["data/checks/new.py:1: data/checks imports regard.data as"],
        ),
        ("data/open.py", "from regard.data.check import f\n", ["data/open.py:1: data/open imports regard.data.check,"]),
        ("data/order.py", "from regard.data.addresses import f\n", ["data/order.py:1: data/order imports reg"]),
        ("ops/local/new.py", "from regard.ops.favor.chunked import f\n", ["ops/local/new.py:1: ops/local imports reg"]),
        ("ops/favor/new.py", "import regard.ops.local.flex\n", ["ops/favor/new.py:1: ops/favor imports reg"]),
        (
            "ops/attention.py",
            "from regard.ops.local.flex import f\n",
            ["ops/attention.py:1: ops/attention imports reg"],
        ),
        (
            "tasks/seq2seq/new.py",
            "from regard.tasks.next_token.metrics import f\n",
            ["tasks/seq2seq/new.py:1: tasks/seq2seq imports reg"],
        ),
        (
            "tasks/predictor.py",
            "def f():\n    from regard.tasks.detection.predictor import Detector\n",
            ["tasks/predictor.py:2: tasks/predictor imports reg"],
        ),
        ("tasks/task.py", "import regard.tasks.detection.task\n", ["tasks/task.py:1: tasks/task imports reg"]),
        (
            "weights/formats/new.py",
            "from regard.weights.load import f\n",
            ["weights/formats/new.py:1: weights/formats imports reg"],
        ),
        # What is in order.
        ("data/boxes/new.py", "from regard.data.images.files import f\nfrom regard.data import order\n", []),
        ("data/check.py", "from regard.data import open\nfrom regard.data.checks.issue import Issue\n", []),
        ("data/__init__.py", "from regard.data.check import f\n", []),
        ("ops/local/new.py", "from regard.ops.attention import f\nfrom regard.ops.local import flex\n", []),
        ("tasks/seq2seq/new.py", "from regard.tasks.predictor import f\nfrom regard.data import Issue\n", []),
        ("weights/formats/new.py", "from regard.weights.rules import f\n", []),
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
