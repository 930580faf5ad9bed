"""Batch norms whose statistics and affine parameters never change, alone or folded into the convolution before."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


class FrozenNorm(nn.Module):
    """(x - running_mean) / √(running_var + eps) · weight + bias, then what was fused into the norm it stands for.

    A batch norm in evaluation mode (Ioffe and Szegedy 2015, algorithm 2), in training too: all four are buffers. The
    eps is that of `norm`, and so are the activation and the dropout that timm fuses into its norms.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.eps = norm.eps
        ones = torch.ones(norm.num_features, device=next(norm.buffers()).device)
        self.register_buffer("weight", ones if norm.weight is None else norm.weight.detach().clone())
        self.register_buffer("bias", torch.zeros_like(ones) if norm.bias is None else norm.bias.detach().clone())
        for name in ("running_mean", "running_var"):
            self.register_buffer(name, norm.get_buffer(name).clone())
        self.drop = getattr(norm, "drop", nn.Identity())
        self.act = getattr(norm, "act", nn.Identity())
        self.folded = False
        """Whether the convolution before does the norm's part, so that only dropout and activation are left."""

    @classmethod
    def can_replace(cls, module: nn.Module) -> bool:
        """Whether a module is a batch norm that this is the same function as: torch's, or timm's with an activation."""
        kind = type(module)
        own = kind is nn.BatchNorm2d or kind.__name__ == "BatchNormAct2d"
        return own and isinstance(module, nn.BatchNorm2d) and module.running_var is not None

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels height width"]:
        if not self.folded:
            x = F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return self.act(self.drop(x))

    def scale_and_shift(self) -> tuple[Float[Tensor, " channels"], Float[Tensor, " channels"]]:
        """The norm as x · scale + shift, in float32 at least."""
        dtype = torch.promote_types(self.weight.dtype, torch.float32)
        scale = self.weight.to(dtype) * (self.running_var.to(dtype) + self.eps).rsqrt()
        return scale, self.bias.to(dtype) - self.running_mean.to(dtype) * scale

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *others: Any) -> None:
        # A norm that learned counts its batches; one that never learns again has no use for the number.
        state_dict.pop(f"{prefix}num_batches_tracked", None)
        super()._load_from_state_dict(state_dict, prefix, *others)


class FoldedConv2d(nn.Conv2d):
    """A convolution and the frozen norm after it as one: conv(x, weight · scale) + bias · scale + shift.

    The parameters stay the convolution's own, and learn. What they are folded to is kept while they stay the same;
    a change by way of `parameter.data` goes unseen, as it does to autograd.
    """

    def __init__(self, conv: nn.Conv2d, norm: FrozenNorm) -> None:
        super().__init__(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,  # type: ignore[arg-type] # torch's stubs forget that it is a pair
            stride=conv.stride,  # type: ignore[arg-type]
            padding=conv.padding,  # type: ignore[arg-type]
            dilation=conv.dilation,  # type: ignore[arg-type]
            groups=conv.groups,
            bias=conv.bias is not None,
            padding_mode=conv.padding_mode,
            device="meta",
        )
        self.weight, self.bias = conv.weight, conv.bias
        self._norm = (norm,)  # in a tuple, it is no second child of the network
        self._kept: tuple[Any, Tensor, Tensor] | None = None

    def forward(self, input: Tensor) -> Tensor:
        weight, bias = self._folded(input)
        return self._conv_forward(input, weight, bias)

    def _folded(self, x: Tensor) -> tuple[Tensor, Tensor]:
        learns = torch.is_grad_enabled() and (self.weight.requires_grad or _requires_grad(self.bias))
        if learns or torch.compiler.is_compiling():
            return self._fold()
        kind = x.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else self.weight.dtype
        norm = self._norm[0]
        sources = (self.weight, self.bias, norm.weight, norm.bias, norm.running_mean, norm.running_var)
        if any(source is not None and source.is_inference() for source in sources):
            return self._fold()  # nothing tells whether such a tensor has changed
        state = (dtype, *((id(t), t.data_ptr(), t._version) for t in sources if t is not None))
        if self._kept is None or self._kept[0] != state:
            # What is kept under inference mode would be of no use to a later forward pass that has gradients.
            with torch.inference_mode(False), torch.no_grad(), torch.autocast(kind, enabled=False):
                weight, bias = self._fold()
                weight = weight.to(dtype, memory_format=torch.channels_last)
                self._kept = (state, weight, bias.to(dtype))
        return self._kept[1], self._kept[2]

    def _fold(self) -> tuple[Tensor, Tensor]:
        scale, shift = self._norm[0].scale_and_shift()
        weight = (self.weight * scale[:, None, None, None]).to(self.weight.dtype)
        bias = shift if self.bias is None else self.bias * scale + shift
        return weight, bias.to(self.weight.dtype)


