"""The public names of each room, and where each is defined: what the reference shows of the package's Python."""

import ast
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType

import regard

ROOMS = (
    "regard",
    *("regard.ops", "regard.mixers", "regard.layers", "regard.models", "regard.losses", "regard.data", "regard.tasks"),
    *("regard.training", "regard.weights", "regard.explain", "regard.compare", "regard.export", "regard.draw"),
)
PACKAGE = Path(regard.__file__).parent


def public_names(room: str) -> list[str]:
    """What a room offers: its `__all__`; of a room that imports lazily, its `__dir__`, without modules."""
    module = import_module(room)
    names = list(getattr(module, "__all__", ())) or [name for name in dir(module) if not name.startswith("_")]
    found = {name for name in names if not isinstance(getattr(module, name), ModuleType)}
    return sorted(found - {"annotations", "import_module", "TYPE_CHECKING", "Any"}, key=str.lower)


def files_of_draw() -> list[str]:
    """`regard.draw` offers nothing itself; its files do."""
    return [f"regard.draw.{path.stem}" for path in sorted((PACKAGE / "draw").glob("*.py")) if path.stem != "__init__"]


def home(room: str, name: str) -> str:
    """The module that defines `name` of `room`. LookupError where none does: then the build stops."""
    value = getattr(import_module(room), name)
    homes = definitions().get(name, [])
    near = sorted(homes, key=lambda module: (not module.startswith(f"{room}."), module))
    for module in near:
        if getattr(import_module(module), name, None) is value:
            return module
    raise LookupError(f"{room}.{name}: no file of the package defines it")


@cache
def definitions() -> dict[str, list[str]]:
    """Name -> the modules that define it at their top level, read from the syntax trees."""
    found: dict[str, list[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            for name in _defined(node):
                found.setdefault(name, []).append(module)
    return found


def _defined(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.AnnAssign):
        targets: list[ast.expr] = [node.target]
    elif isinstance(node, ast.Assign):
        targets = node.targets
    else:
        targets = []
    return [target.id for target in targets if isinstance(target, ast.Name)]


def room_page(room: str) -> str:
    """A room's page: its docstring, then each name with its docstring, headed by the name that one imports."""
    lines = [f"# {room}", "", _as_block(import_module(room).__doc__ or ""), ""]
    if room == "regard.draw":
        for module in files_of_draw():
            lines += [f"::: {module}", ""]
        return "\n".join(lines)
    for name in public_names(room):
        module = home(room, name)
        owner = next((other for other in ROOMS[1:] if module.startswith(f"{other}.")), room)
        if owner != room and name in public_names(owner):
            lines += [f"## {name} {{ #{room}.{name} }}", "", f"See [`{owner}.{name}`][{owner}.{name}].", ""]
        else:
            lines += [f"[](){{ #{room}.{name} aria-hidden=true tabindex=-1 }}", "", f"::: {module}.{name}", ""]
    return "\n".join(lines)


def _as_block(text: str) -> str:
    """A paragraph is prose; one in columns, such as a list of files, keeps its line breaks."""
    paragraphs = text.strip().split("\n\n")
    return "\n\n".join(f"```text\n{part}\n```" if "  " in part else part for part in paragraphs)
