"""The names of `transformers.DetrForObjectDetection`: today's, and those before version 5."""

from collections.abc import Mapping

from torch import Tensor

from regard.weights.rules import Names, Rule, fused, renamed

_LAYER, _OURS = "model.{stack}.layers.{n}.", "{stack}.layers.{n}."
_CROSS, _OUR_CROSS = "model.decoder.layers.{n}.encoder_attn", "decoder.layers.{n}.cross."
_SELF = [f"{_LAYER}self_attn.{part}_proj.{{w}}" for part in "qkv"]

TRANSFORMERS_DETR = Names(
    "transformers' DETR",
    (
        Rule("model.backbone.[conv_encoder.]model.{rest}", "backbone.body.{rest}"),
        Rule("model.input_projection.{w}", "project.{w}"),
        Rule("model.query_position_embeddings.weight", "queries.weight"),
        Rule("class_labels_classifier.{w}", "label_head.{w}"),
        Rule("bbox_predictor.layers.{n}.{w}", "box_head.layers.{n}.{w}"),
        fused(_SELF[0], _SELF[1], _SELF[2], _OURS + "mixer.qkv.{w}"),
        Rule(_LAYER + "self_attn.o_proj.{w}", _OURS + "mixer.proj.{w}"),
        Rule(_LAYER + "mlp.fc{m}.{w}", _OURS + "mlp.fc{m}.{w}"),
        Rule(_LAYER + "self_attn_layer_norm.{w}", _OURS + "skip1.norm.{w}"),
        *(Rule(f"{_CROSS}.{part}_proj.{{w}}", f"{_OUR_CROSS}{part}.{{w}}") for part in "qkv"),
        Rule(_CROSS + ".o_proj.{w}", _OUR_CROSS + "proj.{w}"),
        Rule(_CROSS + "_layer_norm.{w}", "decoder.layers.{n}.skip2.norm.{w}"),
        # The last norm of a layer is its second in the encoder, its third in the decoder.
        Rule("model.encoder.layers.{n}.final_layer_norm.{w}", "encoder.layers.{n}.skip2.norm.{w}"),
        Rule("model.decoder.layers.{n}.final_layer_norm.{w}", "decoder.layers.{n}.skip3.norm.{w}"),
        Rule("model.decoder.layernorm.{w}", "decoder.norm.{w}"),
        # Before version 5.
        Rule(_LAYER + "self_attn.out_proj.{w}", _OURS + "mixer.proj.{w}"),
        Rule(_LAYER + "fc{m}.{w}", _OURS + "mlp.fc{m}.{w}"),
        Rule(_CROSS + ".out_proj.{w}", _OUR_CROSS + "proj.{w}"),
    ),
)


def from_transformers_detr(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """transformers' state dict as that of a `regard.models.DETR`. RegardError lists names that have no place here."""
    return renamed(state, TRANSFORMERS_DETR)
