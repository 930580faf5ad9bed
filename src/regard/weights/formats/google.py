"""Google's .npz files of ViT and MLP-Mixer: flax's names and layouts (google-research/vision_transformer)."""

import torch

from regard.weights.rules import Change, Names, Rule, Tensors

# A convolution is (height, width, in, out) there, a linear map (in, out).
CONVOLUTION = Change(lambda t: [t[0].permute(3, 2, 0, 1)], lambda t: [t[0].permute(2, 3, 1, 0)])
TRANSPOSED = Change(lambda t: [t[0].t()], lambda t: [t[0].t()])


def _qkv(num_heads: int) -> Change:
    """Three kernels (in, heads, head_dim) there, one matrix (3 · heads · head_dim, in) here."""

    def outward(whole: Tensors) -> Tensors:
        return [part.t().unflatten(1, (num_heads, -1)) for part in whole[0].chunk(3)]

    return Change(lambda parts: [torch.cat([part.flatten(1).t() for part in parts])], outward)


def _qkv_bias(num_heads: int) -> Change:
    def outward(whole: Tensors) -> Tensors:
        return [part.unflatten(0, (num_heads, -1)) for part in whole[0].chunk(3)]

    return Change(lambda parts: [torch.cat([part.flatten() for part in parts])], outward)


def _out(num_heads: int) -> Change:
    """One kernel (heads, head_dim, out) there."""
    return Change(lambda t: [t[0].flatten(0, 1).t()], lambda t: [t[0].t().unflatten(0, (num_heads, -1))])


def _norm(theirs: str, ours: str) -> tuple[Rule, ...]:
    return Rule(f"{theirs}/scale", f"{ours}.weight"), Rule(f"{theirs}/bias", f"{ours}.bias")


def _linear(theirs: str, ours: str) -> tuple[Rule, ...]:
    return Rule(f"{theirs}/kernel", f"{ours}.weight", TRANSPOSED), Rule(f"{theirs}/bias", f"{ours}.bias")


def _mlp(theirs: str, ours: str) -> tuple[Rule, ...]:
    return (*_linear(f"{theirs}/Dense_0", f"{ours}.fc1"), *_linear(f"{theirs}/Dense_1", f"{ours}.fc2"))


def _patches(theirs: str) -> tuple[Rule, ...]:
    return (
        Rule(f"{theirs}/kernel", "patch_embed.proj.weight", CONVOLUTION),
        Rule(f"{theirs}/bias", "patch_embed.proj.bias"),
    )


def google_vit(num_heads: int) -> Names:
    """The names of a ViT. `num_heads` matters only when weights are written."""
    layer, parts = "Transformer/encoderblock_{n}", ("query", "key", "value")
    attention = f"{layer}/MultiHeadDotProductAttention_1"
    return Names(
        "Google's ViT",
        (
            Rule("cls", "cls_token"),
            *_patches("embedding"),
            Rule("Transformer/posembed_input/pos_embedding", "pos_embed.table"),
            *_norm(f"{layer}/LayerNorm_0", "blocks.{n}.norm1"),
            *_norm(f"{layer}/LayerNorm_2", "blocks.{n}.norm2"),
            *_mlp(f"{layer}/MlpBlock_3", "blocks.{n}.mlp"),
            Rule(tuple(f"{attention}/{p}/kernel" for p in parts), "blocks.{n}.mixer.qkv.weight", _qkv(num_heads)),
            Rule(tuple(f"{attention}/{p}/bias" for p in parts), "blocks.{n}.mixer.qkv.bias", _qkv_bias(num_heads)),
            Rule(f"{attention}/out/kernel", "blocks.{n}.mixer.proj.weight", _out(num_heads)),
            Rule(f"{attention}/out/bias", "blocks.{n}.mixer.proj.bias"),
            *_norm("Transformer/encoder_norm", "norm"),
            *_linear("head", "head"),
        ),
    )


GOOGLE_MIXER = Names(
    "Google's MLP-Mixer",
    (
        *_patches("stem"),
        *_norm("MixerBlock_{n}/LayerNorm_0", "blocks.{n}.norm1"),
        *_norm("MixerBlock_{n}/LayerNorm_1", "blocks.{n}.norm2"),
        *_mlp("MixerBlock_{n}/token_mixing", "blocks.{n}.mixer.mlp"),
        *_mlp("MixerBlock_{n}/channel_mixing", "blocks.{n}.mlp"),
        *_norm("pre_head_layer_norm", "norm"),
        *_linear("head", "head"),
    ),
)
