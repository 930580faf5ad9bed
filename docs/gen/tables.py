"""The pages of recipes, mixers and models, from the schema and the dicts that the package itself reads."""

import ast
import inspect
import textwrap
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from commands import prose
from regard.cli.about import model_rows
from regard.mixers import MIXERS, mixer_options
from regard.recipes import RECIPES, recipe_text, shipped_recipes


def recipes_page() -> str:
    """Each shipped recipe as its file says it, then the keys of each task."""
    lines = ["# Recipes", "", "A recipe is a TOML file; `--set KEY=VALUE` replaces a value.", ""]
    for name, recipe in shipped_recipes().items():
        claim = "" if recipe.claim is None else f"Claim, on two cores: {prose(str(recipe.claim))}."
        lines += [f"## {name}", "", prose(recipe.title), "", claim, ""]
        lines += ['??? note "Every key of it"', "", textwrap.indent(f"```toml\n{recipe_text(recipe)}```", "    "), ""]
    for task, kind in RECIPES.items():
        lines += [f"## Keys for {task}", "", "| key | default | what it is |", "|---|---|---|"]
        lines += [f"| {' | '.join(row)} |" for row in rows(kind)]
        lines += ["", "And each key of the model's configuration, as `model.KEY`.", ""]
    return "\n".join(lines)


def rows(kind: type[BaseModel], prefix: str = "") -> list[tuple[str, str, str]]:
    """Dotted key, default, and its docstring or its type."""
    found: list[tuple[str, str, str]] = []
    said = _docstrings(kind)
    for name, field in kind.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            found += rows(inner, f"{prefix}{name}.")
            continue
        what = prose(" ".join(said.get(name, "").split())) or f"`{_type_words(inner)}`".replace("|", "\\|")
        found.append((f"`{prefix}{name}`", _default(field), what.replace("\\|", "&#124;")))
    return found


def _default(field: FieldInfo) -> str:
    if field.default is PydanticUndefined:
        return "needed" if field.default_factory is None else "`[]`"
    return f"`{field.default!r}`".replace("|", "&#124;")


def _type_words(kind: Any) -> str:
    if kind is type(None):
        return "none"
    if get_origin(kind) is None:
        return getattr(kind, "__name__", repr(kind))
    words = (repr(part) if isinstance(part, str) else _type_words(part) for part in get_args(kind))
    return " or ".join(words)


def _docstrings(kind: type[BaseModel]) -> dict[str, str]:
    """The text below each field, of a class and those that it extends."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if not base.__module__.startswith("regard."):
            continue
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        assert isinstance(tree, ast.ClassDef)
        for field, below in zip(tree.body, tree.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(below, ast.Expr):
                found[field.target.id] = ast.literal_eval(below.value)
    return found


def mixers_page() -> str:
    lines = ["# Mixers", "", "A model takes each by its name: `create_model(..., mixer=NAME)`.", ""]
    for name, mixer in MIXERS.items():
        options = ", ".join(f"`{key} = {value!r}`" for key, value in mixer_options(name).items())
        lines += [f"## {name}", "", inspect.getdoc(mixer) or "", "", f"Options: {options or 'none'}.", ""]
        lines += [f"Class: [`{mixer.__name__}`][regard.mixers.{mixer.__name__}].", ""]
    return "\n".join(lines)


def models_page() -> str:
    """Parameters and operations are computed from the configurations; nothing is measured."""
    head = ["name", "input", "width", "depth", "heads", "M parameters", "GFLOP"]
    lines = ["# Models", "", "What `create_model(NAME)` builds; pretrained weights: [Weights](../weights.md).", ""]
    lines += [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name, *cells in model_rows():
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(lines)
