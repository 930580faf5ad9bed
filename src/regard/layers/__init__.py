"""What models are built of: the grid, embeddings, positions, attention, the MLP, and the layers made of them."""

from regard.layers.block import MLP, Activation, Block, DropPath, LayerScale
from regard.layers.checkpointing import checkpointed
from regard.layers.deformable_attention import DeformableAttention
from regard.layers.embedding import PositionKind, TokenEmbedding, check_tokens
from regard.layers.freezing import freeze
from regard.layers.frozen_norm import FrozenNorm, FusedConv, freeze_norms, fuse_norms, fused
from regard.layers.grid import Grid
from regard.layers.intermediates import Tap, first_input, layer_taps, record
from regard.layers.local_attention_2d import LocalAttention2d, StemAttention2d, pooled
from regard.layers.mixer import Mixer
from regard.layers.multi_head_attention import KeyValueCache, MultiHeadAttention
from regard.layers.patch_embed import PatchEmbed
from regard.layers.positions import LearnedPositions, SinePositions
from regard.layers.replace import replace_convolutions
from regard.layers.transformer_layers import DecoderLayer, EncoderLayer, NormPlace, Residual

__all__ = [
    "MLP",
    "Activation",
    "Block",
    "DecoderLayer",
    "DeformableAttention",
    "DropPath",
    "EncoderLayer",
    "FrozenNorm",
    "FusedConv",
    "Grid",
    "KeyValueCache",
    "LayerScale",
    "LearnedPositions",
    "LocalAttention2d",
    "Mixer",
    "MultiHeadAttention",
    "NormPlace",
    "PatchEmbed",
    "PositionKind",
    "Residual",
    "SinePositions",
    "StemAttention2d",
    "Tap",
    "TokenEmbedding",
    "check_tokens",
    "checkpointed",
    "first_input",
    "freeze",
    "freeze_norms",
    "fuse_norms",
    "fused",
    "layer_taps",
    "pooled",
    "record",
    "replace_convolutions",
]
