"""Batch norms that no longer learn, and convolutions that are fused with them."""

import copy

import torch
from jaxtyping import Float
from torch import Tensor, nn


class FrozenNorm(nn.Module):
    """act((x - mean) / √(var + eps) · weight + bias) with four constants: a batch norm as it is in evaluation mode.

    Its eps is that of the batch norm, and so is the activation, which some norms of timm hold. It computes the same in
    training as in evaluation.
    """

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        channels = norm.num_features
        self.eps = norm.eps
        self.act: nn.Module = getattr(norm, "act", nn.Identity())
        self.fused = False
        self.weight: Tensor
        self.bias: Tensor
        self.running_mean: Tensor
        self.running_var: Tensor
        constants = {
            "weight": torch.ones(channels) if norm.weight is None else norm.weight.detach().clone(),
            "bias": torch.zeros(channels) if norm.bias is None else norm.bias.detach().clone(),
            "running_mean": torch.zeros(channels) if norm.running_mean is None else norm.running_mean.clone(),
            "running_var": torch.ones(channels) if norm.running_var is None else norm.running_var.clone(),
        }
        for name, value in constants.items():
            self.register_buffer(name, value)

    def scale_and_shift(self) -> tuple[Float[Tensor, " channels"], Float[Tensor, " channels"]]:
        """The norm as x · scale + shift."""
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        return scale, self.bias - self.running_mean * scale

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels height width"]:
        if self.fused:
            return self.act(x)
        scale, shift = (part[:, None, None].to(x.dtype) for part in self.scale_and_shift())
        return self.act(x * scale + shift)


class FusedConv(nn.Conv2d):
    """A convolution fused with the frozen norm behind it: conv(x, W · scale) + shift.

    W is trained as before: the scale is a constant. Without gradients, W · scale is cached until a tensor changes.
    """

    def __init__(self, conv: nn.Conv2d, norm: FrozenNorm) -> None:
        super().__init__(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,  # type: ignore[arg-type]
            conv.stride,  # type: ignore[arg-type]
            conv.padding,  # type: ignore[arg-type]
            conv.dilation,  # type: ignore[arg-type]
            conv.groups,
            conv.bias is not None,
            conv.padding_mode,
        )
        self.weight, self.bias = conv.weight, conv.bias
        norm.fused = True
        self._norm = (norm,)  # in a tuple, so that the state dict has the norm once, at its own place
        self._cached: tuple[tuple[object, ...], Tensor, Tensor] | None = None

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch out height2 width2"]:
        return self._conv_forward(x, *self._combined())

    def _combined(self) -> tuple[Tensor, Tensor]:
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or self.weight.is_meta:
            self._cached = None
            return self._multiplied()
        norm = self._norm[0]
        tensors = [self.weight, norm.weight, norm.bias, norm.running_mean, norm.running_var]
        state = tuple((tensor.data_ptr(), None if tensor.is_inference() else tensor._version) for tensor in tensors)
        if self._cached is None or self._cached[0] != state:
            self._cached = (state, *self._multiplied())
        return self._cached[1], self._cached[2]

    def _multiplied(self) -> tuple[Tensor, Tensor]:
        scale, shift = self._norm[0].scale_and_shift()
        return self.weight * scale[:, None, None, None], shift if self.bias is None else shift + self.bias * scale


def freeze_norms(model: nn.Module) -> None:
    """Puts a FrozenNorm in the place of every batch norm, with its values and under its names."""
    for name, child in list(model.named_children()):
        if isinstance(child, nn.BatchNorm2d):
            setattr(model, name, FrozenNorm(child))
        else:
            freeze_norms(child)


def fuse_norms(model: nn.Module) -> None:
    """Fuses plain convolutions with the frozen norms behind them.

    Pairs are found by their names, which all ResNets and similar networks run one after the other: `conv1` and `bn1`,
    `conv2` and `bn2`, ..., `conv` and `bn`, and neighbours in a sequence. Other norms stay as they are.
    """
    for module in list(model.modules()):
        children = dict(module.named_children())
        if isinstance(module, nn.Sequential):
            pairs = list(zip(children, list(children)[1:], strict=False))
        else:
            pairs = [(name, f"bn{name[4:]}") for name in children if name.startswith("conv")]
        for conv_name, norm_name in pairs:
            conv, norm = children[conv_name], children.get(norm_name)
            plain = type(conv) is nn.Conv2d and conv.padding_mode == "zeros"
            if plain and isinstance(norm, FrozenNorm) and not norm.fused:
                setattr(module, conv_name, FusedConv(conv, norm))  # type: ignore[arg-type] # type() says it is one


def fused(model: nn.Module) -> nn.Module:
    """A copy that computes the same in evaluation mode, but faster: its norms are fused. Not for training."""
    model = copy.deepcopy(model)
    freeze_norms(model)
    fuse_norms(model)
    return model
