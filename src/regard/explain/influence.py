"""How much each output token of a mixer depends on each input token."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from regard.errors import RegardError
from regard.layers import Grid
from regard.mixers import Mixer


def influence(
    mixer: Mixer,
    x: Float[Tensor, "batch tokens embed_dim"],
    *,
    grid: Grid | None = None,
    mask: Bool[Tensor, "batch tokens"] | None = None,
    positions: Float[Tensor, "batch tokens embed_dim"] | None = None,
    tokens: list[int] | None = None,
    num_probes: int | None = None,
    seed: int = 0,
) -> Float[Tensor, "batch outputs tokens"]:
    """‖∂y_i/∂x_j‖, the Frobenius norm of each block of the mixer's Jacobian at x. Every mixer has it.

    `tokens` are the outputs i (all unless given). By default the norm is exact, at the cost of embed_dim backward
    passes for each output token. With `num_probes` = S it is estimated from S random vectors r of signs, drawn from
    `seed`: E‖rᵀ J‖² = ‖J‖², so the square is unbiased. The relative standard error is at most `influence_error(S)`.
    RegardError for a token that does not exist, for no token, and for num_probes below 1.
    """
    batch, num_tokens, embed_dim = x.shape
    outputs = list(range(num_tokens)) if tokens is None else tokens
    if not outputs:
        raise RegardError("influence: `tokens` names no token")
    for token in outputs:
        if not -num_tokens <= token < num_tokens:
            raise RegardError(f"influence: token {token} is not one of {num_tokens}")
    if num_probes is None:
        probes = torch.eye(embed_dim, dtype=x.dtype, device=x.device).expand(batch, -1, -1).flatten(0, 1)
        count, scale = embed_dim, 1.0
    else:
        if num_probes < 1:
            raise RegardError(f"influence: num_probes must be at least 1, got {num_probes}")
        count, scale = num_probes, num_probes**-0.5
        generator = torch.Generator().manual_seed(seed)
        signs = torch.randint(0, 2, (batch * count, embed_dim), generator=generator) * 2 - 1
        probes = signs.to(x)

    # Each probe has its own copy of the image in one batch, so one backward pass serves all probes of an output token.
    def copies(t: Tensor | None) -> Tensor | None:
        return None if t is None else t.detach().repeat_interleave(count, 0)

    copied = x.detach().repeat_interleave(count, 0).requires_grad_()
    with torch.enable_grad():
        y = mixer(copied, grid=grid, mask=copies(mask), positions=copies(positions))
        rows = []
        for token in outputs:
            (gradient,) = torch.autograd.grad(y[:, token], copied, probes.to(y.dtype), retain_graph=True)
            squared = gradient.square().sum(-1).unflatten(0, (batch, count)).sum(1)
            rows.append(scale * squared.sqrt())
    return torch.stack(rows, dim=1)


def influence_error(num_probes: int) -> float:
    """The largest relative standard error of an estimate from this many probes, to first order: 1 / √(2 · num_probes).

    For signs r, Var(rᵀ A r) ≤ 2‖A‖² ≤ 2 (tr A)² with A = J Jᵀ, so the square has a relative error of at most
    √(2 / num_probes), and the norm half of that.
    """
    return float((2 * num_probes) ** -0.5)
