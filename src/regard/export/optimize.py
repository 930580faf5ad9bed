"""`optimize`: a copy of a trained model for fast answers on a CPU, inside PyTorch.

Of a ViT every linear map becomes `Packed`: weights in oneDNN's own layout, with the activation or the residual added
in the same kernel. What is constant is multiplied into the weights beforehand: the scale and shift of a norm into the
map behind it, LayerScale into the map before it. Tokens that no head reads stop before the last MLP, and with softmax
attention before the last queries.
"""

import copy
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from regard.errors import RegardError, unknown
from regard.export.ways_to_attend import WAYS, faster_precision, fastest_way
from regard.layers.block import LayerScale
from regard.layers.frozen_norm import fused
from regard.layers.grid import Grid
from regard.mixers import Attention, TokenMLP
from regard.mixers.base import HeadMixer
from regard.models import DETR, DNDETR, SASAResNet, ViT
from regard.ops.precision import has_bf16
from regard.tasks import Classifier, Detector

PRECISIONS = ("auto", "fp32", "bf16")
GRIDS = 16  # sizes of images whose positions are kept


def optimize(model: nn.Module | Classifier | Detector, precision: str = "auto", *, compile: bool = False) -> Any:
    """A copy of an image model, or of what `regard.load` gives, that answers faster on a CPU; the original stays.

    precision: "fp32" (the same answers to 1e-5 of their scale), "bf16" (to 0.02; for a ViT, on a processor with
    instructions for it), or "auto": the faster one, which is timed here once. Batches and sizes stay free.
    A ViT is packed as a whole. Of SASAResNet, DETR and DNDETR batch norms are fused into the convolutions, and linear
    maps are packed. compile: `torch.compile` with frozen weights, of the model's forward; the first answer for each
    shape then takes a minute or more, and a C++ compiler is needed.
    The copy is for answers alone: RegardError for a model in training mode, and from the copy in training mode or for
    images with gradients; RegardError for other models, and for weights that are not float32 on the CPU.
    """
    if precision not in PRECISIONS:
        raise unknown("precision", precision, PRECISIONS, where="optimize")
    if isinstance(model, Classifier | Detector):
        faster: Any = copy.copy(model)
        faster.model = optimize(model.model, precision, compile=compile)
        return faster
    _require_packable(model)
    able = isinstance(model, ViT) and has_bf16(torch.device("cpu"))
    if precision == "bf16" and not able:
        why = "this processor has no instructions for it" if isinstance(model, ViT) else "it is for ViTs"
        raise RegardError(f"optimize: precision bf16: {why}; take fp32")
    with torch.no_grad():
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        if precision == "auto" and able and isinstance(model, ViT):
            dtype = _faster(model.config.embed_dim)
        optimized: Any = PackedViT(model, dtype) if isinstance(model, ViT) else _packed_in_place(fused(model))
    optimized.eval().requires_grad_(False)
    if compile:
        optimized.forward = torch.compile(optimized.forward, dynamic=False, options={"freezing": True})
    optimized.register_forward_pre_hook(_require_answers)
    return optimized


@cache
def _faster(width: int) -> torch.dtype:
    x, weight = torch.ones(256, width), torch.ones(4 * width, width)
    return faster_precision({dtype: Packed(weight, None, dtype) for dtype in (torch.float32, torch.bfloat16)}, x)


def _require_packable(model: object) -> None:
    if not isinstance(model, ViT | SASAResNet | DETR | DNDETR):
        raise RegardError(
            f"optimize: takes a ViT, SASAResNet, DETR or DNDETR, or what regard.load gives of a run of one; "
            f"got a {type(model).__name__}"
        )
    if model.training:
        raise RegardError("optimize: the model is in training mode; call model.eval() first")
    if any(one.device.type != "cpu" or one.dtype != torch.float32 for one in model.parameters()):
        raise RegardError("optimize: takes float32 weights on the CPU; call model.float().cpu() first")
    if not torch.backends.mkldnn.is_available():
        raise RegardError("optimize: this PyTorch is built without oneDNN, which packs the weights")


