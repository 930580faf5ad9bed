"""Gradient checkpointing (Chen et al. 2016)."""

from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def checkpointed(on: bool, layer: nn.Module, *inputs: Any, **options: Any) -> Any:
    """layer(*inputs, **options). With `on`, the backward pass computes its activations again."""
    if on and torch.is_grad_enabled():
        return checkpoint(layer, *inputs, use_reentrant=False, **options)
    return layer(*inputs, **options)
