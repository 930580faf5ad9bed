"""Looking into models: mixing matrices, influence, windows of local attention, and pictures of them.

The journey of an image, from the model to a picture:

    drawing.py              chooses for `regard explain`: which layers, which tokens, which of the pictures below
    tokens.py               a token's number, name and place in the image; the tokens that represent an image
    mixing.py               image -> model -> the mixer of one layer -> its mixing matrix, or its influence
    influence.py            influence, for any mixer: the norm of each block of its Jacobian
    mixing_pictures.py      -> heat maps: for each layer, for each head, or the matrix as a whole
    local_layers.py         image -> model -> queries, keys and offsets of each layer of local attention -> windows
    local_pictures.py       -> windows on the image, and what relative embeddings add to the logits
    box_refinement.py       image -> detector -> the boxes of each decoder layer -> a panel for each layer
    detection_pictures.py   an evaluation -> confusion matrix, precision-recall curves, places of the queries' boxes
    alignment.py            texts -> cross-attention of the decoder -> a heat map for each layer
    favor_error.py          images -> how far a performer's attention is from softmax attention; numbers, no picture

The tools that draw stand in `regard.draw`. A figure and a `Mixing` show themselves in a notebook.
"""

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
