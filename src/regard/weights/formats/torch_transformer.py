"""`torch.nn.Transformer`: its names, and where each tensor goes."""

from collections.abc import Mapping

from torch import Tensor

from regard.weights.rules import SPLIT, Names, Rule, renamed


def torch_rules(prefix: str = "") -> tuple[Rule, ...]:
    """The layers of torch's Transformer, and of models built from it, under `prefix`."""
    layer, cross = f"{prefix}{{stack}}.layers.{{n}}.", f"{prefix}decoder.layers.{{n}}.multihead_attn."
    parts = tuple(f"decoder.layers.{{n}}.cross.{part}.{{w}}" for part in "qkv")
    return (
        Rule(layer + "linear{m}.{w}", "{stack}.layers.{n}.mlp.fc{m}.{w}"),
        Rule(layer + "norm{m}.{w}", "{stack}.layers.{n}.skip{m}.norm.{w}"),
        Rule(layer + "self_attn.in_proj_{w}", "{stack}.layers.{n}.mixer.qkv.{w}"),
        Rule(layer + "self_attn.out_proj.{w}", "{stack}.layers.{n}.mixer.proj.{w}"),
        Rule(cross + "in_proj_{w}", parts, SPLIT),
        Rule(cross + "out_proj.{w}", "decoder.layers.{n}.cross.proj.{w}"),
        Rule(f"{prefix}{{stack}}.norm.{{w}}", "{stack}.norm.{w}"),
    )


TORCH_TRANSFORMER = Names("torch.nn.Transformer", torch_rules())


def from_torch_transformer(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of a `torch.nn.Transformer` as that of a `regard.models.Transformer`, without its embeddings.

    `model.load_state_dict(found, strict=False)` then leaves the embeddings as they are. torch's model has a norm after
    the encoder and one after the decoder, so build ours with pre-norm, or with `final_norm=True`. RegardError lists the
    names that have no place here.
    """
    return renamed(state, TORCH_TRANSFORMER)
