"""Local attention in the place of a model's convolutions."""

from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import TypeVar

from torch import nn

from regard.errors import RegardError
from regard.layers.local_attention_2d import LocalAttention2d

Model = TypeVar("Model", bound=nn.Module)
Where = str | Callable[[str, nn.Module], bool] | None


def replace_convolutions(model: Model, where: Where = None, *, num_heads: int = 8, window: int = 7) -> Model:
    """Puts `LocalAttention2d` with random weights in the place of a model's spatial convolutions.

    The attention has the convolution's channels, and takes means over stride × stride pixels where the convolution
    strides, so that the rest of the model still fits (Ramachandran et al. 2019, section 3.2).

    where: a glob of module names such as "layer4.*.conv2", or a function of (name, module). Unless given: every
    convolution that is larger than 1 × 1, has one group and channels that the heads divide, and is not the stem (which
    reads at most 4 channels). The model itself is changed, and returned.
    RegardError where nothing is found, or where a convolution that was asked for cannot be replaced.
    """
    found = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d) and _is_meant(where, name, module, num_heads)
    }
    if not found:
        raise RegardError(f"replace_convolutions: no convolution is meant by {where or 'the default'!r}")
    for name, conv in found.items():
        reason = _refusal(conv, num_heads)
        if reason is not None:
            raise RegardError(f"replace_convolutions: {name or 'the model itself'}: {reason}")
    for name, conv in found.items():
        parent, _, own = name.rpartition(".")
        attention = LocalAttention2d(
            conv.in_channels, conv.out_channels, num_heads=num_heads, window=window, stride=conv.stride[0]
        )
        attention.to(conv.weight).train(conv.training)
        setattr(model.get_submodule(parent), own, attention)
    return model


def _is_meant(where: Where, name: str, conv: nn.Conv2d, num_heads: int) -> bool:
    if where is None:
        return max(conv.kernel_size) > 1 and conv.in_channels > 4 and _refusal(conv, num_heads) is None
    return fnmatchcase(name, where) if isinstance(where, str) else bool(where(name, conv))


def _refusal(conv: nn.Conv2d, num_heads: int) -> str | None:
    """Why attention cannot take a convolution's place, or None."""
    if conv.groups != 1:
        return f"it has {conv.groups} groups"
    if conv.out_channels % num_heads or conv.out_channels // num_heads < 2:
        return f"its {conv.out_channels} channels do not divide into {num_heads} heads of at least 2 channels"
    if len(set(conv.stride)) > 1:
        return f"it strides by {conv.stride}"
    same = tuple(dilation * (size - 1) // 2 for dilation, size in zip(conv.dilation, conv.kernel_size, strict=True))
    if conv.padding not in ("same", same):
        return f"its padding {conv.padding} does not keep the image's size, as {same} would"
    return None
