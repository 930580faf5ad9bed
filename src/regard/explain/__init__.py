"""Looking into models: mixing matrices, influence, windows of local attention, and pictures of them."""

from regard.draw.png import save_png
from regard.explain.alignment import alignment_figure
from regard.explain.box_refinement import box_refinement_figure, confident_queries
from regard.explain.detection_pictures import confusion_figure, pr_figure, queries_figure
from regard.explain.drawing import PictureKind, model_figure
from regard.explain.favor_error import FavorError, favor_error
from regard.explain.influence import influence, influence_error
from regard.explain.local_layers import LocalLayer, local_layers
from regard.explain.local_pictures import embeddings_figure, windows_figure
from regard.explain.mixing import Kind, Mixing, mixing
from regard.explain.mixing_pictures import heads_figure, matrix_figure, mixing_figure
from regard.explain.tokens import parse_token, representative_tokens, token_at, token_name

__all__ = [
    "FavorError",
    "Kind",
    "LocalLayer",
    "Mixing",
    "PictureKind",
    "alignment_figure",
    "box_refinement_figure",
    "confident_queries",
    "confusion_figure",
    "embeddings_figure",
    "favor_error",
    "heads_figure",
    "influence",
    "influence_error",
    "local_layers",
    "matrix_figure",
    "mixing",
    "mixing_figure",
    "model_figure",
    "parse_token",
    "pr_figure",
    "queries_figure",
    "representative_tokens",
    "save_png",
    "token_at",
    "token_name",
    "windows_figure",
]