def _require_answers(module: nn.Module, inputs: tuple[Any, ...]) -> None:
    if module.training:
        raise RegardError("an optimized model cannot learn; call eval(), or train the model that it was made from")
    if torch.is_grad_enabled() and any(isinstance(one, Tensor) and one.requires_grad for one in inputs):
        raise RegardError("an optimized model gives no gradients; take the model that it was made from")


class Packed(nn.Module):
    """x W^T + b with W in oneDNN's layout; then an activation, or plus `add`, in the same kernel."""

    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype, act: nn.Module | None = None) -> None:
        super().__init__()
        self.dtype = dtype
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight.detach().to(dtype).contiguous())
        self._bias = None if bias is None else bias.detach().to(dtype)
        gelu = ("gelu", str(getattr(act, "approximate", "")))
        self._after = ("none", "") if act is None else ("relu", "") if isinstance(act, nn.ReLU) else gelu

    def forward(
        self, x: Float[Tensor, "... inputs"], add: Float[Tensor, "... outputs"] | None = None
    ) -> Float[Tensor, "... outputs"]:
        x, kernel = x.to(self.dtype), torch.ops.mkldnn._linear_pointwise
        if add is not None and add.dtype == self.dtype:
            return kernel.binary(x, add, self._weight, self._bias, "add")
        found = kernel(x, self._weight, self._bias, self._after[0], [], self._after[1])
        if add is not None:
            return add + found  # a residual in float32, so that depth does not add up to an error
        return found


def _map(weight: Tensor, bias: Tensor | None, norm: nn.LayerNorm) -> tuple[Tensor, Tensor | None]:
    """W (g * n + s) + b = (W g) n + (W s + b): the map behind a norm, for tokens that are normalised alone."""
    shift = weight @ norm.bias
    return weight * norm.weight, shift if bias is None else bias + shift


def _scaled(linear: nn.Linear, scale: nn.Module | None) -> tuple[Tensor, Tensor | None]:
    """g * (W x + b): the map before a LayerScale."""
    if not isinstance(scale, LayerScale):
        return linear.weight, linear.bias
    return linear.weight * scale.gamma[:, None], None if linear.bias is None else linear.bias * scale.gamma


class _PackedMLP(nn.Module):
    def __init__(self, mlp: Any, dtype: torch.dtype, norm: Any = None, scale: nn.Module | None = None) -> None:
        super().__init__()
        weight, bias = mlp.fc1.weight, mlp.fc1.bias
        weight, bias = (weight, bias) if norm is None else _map(weight, bias, norm)
        self.fc1 = Packed(weight, bias, dtype, mlp.act)
        self.fc2 = Packed(*_scaled(mlp.fc2, scale), dtype)

    def forward(self, x: Tensor, add: Tensor | None = None) -> Tensor:
        return self.fc2(self.fc1(x), add)


class _PackedBlock(nn.Module):
    """x + mixer(norm(x)), then x + mlp(norm(x)), of which the `first` tokens come out, or all."""

    def __init__(self, block: Any, dtype: torch.dtype, first: int | None) -> None:
        super().__init__()
        self.mixer, self.dtype, self.first = block.mixer, dtype, first
        self.eps1, self.eps2 = block.norm1.eps, block.norm2.eps
        self.mlp = _PackedMLP(block.mlp, dtype, block.norm2, block.ls2)
        self.softmax = type(self.mixer) is Attention and not self.mixer.causal
        if isinstance(self.mixer, HeadMixer):
            self._pack_heads(block)
        else:
            self.norm1, self.ls1 = block.norm1, block.ls1
            if isinstance(self.mixer, TokenMLP):
                self.mixer.mlp = _PackedMLP(self.mixer.mlp, dtype)  # type: ignore[assignment] # computes the same

    def _pack_heads(self, block: Any) -> None:
        mixer = block.mixer
        parts = [mixer.qkv] if mixer.fused_qkv else [mixer.q, mixer.k, mixer.v]
        bias = None if parts[0].bias is None else torch.cat([part.bias for part in parts])
        weight, bias = _map(torch.cat([part.weight for part in parts]), bias, block.norm1)
        self.proj, mixer.proj, mixer.fused_qkv = (
            Packed(*_scaled(mixer.proj, block.ls1), self.dtype),
            nn.Identity(),
            True,
        )
        if self.softmax:
            width = mixer.num_heads * mixer.head_dim
            assert bias is not None
            cut = (0, 3 * width) if self.first is None else (0, width)
            self.q = Packed(weight[slice(*cut)], bias[slice(*cut)], self.dtype)
            self.kv = None if self.first is None else Packed(weight[width:], bias[width:], self.dtype)
        else:  # features of a performer would carry the rounding of bf16 into an exponential
            mixer.qkv = Packed(weight, bias, torch.float32)

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        first, width = self.first, x.shape[-1:]
        if isinstance(self.mixer, HeadMixer):
            normal = F.layer_norm(x, width, eps=self.eps1)
            mixed = self._attended(normal) if self.softmax else self.mixer(normal, grid=grid)[:, :first]
            x = self.proj(mixed, x[:, :first].contiguous())
        else:
            x = x[:, :first] + self.ls1(self.mixer(self.norm1(x), grid=grid)[:, :first].float())
        return self.mlp(F.layer_norm(x, width, eps=self.eps2), x)

    def _attended(self, x: Tensor) -> Tensor:
        heads = (self.mixer.num_heads, self.mixer.head_dim)
        if self.kv is None:
            q, k, v = (part.transpose(1, 2) for part in self.q(x).unflatten(-1, (3, *heads)).unbind(2))
        else:
            q = self.q(x[:, : self.first]).unflatten(-1, heads).transpose(1, 2)
            k, v = (part.transpose(1, 2) for part in self.kv(x).unflatten(-1, (2, *heads)).unbind(2))
        return WAYS[fastest_way(q, k, v)](q, k, v).transpose(1, 2).flatten(2)


