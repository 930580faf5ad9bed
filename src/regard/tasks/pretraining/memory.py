"""What a training takes, said before it starts."""

import math

import torch
from torch import nn

from regard.data.memory import available_memory
from regard.errors import RegardError, is_out_of_memory
from regard.models import ModelConfig, build
from regard.recipes import TrainSection

_BYTES = 4  # of a number in float32
_COPIES = 4  # weights, gradients, and AdamW's two moments


def require_memory(config: ModelConfig, train: TrainSection, name: str) -> None:
    """RegardError where weights, gradients and moments of a model alone are more than the memory that is free.

    The model is built without memory.
    """
    try:
        with torch.device("meta"):
            model: nn.Module = build(config)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error) and "too large" not in str(error):
            raise
        raise RegardError(f"model: {name} is larger than any memory") from None
    numbers = sum(math.prod(parameter.shape) for parameter in model.parameters())
    constants = sum(math.prod(buffer.shape) for buffer in model.buffers())
    need, free = _BYTES * (numbers * (_COPIES + bool(train.ema_decay)) + constants), available_memory()
    if need > free:
        raise RegardError(
            f"model: {name} has {numbers / 1e6:,.0f} M parameters; training takes {need / 2**30:,.1f} GB and more, and "
            f"{free / 2**30:,.1f} GB are free; a smaller model.embed_dim or model.depth fits"
        )
