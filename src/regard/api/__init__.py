"""What `import regard` offers: models by name, what is done with a trained one, its evaluation, and training."""

from regard.api.chosen import choose_recipe
from regard.api.evaluation import evaluate, evaluate_knn
from regard.api.image_features import Features, features
from regard.api.labelling import Labels, label
from regard.api.models import create_model, transform_for
from regard.api.names import list_models
from regard.api.runs import (
    Explanation,
    convert,
    explain_image,
    load,
    measure_favor_error,
    push_to_hub,
    save,
)
from regard.api.training import compare_mixers, train
from regard.api.video import predict_video
from regard.layers.replace import replace_convolutions
from regard.mixers.swap import swap_mixer
from regard.weights.load import load_weights

__all__ = [
    "Explanation",
    "Features",
    "Labels",
    "choose_recipe",
    "compare_mixers",
    "convert",
    "create_model",
    "evaluate",
    "evaluate_knn",
    "explain_image",
    "features",
    "label",
    "list_models",
    "load",
    "load_weights",
    "measure_favor_error",
    "predict_video",
    "push_to_hub",
    "replace_convolutions",
    "save",
    "swap_mixer",
    "train",
    "transform_for",
]