class PackedViT(nn.Module):
    """A ViT for answers: `forward` and `config`, and nothing else of it."""

    def __init__(self, model: ViT, dtype: torch.dtype) -> None:
        super().__init__()
        rest = copy.deepcopy(model)
        first = {"token": 1, "distilled": 2}.get(model.config.pool)
        *blocks, last = rest.blocks
        self.config = model.config
        self.blocks = nn.ModuleList(
            [*(_PackedBlock(one, dtype, None) for one in blocks), _PackedBlock(last, dtype, first)]
        )
        rest.blocks = nn.ModuleList()  # type: ignore[assignment] # as in the ViT
        self.rest = rest  # positions, tokens, the last norm and the head, in float32
        conv = rest.patch_embed.proj
        self.patches = Packed(conv.weight.flatten(1), conv.bias, dtype)
        self._constant: dict[Grid, Tensor] = {}

    def forward(self, images: Float[Tensor, "batch in_chans height width"]) -> Float[Tensor, "batch num_classes"]:
        """Logits, in float32."""
        embed, (batch, channels, height, width) = self.rest.patch_embed, images.shape
        if channels != embed.in_chans:
            raise RegardError(f"the images have {channels} channels, the model takes {embed.in_chans}")
        grid, side = embed.grid(height, width, prefix=self.rest.grid.prefix), embed.patch_size
        cut = images.reshape(batch, channels, grid.height, side, grid.width, side).permute(0, 2, 4, 1, 3, 5)
        tokens = self.patches(cut.reshape(batch, grid.num_patches, -1))
        constant = self._constant_of(grid)
        x = constant.expand(batch, -1, -1).clone()  # positions, and the prefix tokens with theirs
        x[:, grid.prefix :] += tokens
        for block in self.blocks:
            x = block(x, grid)
        return self.rest.forward_head(self.rest.norm(x))

    def _constant_of(self, grid: Grid) -> Tensor:
        if grid not in self._constant:
            rest = self.rest
            found = torch.zeros(1, grid.num_tokens, rest.config.embed_dim)
            if grid.prefix:
                found[:, : grid.prefix] = torch.cat(rest._prefix_tokens(), dim=1)
            if rest.pos_embed is not None:
                found = found + rest.pos_embed(grid)
            if len(self._constant) == GRIDS:
                del self._constant[next(iter(self._constant))]
            self._constant[grid] = found
        return self._constant[grid]


def _packed_in_place(model: nn.Module) -> nn.Module:
    """Packs the linear maps of a model that keeps its own forward, but for those whose weights are read elsewhere."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear and not (isinstance(parent, HeadMixer) and name == "qkv"):
                setattr(parent, name, Packed(child.weight, child.bias, torch.float32))
    return model
