"""The block that every isotropic encoder repeats."""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from regard.layers.grid import Grid
from regard.layers.mixer import Mixer

Activation = Literal["gelu", "gelu_tanh", "relu"]


class MLP(nn.Module):
    """Two linear maps with an activation between, on each token alone."""

    def __init__(self, embed_dim: int, hidden_dim: int, activation: Activation = "gelu") -> None:
        super().__init__()
        self.fc1 = nn.Linear(embed_dim, hidden_dim)
        self.act = nn.ReLU() if activation == "relu" else nn.GELU("tanh" if activation == "gelu_tanh" else "none")
        self.fc2 = nn.Linear(hidden_dim, embed_dim)

    def forward(self, x: Float[Tensor, "... embed_dim"]) -> Float[Tensor, "... embed_dim"]:
        return self.fc2(self.act(self.fc1(x)))

    def flops(self, grid: Grid) -> int:
        return 2 * grid.num_tokens * (self.fc1.weight.numel() + self.fc2.weight.numel())


class LayerScale(nn.Module):
    """A learned factor for each channel of a branch's output (CaiT, Touvron et al. 2021)."""

    def __init__(self, embed_dim: int, init: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((embed_dim,), init))

    def forward(self, x: Float[Tensor, "... embed_dim"]) -> Float[Tensor, "... embed_dim"]:
        return x * self.gamma


class DropPath(nn.Module):
    """In training, leaves out a branch for randomly drawn images (stochastic depth, Huang et al. 2016).

    For the other images the branch is divided by the probability of keeping it, so that its mean stays the same.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Float[Tensor, " batch *shape"]) -> Float[Tensor, " batch *shape"]:
        if not self.training or not self.rate:
            return x
        kept = torch.rand(x.shape[0], *(1,) * (x.ndim - 1), device=x.device) >= self.rate
        return x * kept / (1 - self.rate)


class Block(nn.Module):
    """Pre-norm (Dosovitskiy et al. 2020, eq. 2 and 3): x + mixer(norm(x)), then x + mlp(norm(x))."""

    def __init__(
        self,
        embed_dim: int,
        mixer: Mixer,
        *,
        mlp_ratio: float,
        drop_path: float,
        layer_scale: float | None,
        norm_eps: float = 1e-6,
    ) -> None:
        super().__init__()

        def scale() -> nn.Module:
            return nn.Identity() if layer_scale is None else LayerScale(embed_dim, layer_scale)

        self.norm1 = nn.LayerNorm(embed_dim, eps=norm_eps)
        self.mixer = mixer
        self.ls1 = scale()
        self.norm2 = nn.LayerNorm(embed_dim, eps=norm_eps)
        self.mlp = MLP(embed_dim, int(embed_dim * mlp_ratio))
        self.ls2 = scale()
        self.drop_path = DropPath(drop_path)

    def forward(
        self,
        x: Float[Tensor, "batch tokens embed_dim"],
        *,
        grid: Grid | None = None,
        mask: Bool[Tensor, "batch tokens"] | None = None,
    ) -> Float[Tensor, "batch tokens embed_dim"]:
        x = x + self.drop_path(self.ls1(self.mixer(self.norm1(x), grid=grid, mask=mask)))
        return x + self.drop_path(self.ls2(self.mlp(self.norm2(x))))

    def flops(self, grid: Grid) -> int:
        return self.mixer.flops(grid) + self.mlp.flops(grid)
