"""What speaks for a box's class, through the attention of encoder and decoder (Chefer et al. 2021, section 3).

With Ā = mean_h (dA_h ∘ A_h)⁺ of each attention, dA the gradient of the class's score, the paper's matrices are

    encoder          R_ii ← R_ii + Ā R_ii                                    eq. 6; begins as I
    queries          R_qq ← R_qq + Ā R_qq,   R_qi ← R_qi + Ā R_qi            eq. 6 and 7; begin as I and 0
    cross-attention  R_qi ← R_qi + R̄_qqᵀ Ā R̄_ii                             eq. 10
    normalised       R̄ = (R - I) / S + I,   S the sums of the rows of R - I  eq. 8 and 9

(eq. 11 adds nothing: the encoder does not see the queries). A box's map is the row of its query in R_qi after the last
layer. As a sum over the decoder's layers l of row vectors it is u R̄_ii with

    u = Σ_l (e_q Π_{m>l} (I + Ā_m)) R̄_qq,lᵀ Ā_cross,l

so that no matrix of tokens × tokens is needed: S is R_ii·1 - 1, a column carried through the encoder from its first
layer to its last; then u / S is carried from the last to the first. This is exact, with the normalisation. A row whose
sum is zero stays zero, where the authors' code divides by zero. R_qq alone, of the queries, is kept as a matrix.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from regard.errors import NOT_FINITE, RegardError
from regard.explain.carry import carried, carried_column, relevant_matrix, require_matrix
from regard.explain.maps import Traced, traced
from regard.explain.sites import Inputs, Site, sites
from regard.layers import DeformableAttention, Grid

GROUPS = ("encoder", "decoder", "cross")


class BoxRelevance(NamedTuple):
    """What the token that the decoder attends to contribute to a box."""

    tokens: Float[Tensor, "batch tokens"]
    grid: Grid | None
    """How the tokens lie on the image, where they are one map."""
    shapes: tuple[tuple[int, int], ...]
    """(rows, columns) of each map, where they are several."""
    through_encoder: bool
    """Whether the encoder's self-attention is followed, too."""


def box_relevance(
    model: nn.Module, images: Float[Tensor, "batch channels height width"], query: int, label: int
) -> BoxRelevance:
    """The relevance of each token of the image for one query's score of a class, in all layers of a detector.

    It costs one forward pass, one backward pass from the class's logit in the last layer, and three more of the
    encoder's attention. Of DETR, encoder and decoder are followed; of a detector whose encoder mixes several maps by
    convolutions (DN-DETR with dense cross-attention), the decoder alone, with R̄_ii = I.
    RegardError for deformable cross-attention, whose A is no matrix of dO·v, for an encoder's mixer without a mixing
    matrix, and where numbers are not finite.
    """
    known = {group: [site for site in sites(model) if site.name.rpartition(".")[0] == group] for group in GROUPS}
    _require_dense(model, known["cross"])
    chosen = [site for group in GROUPS for site in known[group]]
    trace = traced(model, images, chosen, lambda output: output.logits[-1, :, query, label])
    layers = {group: [one for one in trace.layers if one.site in known[group]] for group in GROUPS}
    last = layers["cross"][-1]
    u = _through_decoder(trace, layers["decoder"], layers["cross"], query)
    followed = bool(layers["encoder"]) and all(one.num_keys == last.num_keys for one in layers["encoder"])
    if followed:
        for one in layers["encoder"]:
            require_matrix(one, "relevance")
        u = _through_encoder(trace, layers["encoder"], u)
    if not bool(u.isfinite().all()):
        raise RegardError(f"explain: {NOT_FINITE}; there is no map to show")
    return BoxRelevance(u, last.grid, last.shapes, followed)


def _require_dense(model: nn.Module, cross: list[Site]) -> None:
    if not cross:
        raise RegardError(f"relevance: a {type(model).__name__} has no cross-attention to an image")
    if any(isinstance(site.module, DeformableAttention) for site in cross):
        raise RegardError(
            "relevance: is defined for dense cross-attention; of deformable attention there are points and rows"
        )


def _through_decoder(trace: Traced, own: list[Inputs], cross: list[Inputs], query: int) -> Float[Tensor, "batch keys"]:
    """u, from the query to the tokens that the decoder attends to."""
    between = [relevant_matrix(inputs, trace.d_mixed[inputs.site.name]) for inputs in own]
    eye = torch.eye(between[0].shape[-1], dtype=between[0].dtype, device=between[0].device)
    r_qq, normalised = eye.expand_as(between[0]), []
    for matrix in between:
        r_qq = r_qq + matrix @ r_qq
        normalised.append(_divided(r_qq - eye, (r_qq - eye).sum(-1, keepdim=True)) + eye)
    p = eye[query].expand(len(r_qq), -1)
    u = torch.zeros(len(r_qq), cross[0].num_keys, dtype=eye.dtype, device=eye.device)
    for matrix, r_bar, inputs in reversed(list(zip(between, normalised, cross, strict=True))):
        asks = (r_bar @ p[..., None])[..., 0]  # p R̄ᵀ
        u = u + carried(inputs, asks, trace.d_mixed[inputs.site.name]).mean(1)
        p = p + (p[:, None] @ matrix)[:, 0]
    return u


def _through_encoder(trace: Traced, layers: list[Inputs], u: Tensor) -> Float[Tensor, "batch keys"]:
    """u R̄_ii = u + (u / S) (R_ii - I). What is beyond the identity is carried by itself: less is rounded off."""
    sums = torch.zeros_like(u)
    for inputs in layers:
        sums = sums + carried_column(inputs, 1 + sums, trace.d_mixed[inputs.site.name])
    start, beyond = _divided(u, sums), torch.zeros_like(u)
    for inputs in reversed(layers):
        beyond = beyond + carried(inputs, start + beyond, trace.d_mixed[inputs.site.name]).mean(1)
    return u + beyond


def _divided(values: Tensor, sums: Tensor) -> Tensor:
    """values / sums, and 0 where the sum is 0."""
    return torch.where(sums > 0, values / sums.where(sums > 0, 1), 0)
