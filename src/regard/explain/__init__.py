"""Looking into models: mixing matrices, influence, windows of local attention, and pictures of them.

The journey of an image, from the model to a picture:

    explaining.py           model, image, method -> an `Explanation`, with its faithfulness
    methods.py              what each method says, whom it serves, what it costs
    sites.py                where a model attends: its layers of attention by name, and hooks that read their inputs
    row_engine.py           chosen tokens -> their rows in every layer of any model, out of one forward pass
    carry.py, maps.py       a row carried through the layers: rollout, relevance; and maps by gradients
    perturbation.py         maps by many passes: occlusion, integrated gradients
    target.py               what a map is of: a class, or features that should stay as they are
    faithfulness.py         a map -> curves of deletion and insertion beside chance and the centre -> a verdict
    sanity_check.py         does a map change when the model's weights become random?
    head_statistics.py      images -> how far each head looks, how widely, how much the prefix takes
    explanation.py          the map with all that is said of it; shows itself
    overlay.py              -> the photograph with the map over it
    object_queries.py       a detector's box -> what its query looks at: an `Explanation`
    box_relevance.py        a query and a class -> relevance through decoder and encoder, carried as a row
    sampling_points.py      queries of deformable attention -> the points where they sample the maps, on the image
    query_boxes.py          a detector and images -> where each query puts its boxes
    point_overlay.py        -> dots over the photograph

    drawing.py              one sheet of a classifier and an image: several tokens in all layers, or windows
    tokens.py               a token's number, name and place in the image; the tokens that represent an image
    mixing.py               image -> the mixer of one layer -> rows of its mixing matrix, or its influence
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
from regard.explain.box_relevance import BoxRelevance, box_relevance
from regard.explain.detection_pictures import confusion_figure, pr_figure, queries_figure
from regard.explain.drawing import PictureKind, model_figure
from regard.explain.explaining import explain
from regard.explain.explanation import Explanation, Picture, Thumbnail
from regard.explain.faithfulness import Faithfulness, Judge
from regard.explain.favor_error import FavorError, favor_error
from regard.explain.head_statistics import HeadStatistics, position_similarity, statistics
from regard.explain.influence import influence, influence_error
from regard.explain.local_layers import LocalLayer, local_layers
from regard.explain.local_pictures import embeddings_figure, windows_figure
from regard.explain.maps import relevance, rollout
from regard.explain.methods import METHODS, Method, method_named
from regard.explain.mixing import Kind, Mixing, mixing, mixings
from regard.explain.mixing_pictures import heads_figure, matrix_figure, mixing_figure
from regard.explain.query_boxes import QueryBoxes, query_boxes
from regard.explain.row_engine import LayerRows, Rows, rows
from regard.explain.sampling_points import SamplingPoints, sampling_points
from regard.explain.sanity_check import Sanity, sanity
from regard.explain.target import Target, target_of
from regard.explain.tokens import parse_token, representative_tokens, token_at, token_name

__all__ = [
    "METHODS",
    "BoxRelevance",
    "Explanation",
    "Faithfulness",
    "FavorError",
    "HeadStatistics",
    "Judge",
    "Kind",
    "LayerRows",
    "LocalLayer",
    "Method",
    "Mixing",
    "Picture",
    "PictureKind",
    "QueryBoxes",
    "Rows",
    "SamplingPoints",
    "Sanity",
    "Target",
    "Thumbnail",
    "alignment_figure",
    "box_refinement_figure",
    "box_relevance",
    "confident_queries",
    "confusion_figure",
    "embeddings_figure",
    "explain",
    "favor_error",
    "heads_figure",
    "influence",
    "influence_error",
    "local_layers",
    "matrix_figure",
    "method_named",
    "mixing",
    "mixing_figure",
    "mixings",
    "model_figure",
    "parse_token",
    "position_similarity",
    "pr_figure",
    "queries_figure",
    "query_boxes",
    "relevance",
    "representative_tokens",
    "rollout",
    "rows",
    "sampling_points",
    "sanity",
    "save_png",
    "statistics",
    "target_of",
    "token_at",
    "token_name",
    "windows_figure",
]
