"""Pure tensor functions: no module, no parameter, no state. Each has a readable `math` path.

Shapes, throughout: tokens lie as (batch, heads, tokens, head_dim); a grid of tokens is read row by row, after any
prefix tokens (class token, registers).
"""

from regard.ops.attention import attention, attention_weights
from regard.ops.attention_rows import attention_rows
from regard.ops.deformable_attention import deformable_attention
from regard.ops.favor.attention import FavorState, favor_attention, favor_step, favor_weights
from regard.ops.favor.features import favor_features, orthogonal_projection
from regard.ops.favor.rows import favor_rows
from regard.ops.fourier import fourier_mixing
from regard.ops.local.attention import LocalImpl, local_attention
from regard.ops.local.dense_weights import local_attention_weights, relative_logits, window_mask
from regard.ops.local.native import native_state
from regard.ops.local.rows import local_attention_rows
from regard.ops.local.stem import stem_attention
from regard.ops.patches import hidden_patches, images_of, patches_of
from regard.ops.position import masked_sine_positions, resample_positions, sine_boxes, sine_positions, sine_positions_2d

__all__ = [
    "FavorState",
    "LocalImpl",
    "attention",
    "attention_rows",
    "attention_weights",
    "deformable_attention",
    "favor_attention",
    "favor_features",
    "favor_rows",
    "favor_step",
    "favor_weights",
    "fourier_mixing",
    "hidden_patches",
    "images_of",
    "local_attention",
    "local_attention_rows",
    "local_attention_weights",
    "masked_sine_positions",
    "native_state",
    "orthogonal_projection",
    "patches_of",
    "relative_logits",
    "resample_positions",
    "sine_boxes",
    "sine_positions",
    "sine_positions_2d",
    "stem_attention",
    "window_mask",
]
