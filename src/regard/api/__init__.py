"""What `import regard` offers: models by name, what is done with a trained one, its evaluation, and training."""

from typing import Any

from regard.api.benchmarking import Benchmark, benchmark
from regard.api.chosen import choose_recipe
from regard.api.evaluation import evaluate, evaluate_knn
from regard.api.explaining_page import explain_page
from regard.api.explanations import explain_image, explain_queries, explain_text, measure_favor_error
from regard.api.export import Exported, export_model
from regard.api.image_features import Features, features
from regard.api.labelling import Labels, label
from regard.api.models import create_model, transform_for
from regard.api.names import list_models
from regard.api.pretraining import pretrain
from regard.api.runs import convert, load, push_to_hub, save
from regard.api.scaling import scale
from regard.api.training import compare_mixers, train
from regard.api.video import predict_video
from regard.layers.replace import replace_convolutions
from regard.mixers.swap import swap_mixer
from regard.weights.load import load_weights

__all__ = [
    "Benchmark",
    "Exported",
    "Features",
    "Labels",
    "benchmark",
    "choose_recipe",
    "compare_mixers",
    "convert",
    "create_model",
    "evaluate",
    "evaluate_knn",
    "explain_image",
    "explain_page",
    "explain_queries",
    "explain_text",
    "export_model",
    "features",
    "label",
    "list_models",
    "load",
    "load_weights",
    "measure_favor_error",
    "optimize",
    "predict_video",
    "pretrain",
    "push_to_hub",
    "replace_convolutions",
    "save",
    "scale",
    "swap_mixer",
    "train",
    "transform_for",
]


def __getattr__(name: str) -> Any:
    if name == "optimize":  # which needs the predictors
        from regard.export.optimize import optimize

        return optimize
    if name == "Explanation":  # whose room is opened when it is asked for
        from regard.explain import Explanation

        return Explanation
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
