"""Regard: self-attention for vision. To regard is to look, and to attend.

Names are imported when they are first used, so that `import regard` is cheap.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from regard.api import benchmark as benchmark
    from regard.api import choose_recipe as choose_recipe
    from regard.api import compare_mixers as compare_mixers
    from regard.api import convert as convert
    from regard.api import create_model as create_model
    from regard.api import evaluate as evaluate
    from regard.api import evaluate_knn as evaluate_knn
    from regard.api import explain_image as explain_image
    from regard.api import explain_page as explain_page
    from regard.api import explain_queries as explain_queries
    from regard.api import explain_text as explain_text
    from regard.api import export_model as export_model
    from regard.api import features as features
    from regard.api import label as label
    from regard.api import list_models as list_models
    from regard.api import load as load
    from regard.api import load_weights as load_weights
    from regard.api import optimize as optimize
    from regard.api import predict_video as predict_video
    from regard.api import pretrain as pretrain
    from regard.api import push_to_hub as push_to_hub
    from regard.api import replace_convolutions as replace_convolutions
    from regard.api import save as save
    from regard.api import scale as scale
    from regard.api import swap_mixer as swap_mixer
    from regard.api import train as train
    from regard.api import transform_for as transform_for
    from regard.errors import RegardError as RegardError

__version__ = "0.2.0"

_ROOMS = (
    *("ops", "layers", "mixers", "models", "draw", "losses", "data", "weights", "recipes", "tasks", "training"),
    *("choose", "export", "explain", "compare", "api", "cli", "errors", "files"),
)
_NAMES = (
    *("create_model", "list_models", "transform_for", "load", "save", "load_weights", "convert", "push_to_hub"),
    *("train", "pretrain", "choose_recipe", "evaluate", "evaluate_knn", "compare_mixers", "features", "label"),
    *("explain_image", "explain_page", "explain_queries", "explain_text", "export_model", "optimize", "benchmark"),
    *("predict_video", "replace_convolutions", "scale", "swap_mixer"),
)


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return getattr(import_module("regard.api"), name)
    if name in _ROOMS:
        return import_module(f"regard.{name}")
    if name == "RegardError":
        return import_module("regard.errors").RegardError
    near = f"; did you mean {_near(name)}?" if _near(name) else ""
    raise AttributeError(f"module 'regard' has no attribute {name!r}{near}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_NAMES, *_ROOMS, "RegardError"})


def _near(name: str) -> str:
    from difflib import get_close_matches

    return next(iter(get_close_matches(name, [*_NAMES, *_ROOMS], n=1, cutoff=0.7)), "")
