"""Regard: self-attention for vision. To regard is to look, and to attend.

Names are imported when they are first used, so that `import regard` is cheap.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from regard.api import convert as convert
    from regard.api import create_model as create_model
    from regard.api import evaluate as evaluate
    from regard.api import evaluate_knn as evaluate_knn
    from regard.api import load as load
    from regard.api import load_weights as load_weights
    from regard.api import push_to_hub as push_to_hub
    from regard.api import replace_convolutions as replace_convolutions
    from regard.api import swap_mixer as swap_mixer
    from regard.errors import RegardError as RegardError

__version__ = "0.1.0"

_ROOMS = ("ops", "layers", "mixers", "models", "data", "recipes", "tasks", "training", "explain", "compare")
_NAMES = {
    **dict.fromkeys(
        (
            "convert",
            "create_model",
            "evaluate",
            "evaluate_knn",
            "load",
            "load_weights",
            "push_to_hub",
            "replace_convolutions",
            "swap_mixer",
        ),
        "regard.api",
    ),
    "RegardError": "regard.errors",
}


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return getattr(import_module(_NAMES[name]), name)
    if name in _ROOMS:
        return import_module(f"regard.{name}")
    raise AttributeError(f"module 'regard' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_NAMES, *_ROOMS])
