"""The Transformer's encoder and decoder over vectors (Vaswani et al. 2017, section 3.1)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from regard.layers import (
    Activation,
    DecoderLayer,
    EncoderLayer,
    Grid,
    KeyValueCache,
    NormPlace,
    Tap,
    checkpointed,
    first_input,
    layer_taps,
)
from regard.mixers import HeadMixer, Mixer, create_mixer, one_each, options_for


class TransformerEncoder(nn.Module):
    """`depth` encoder layers over vectors, and a last norm (with pre-norm, unless `final_norm` says otherwise).

    `mixer` is a name of MIXERS, or one a layer. With `causal` a token sees only itself and those before it, and `step`
    computes token by token.
    """

    gradient_checkpointing = False
    """Recompute each layer in the backward pass instead of keeping its activations."""

    def __init__(
        self,
        embed_dim: int = 512,
        num_heads: int = 8,
        depth: int = 6,
        *,
        mlp_ratio: float = 4.0,
        norm: NormPlace = "post",
        activation: Activation = "relu",
        dropout: float = 0.1,
        mixer: str | Sequence[str] = "attention",
        mixer_options: Mapping[str, Any] | None = None,
        causal: bool = False,
        final_norm: bool | None = None,
        norm_eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.layers: Sequence[EncoderLayer] = nn.ModuleList(  # type: ignore[assignment] # it is one, but not by name
            EncoderLayer(
                embed_dim,
                token_mixer,
                hidden_dim=int(embed_dim * mlp_ratio),
                norm=norm,
                activation=activation,
                dropout=dropout,
                norm_eps=norm_eps,
            )
            for token_mixer in _mixers(mixer, depth, embed_dim, num_heads, mixer_options or {}, causal)
        )
        self.norm = _last_norm(embed_dim, norm, final_norm)
        self.apply(_init_weights)

    def forward(
        self,
        x: Float[Tensor, "batch tokens embed_dim"],
        *,
        mask: Bool[Tensor, "batch tokens"] | None = None,
        positions: Float[Tensor, "batch tokens embed_dim"] | None = None,
        grid: Grid | None = None,
    ) -> Float[Tensor, "batch tokens embed_dim"]:
        """`mask` is True where a token is real; `positions` are added to queries and keys in every layer.

        A sequence lies on a grid of one row, unless `grid` says how the tokens lie on an image.
        """
        grid = Grid(1, x.shape[1], 0) if grid is None else grid
        for layer in self.layers:
            x = checkpointed(self.gradient_checkpointing, layer, x, grid=grid, mask=mask, positions=positions)
        return self.norm(x)

    def taps(self, name: str) -> dict[str, Tap]:
        """The encoder's input, its layers and its output, as intermediates of a model that calls it `name`."""
        layers = layer_taps(f"{name}.layers", self.layers)
        return {f"{name}.input": Tap(self, first_input), **layers, name: Tap(self.norm)}

    def step(
        self, x: Float[Tensor, "batch new embed_dim"], states: tuple[Any, ...] | None = None
    ) -> tuple[Float[Tensor, "batch new embed_dim"], tuple[Any, ...]]:
        """The causal output for new tokens, and each layer's new state; `states` are those after the tokens before."""
        new = []
        for layer, state in zip(self.layers, states or (None,) * len(self.layers), strict=True):
            x, state = layer.step(x, state)
            new.append(state)
        return self.norm(x), tuple(new)

    def flops(self, num_tokens: int) -> int:
        grid = Grid(1, num_tokens, 0)
        return sum(layer.flops(grid) for layer in self.layers)


