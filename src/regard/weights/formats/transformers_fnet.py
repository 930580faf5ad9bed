"""`transformers.FNetModel`: its names."""

from collections.abc import Mapping

from torch import Tensor

from regard.weights.rules import Names, Rule, renamed

_LAYER, _OURS = "[fnet.]encoder.layer.{n}.", "encoder.layers.{n}."

TRANSFORMERS_FNET = Names(
    "transformers' FNet",
    (
        Rule("[fnet.]embeddings.word_embeddings.weight", "words.weight"),
        Rule("[fnet.]embeddings.position_embeddings.weight", "positions.weight"),
        Rule("[fnet.]embeddings.token_type_embeddings.weight", "types.weight"),
        Rule("[fnet.]embeddings.LayerNorm.{w}", "norm.{w}"),
        Rule("[fnet.]embeddings.projection.{w}", "project.{w}"),
        Rule(_LAYER + "fourier.output.LayerNorm.{w}", _OURS + "skip1.norm.{w}"),
        Rule(_LAYER + "intermediate.dense.{w}", _OURS + "mlp.fc1.{w}"),
        Rule(_LAYER + "output.dense.{w}", _OURS + "mlp.fc2.{w}"),
        Rule(_LAYER + "output.LayerNorm.{w}", _OURS + "skip2.norm.{w}"),
        Rule("[fnet.]pooler.dense.{w}", "pooler.{w}"),
        Rule("[fnet.]embeddings.position_ids", ()),
        Rule("[fnet.]embeddings.token_type_ids", ()),
        Rule("cls.{rest}", ()),
    ),
)


def from_transformers_fnet(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """transformers' state dict as that of a `regard.models.FNet`. RegardError lists names that have no place here."""
    return renamed(state, TRANSFORMERS_FNET)