def freeze_norms(network: nn.Module, image: Float[Tensor, "1 channels height width"]) -> None:
    """Puts frozen norms in the place of a network's batch norms, folded where a convolution feeds the norm alone.

    Which convolutions do is seen in a forward pass of `image`, whose size does not matter. A gain that is zero
    throughout (timm starts residual branches so) could never learn: it becomes 1/√n, where n is the number of them.
    """
    norms = {name: FrozenNorm(module) for name, module in network.named_modules() if FrozenNorm.can_replace(module)}
    for name, norm in norms.items():
        network.set_submodule(name, norm)
    _open_branches([norm.weight for norm in norms.values()])
    for conv, norm in _pairs(network, image).items():
        network.set_submodule(conv, FoldedConv2d(network.get_submodule(conv), norm))  # type: ignore[arg-type]
        norm.folded = True


def _open_branches(gains: list[Tensor]) -> None:
    closed = [gain for gain in gains if not gain.is_meta and not gain.any()]
    for gain in closed:
        gain.fill_(len(closed) ** -0.5)


def _pairs(network: nn.Module, image: Tensor) -> Mapping[str, FrozenNorm]:
    """Each plain convolution, by name, whose output nothing reads but one frozen norm, and both of which run once."""
    watch = _Readers()
    made: dict[str, Tensor] = {}
    read: dict[FrozenNorm, Tensor] = {}
    runs: dict[nn.Module, int] = {}
    hooks = []

    def after(name: str, module: nn.Module, output: Tensor) -> None:
        runs[module] = runs.get(module, 0) + 1
        made[name] = output

    def before(module: FrozenNorm, inputs: tuple[Tensor, ...]) -> None:
        runs[module] = runs.get(module, 0) + 1
        read[module] = inputs[0]

    for name, module in network.named_modules():
        if type(module) is nn.Conv2d:
            hooks.append(module.register_forward_hook(lambda m, _, out, name=name: after(name, m, out)))
        elif isinstance(module, FrozenNorm):
            hooks.append(module.register_forward_pre_hook(before))
    was_training = network.training
    network.eval()
    with torch.no_grad(), watch:
        network(image)
    network.train(was_training)
    for hook in hooks:
        hook.remove()
    by_input = {id(tensor): norm for norm, tensor in read.items() if runs[norm] == 1}
    return {
        name: by_input[id(output)]
        for name, output in made.items()
        if id(output) in by_input and runs[network.get_submodule(name)] == 1 and watch.count(output) == 1
    }


class _Readers(TorchFunctionMode):
    """Counts the functions that read each tensor; looking at a shape is no reading."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[int, tuple[Tensor, int]] = {}  # holding the tensors keeps their ids theirs

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") != "__get__":
            for value in (*args, *(kwargs or {}).values()):
                for tensor in value if isinstance(value, (list, tuple)) else (value,):
                    if isinstance(tensor, Tensor):
                        self._seen[id(tensor)] = (tensor, self.count(tensor) + 1)
        return func(*args, **(kwargs or {}))

    def count(self, tensor: Tensor) -> int:
        return self._seen.get(id(tensor), (tensor, 0))[1]


def _requires_grad(tensor: Tensor | None) -> bool:
    return tensor is not None and tensor.requires_grad
