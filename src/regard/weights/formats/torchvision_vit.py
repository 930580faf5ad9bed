"""torchvision's ViT (`vit_b_16`, ...): its names."""

from regard.weights.rules import Names, Rule

_LAYER = "encoder.layers.encoder_layer_{n}."

TORCHVISION_VIT = Names(
    "torchvision's ViT",
    (
        Rule("class_token", "cls_token"),
        Rule("conv_proj.{w}", "patch_embed.proj.{w}"),
        Rule("encoder.pos_embedding", "pos_embed.table"),
        Rule(_LAYER + "ln_{m}.{w}", "blocks.{n}.norm{m}.{w}"),
        Rule(_LAYER + "self_attention.in_proj_{w}", "blocks.{n}.mixer.qkv.{w}"),
        Rule(_LAYER + "self_attention.out_proj.{w}", "blocks.{n}.mixer.proj.{w}"),
        Rule(_LAYER + "mlp.0.{w}", "blocks.{n}.mlp.fc1.{w}"),
        Rule(_LAYER + "mlp.3.{w}", "blocks.{n}.mlp.fc2.{w}"),
        Rule("encoder.ln.{w}", "norm.{w}"),
        Rule("heads.head.{w}", "head.{w}"),
        # Its first versions named the MLP so.
        Rule(_LAYER + "mlp.linear_{m}.{w}", "blocks.{n}.mlp.fc{m}.{w}"),
    ),
)
