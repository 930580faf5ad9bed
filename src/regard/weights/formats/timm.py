"""timm's names: ViT (with and without class token, registers, layer scale) and MLP-Mixer."""

from regard.weights.prefix_tokens import PREFIX_ROWS
from regard.weights.rules import Names, Rule

_SHARED = (
    Rule("blocks.{n}.norm{m}.{w}", "blocks.{n}.norm{m}.{w}"),
    Rule("norm.{w}", "norm.{w}"),
    Rule("head.{w}", "head.{w}"),
)

TIMM_VIT = Names(
    "timm's ViT",
    (
        *_SHARED,
        Rule("cls_token", "cls_token"),
        Rule("reg_token", "reg_token"),
        Rule("pos_embed", "pos_embed.table"),
        Rule("patch_embed.proj.{w}", "patch_embed.proj.{w}"),
        Rule("blocks.{n}.attn.qkv.{w}", "blocks.{n}.mixer.qkv.{w}"),
        Rule("blocks.{n}.attn.proj.{w}", "blocks.{n}.mixer.proj.{w}"),
        Rule("blocks.{n}.ls{m}.gamma", "blocks.{n}.ls{m}.gamma"),
        Rule("blocks.{n}.mlp.fc{m}.{w}", "blocks.{n}.mlp.fc{m}.{w}"),
        Rule("fc_norm.{w}", "fc_norm.{w}"),
        Rule("mask_token", ()),
    ),
    change=PREFIX_ROWS,
)

TIMM_DISTILLED = Names(
    "timm's distilled DeiT",
    (
        Rule("dist_token", "reg_token"),
        Rule("head_dist.{w}", "head_dist.{w}"),
        *(rule for rule in TIMM_VIT.rules if rule.theirs != "reg_token"),
    ),
)

TIMM_MIXER = Names(
    "timm's MLP-Mixer",
    (
        *_SHARED,
        Rule("stem.proj.{w}", "patch_embed.proj.{w}"),
        Rule("blocks.{n}.mlp_tokens.fc{m}.{w}", "blocks.{n}.mixer.mlp.fc{m}.{w}"),
        Rule("blocks.{n}.mlp_channels.fc{m}.{w}", "blocks.{n}.mlp.fc{m}.{w}"),
    ),
)
