"""Looking into models: mixing matrices, influence, and pictures of them."""

from regard.explain.alignment import alignment_figure
from regard.explain.detection_pictures import confusion_figure, pr_figure, queries_figure
from regard.explain.influence import influence, influence_error
from regard.explain.mixing import Kind, Mixing, mixing, parse_token, token_at, token_name
from regard.explain.pictures import heads_figure, mixing_figure, save_png, telling_tokens

__all__ = [
    "Kind",
    "Mixing",
    "alignment_figure",
    "confusion_figure",
    "heads_figure",
    "influence",
    "influence_error",
    "mixing",
    "mixing_figure",
    "parse_token",
    "pr_figure",
    "queries_figure",
    "save_png",
    "telling_tokens",
    "token_at",
    "token_name",
]