class TransformerDecoder(nn.Module):
    """`depth` decoder layers over vectors, which see the encoder's output, and a last norm as in the encoder.

    With `causal`, which a decoder of sequences needs, a token sees only itself and those before it.
    """

    gradient_checkpointing = False

    def __init__(
        self,
        embed_dim: int = 512,
        num_heads: int = 8,
        depth: int = 6,
        *,
        mlp_ratio: float = 4.0,
        norm: NormPlace = "post",
        activation: Activation = "relu",
        dropout: float = 0.1,
        mixer: str | Sequence[str] = "attention",
        mixer_options: Mapping[str, Any] | None = None,
        causal: bool = True,
        final_norm: bool | None = None,
    ) -> None:
        super().__init__()
        self.layers: Sequence[DecoderLayer] = nn.ModuleList(  # type: ignore[assignment]
            DecoderLayer(
                embed_dim,
                token_mixer,
                num_heads=num_heads,
                hidden_dim=int(embed_dim * mlp_ratio),
                norm=norm,
                activation=activation,
                dropout=dropout,
            )
            for token_mixer in _mixers(mixer, depth, embed_dim, num_heads, mixer_options or {}, causal)
        )
        self.norm = _last_norm(embed_dim, norm, final_norm)
        self.apply(_init_weights)

    def forward(
        self,
        x: Float[Tensor, "batch tokens embed_dim"],
        memory: Float[Tensor, "batch memory_tokens embed_dim"],
        *,
        mask: Bool[Tensor, "batch tokens"] | None = None,
        memory_mask: Bool[Tensor, "batch memory_tokens"] | None = None,
        positions: Float[Tensor, "batch tokens embed_dim"] | None = None,
        memory_positions: Float[Tensor, "batch memory_tokens embed_dim"] | None = None,
    ) -> Float[Tensor, "batch tokens embed_dim"]:
        """`memory` is the encoder's output. Masks are True where a token is real."""
        inputs: dict[str, Any] = {
            "mask": mask,
            "memory_mask": memory_mask,
            "positions": positions,
            "memory_positions": memory_positions,
        }
        for output in self._through(x, memory, inputs):
            x = output
        return self.norm(x)

    def every_layer(
        self,
        x: Float[Tensor, "batch tokens embed_dim"],
        memory: Float[Tensor, "batch memory_tokens embed_dim"],
        *,
        memory_mask: Bool[Tensor, "batch memory_tokens"] | None = None,
        positions: Float[Tensor, "batch tokens embed_dim"] | None = None,
        memory_positions: Float[Tensor, "batch memory_tokens embed_dim"] | None = None,
    ) -> Float[Tensor, "layers batch tokens embed_dim"]:
        """The normed output of each layer, which DETR's auxiliary losses read; otherwise as `forward`."""
        inputs = {"memory_mask": memory_mask, "positions": positions, "memory_positions": memory_positions}
        return self.norm(torch.stack(list(self._through(x, memory, inputs))))

    def _through(self, x: Tensor, memory: Tensor, inputs: dict[str, Any]) -> Iterator[Tensor]:
        """The output of each layer in turn."""
        for layer in self.layers:
            x = checkpointed(self.gradient_checkpointing, layer, x, memory, **inputs)
            yield x

    def taps(self, name: str) -> dict[str, Tap]:
        """The decoder's layers and its normed output, as intermediates of a model that calls it `name`."""
        return {**layer_taps(f"{name}.layers", self.layers, inside=["cross"]), name: Tap(self.norm)}

    def cross_attention(
        self,
        x: Float[Tensor, "batch tokens embed_dim"],
        memory: Float[Tensor, "batch memory_tokens embed_dim"],
        *,
        memory_mask: Bool[Tensor, "batch memory_tokens"] | None = None,
    ) -> Float[Tensor, "batch layers heads tokens memory_tokens"]:
        """The weights with which each token attends to the encoder's output, in each layer and head."""
        weights = []
        for layer in self.layers:
            weights.append(layer.cross_attention(x, memory, memory_mask=memory_mask))
            x = layer(x, memory, memory_mask=memory_mask)
        return torch.stack(weights, dim=1)

    def project(self, memory: Float[Tensor, "batch memory_tokens embed_dim"]) -> tuple[KeyValueCache, ...]:
        """Keys and values of the encoder's output for each layer, which `step` reads."""
        return tuple(layer.cross.project(memory, memory) for layer in self.layers)

    def step(
        self,
        x: Float[Tensor, "batch new embed_dim"],
        memory: tuple[KeyValueCache, ...],
        states: tuple[Any, ...] | None = None,
        *,
        memory_mask: Bool[Tensor, "batch memory_tokens"] | None = None,
    ) -> tuple[Float[Tensor, "batch new embed_dim"], tuple[Any, ...]]:
        """The causal output for new tokens, and each layer's new state; `states` are those after the tokens before."""
        new = []
        for layer, keys, state in zip(self.layers, memory, states or (None,) * len(self.layers), strict=True):
            x, state = layer.step(x, keys, state, memory_mask=memory_mask)
            new.append(state)
        return self.norm(x), tuple(new)

    def flops(self, num_tokens: int, memory_tokens: int) -> int:
        grid = Grid(1, num_tokens, 0)
        return sum(layer.flops(grid, memory_tokens) for layer in self.layers)


def _mixers(
    mixer: str | Sequence[str],
    depth: int,
    embed_dim: int,
    num_heads: int,
    options: Mapping[str, Any],
    causal: bool,
) -> Iterator[Mixer]:
    """One mixer a layer, each made when its layer is."""
    for name in one_each(mixer, depth, "layer"):
        own = options_for(name, options)
        yield create_mixer(name, embed_dim, num_heads=num_heads, grid=None, options=own, causal=causal)


def _last_norm(embed_dim: int, norm: NormPlace, wanted: bool | None) -> nn.Module:
    """Pre-norm layers need one, since their output is not normalised; the paper's post-norm layers need none."""
    wanted = norm == "pre" if wanted is None else wanted
    return nn.LayerNorm(embed_dim) if wanted else nn.Identity()


def _init_weights(module: nn.Module) -> None:
    """Glorot's uniform, as in the paper's code; a fused matrix is initialised as the three that it holds."""
    if isinstance(module, HeadMixer) and module.fused_qkv:
        for part in module.qkv.weight.chunk(3):
            nn.init.xavier_uniform_(part)
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
