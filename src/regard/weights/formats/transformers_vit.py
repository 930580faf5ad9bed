"""The names of transformers' ViT, DeiT and DINOv2: today's, and those before version 5, which most hub files have."""

import torch
from torch import Tensor

from regard.weights.prefix_tokens import REGISTER_ROWS
from regard.weights.rules import Names, Rule, State, fused


def _attention(layer: str, names: tuple[str, str, str], out: str) -> tuple[Rule, ...]:
    q, k, v = (f"{layer}attention.{name}.{{w}}" for name in names)
    return (
        fused(q, k, v, "blocks.{n}.mixer.qkv.{w}"),
        Rule(f"{layer}attention.{out}.{{w}}", "blocks.{n}.mixer.proj.{w}"),
    )


_NEW = ("q_proj", "k_proj", "v_proj")
_OLD = ("attention.query", "attention.key", "attention.value")


def _embeddings(prefix: str) -> tuple[Rule, ...]:
    return (
        Rule(f"{prefix}embeddings.cls_token", "cls_token"),
        Rule(f"{prefix}embeddings.position_embeddings", "pos_embed.table"),
        Rule(f"{prefix}embeddings.patch_embeddings.projection.{{w}}", "patch_embed.proj.{w}"),
        Rule(f"{prefix}layernorm.{{w}}", "norm.{w}"),
        Rule(f"{prefix}embeddings.mask_token", ()),
    )


def _vit(prefix: str) -> tuple[Rule, ...]:
    new, old = f"{prefix}layers.{{n}}.", f"{prefix}encoder.layer.{{n}}."
    return (
        *_embeddings(prefix),
        *_attention(new, _NEW, "o_proj"),
        Rule(new + "layernorm_before.{w}", "blocks.{n}.norm1.{w}"),
        Rule(new + "layernorm_after.{w}", "blocks.{n}.norm2.{w}"),
        Rule(new + "mlp.fc{m}.{w}", "blocks.{n}.mlp.fc{m}.{w}"),
        *_attention(old, _OLD, "output.dense"),
        Rule(old + "layernorm_before.{w}", "blocks.{n}.norm1.{w}"),
        Rule(old + "layernorm_after.{w}", "blocks.{n}.norm2.{w}"),
        Rule(old + "intermediate.dense.{w}", "blocks.{n}.mlp.fc1.{w}"),
        Rule(old + "output.dense.{w}", "blocks.{n}.mlp.fc2.{w}"),
        # Only pre-training reads it.
        Rule(f"{prefix}pooler.dense.{{w}}", ()),
    )


def _dinov2(prefix: str) -> tuple[Rule, ...]:
    layer = f"{prefix}encoder.layer.{{n}}."
    return (
        *_embeddings(prefix),
        Rule(f"{prefix}embeddings.register_tokens", "reg_token"),
        *_attention(layer, _NEW, "o_proj"),
        *_attention(layer, _OLD, "output.dense"),
        Rule(layer + "norm{m}.{w}", "blocks.{n}.norm{m}.{w}"),
        Rule(layer + "layer_scale{m}.lambda1", "blocks.{n}.ls{m}.gamma"),
        Rule(layer + "mlp.fc{m}.{w}", "blocks.{n}.mlp.fc{m}.{w}"),
        Rule("classifier.{w}", "head.{w}"),
    )


def _has_head(state: State) -> bool:
    return "head.weight" in state


def _mask_token(state: State) -> Tensor:
    """Zeros (1, embed_dim): transformers' DINOv2 expects a mask token, though only its pre-training reads it."""
    return torch.zeros_like(state["cls_token"][0])


TRANSFORMERS_VIT = Names("transformers' ViT", (*_vit("[vit.]"), Rule("classifier.{w}", "head.{w}")), full=_has_head)

TRANSFORMERS_DEIT = Names(
    "transformers' DeiT",
    (*_vit("[deit.]"), Rule("[deit.]embeddings.distillation_token", "reg_token"), Rule("classifier.{w}", "head.{w}")),
    full=_has_head,
)

TRANSFORMERS_DISTILLED = Names(
    "transformers' DeiT with a teacher's head",
    (
        *_vit("[deit.]"),
        Rule("[deit.]embeddings.distillation_token", "reg_token"),
        Rule("cls_classifier.{w}", "head.{w}"),
        Rule("distillation_classifier.{w}", "head_dist.{w}"),
    ),
    full=_has_head,
)

TRANSFORMERS_DINOV2 = Names(
    "transformers' DINOv2",
    tuple(rule for rule in _dinov2("[dinov2.]") if rule.ours != "reg_token"),
    made={"[dinov2.]embeddings.mask_token": _mask_token},
    full=_has_head,
)

TRANSFORMERS_DINOV2_REGISTERS = Names(
    "transformers' DINOv2 with registers",
    _dinov2("[dinov2_with_registers.]"),
    change=REGISTER_ROWS,
    made={"[dinov2_with_registers.]embeddings.mask_token": _mask_token},
    full=_has_head,
)
