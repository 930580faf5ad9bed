"""Search for sequences with any model that decodes token by token: greedy, sampling, and beam search.

Call `model.eval()` first: dropout is not turned off here. No gradients are computed.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils._pytree import tree_map

from regard.errors import RegardError


@runtime_checkable
class Step(Protocol):
    """What decoding calls: it gives logits of the token after the last of `tokens`, and the state after `tokens`.

    A state holds all that a model remembers of the tokens before: None at first, or what the model starts with; any
    nest of tuples, lists and dicts. Every tensor in it has the rows first, so that `reordered` can choose rows.
    """

    def __call__(self, tokens: Int[Tensor, "rows new"], state: Any) -> tuple[Float[Tensor, "rows vocab_size"], Any]: ...


class Generated(NamedTuple):
    """Sequences without their prompt. Padding follows `eos`."""

    tokens: Int[Tensor, "rows new"]
    lengths: Int[Tensor, " rows"]
    """Number of tokens, `eos` included."""
    log_probs: Float[Tensor, " rows"]
    """Sums of the log-probabilities that the model gives the tokens, `eos` included."""


def uncached(logits: Callable[[Tensor], Tensor]) -> Step:
    """The definition that cached decoding must equal: each step computes `logits` of the next token from all tokens."""

    def step(tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        seen = tokens if state is None else torch.cat([state, tokens], dim=1)
        return logits(seen), seen

    return step


def reordered(state: Any, rows: Int[Tensor, " chosen"]) -> Any:
    """The state of the chosen rows, in their order; one may come several times. Only tensors have rows."""
    return tree_map(lambda leaf: leaf.index_select(0, rows) if isinstance(leaf, Tensor) else leaf, state)


def greedy(
    step: Step,
    prompt: Int[Tensor, "rows tokens"],
    state: Any = None,
    *,
    eos: int | None,
    pad: int = 0,
    max_new_tokens: int,
) -> Generated:
    """The most probable token at each step, until every row has ended or has `max_new_tokens`.

    With `eos` None no row ends early. RegardError for an empty prompt, and for logits without a softmax.
    """
    return _extend(step, prompt, state, lambda logits: _top(logits, 1)[1][:, 0], eos, pad, max_new_tokens)


def sample(
    step: Step,
    prompt: Int[Tensor, "rows tokens"],
    state: Any = None,
    *,
    eos: int | None,
    pad: int = 0,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
) -> Generated:
    """Tokens drawn from softmax(logits / temperature), after `top_k_filter` and then `top_p_filter` where given.

    Each step draws one number a row from the generator, also for rows that have ended: so the draws depend on generator
    and logits alone, not on the device or on the other rows. The rest is as in `greedy`.
    """
    if not 0 < temperature < math.inf:
        raise RegardError(
            f"sample: temperature must be above 0 and finite, got {temperature}; for the limit 0 use greedy"
        )

    def pick(logits: Tensor) -> Tensor:
        logits = (logits - logits.amax(-1, keepdim=True)) / temperature  # first, so that no temperature overflows
        logits = logits if top_k is None else top_k_filter(logits, top_k)
        logits = logits if top_p is None else top_p_filter(logits, top_p)
        mass = logits.cpu().double().softmax(-1).cumsum(-1)
        device = "cpu" if generator is None else generator.device
        drawn = torch.rand(len(mass), 1, dtype=torch.float64, generator=generator, device=device).cpu()
        # Divided by its last value the mass ends at exactly one, which no draw reaches: so the token has mass.
        return torch.searchsorted(mass / mass[:, -1:], drawn, right=True)[:, 0].to(logits.device)

    return _extend(step, prompt, state, pick, eos, pad, max_new_tokens)


def top_k_filter(logits: Float[Tensor, "*rows vocab_size"], k: int) -> Float[Tensor, "*rows vocab_size"]:
    """The logits with all but the `k` largest at -inf; among equal ones the first stay. RegardError for k < 1."""
    if k < 1:
        raise RegardError(f"sample: top_k must be at least 1, got {k}")
    order = logits.sort(dim=-1, descending=True, stable=True).indices
    kept = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, order[..., :k], True)
    return logits.masked_fill(~kept, -math.inf)


def top_p_filter(logits: Float[Tensor, "*rows vocab_size"], p: float) -> Float[Tensor, "*rows vocab_size"]:
    """The logits of the nucleus, all others at -inf (Holtzman et al. 2020, section 3.1).

    The nucleus is the smallest set of the most probable tokens whose probabilities sum to at least `p`; it is never
    empty. RegardError unless 0 < p <= 1.
    """
    if not 0 < p <= 1:
        raise RegardError(f"sample: top_p must be above 0 and at most 1, got {p}")
    if p == 1:  # rounding could reach the sum of 1 before the last token
        return logits
    ranked, order = logits.sort(dim=-1, descending=True, stable=True)
    mass = ranked.to(torch.promote_types(logits.dtype, torch.float32)).softmax(-1).cumsum(-1)
    kept_ranks = F.pad(mass[..., :-1], (1, 0)) < p
    kept = torch.zeros_like(kept_ranks).scatter(-1, order, kept_ranks)
    return logits.masked_fill(~kept, -math.inf)


def penalised(
    log_probs: Float[Tensor, "*rows"], length: int | Int[Tensor, "*rows"], length_penalty: float
) -> Float[Tensor, "*rows"]:
    """log P / ((5 + length) / 6)^length_penalty, by which a beam compares hypotheses (Wu et al. 2016, eq. 14)."""
    length = torch.as_tensor(length, dtype=log_probs.dtype, device=log_probs.device)
    return log_probs / ((5 + length) / 6) ** length_penalty


@torch.no_grad()
def beam_search(
    step: Step,
    prompt: Int[Tensor, "rows tokens"],
    state: Any = None,
    *,
    beam_size: int = 4,
    length_penalty: float = 0.6,
    eos: int | None,
    pad: int = 0,
    max_new_tokens: int,
) -> Generated:
    """The hypothesis of each row with the best `penalised` score; the defaults are those of Vaswani et al. 2017, 6.1.

    Each step keeps the `beam_size` most probable continuations of a row's live hypotheses. A hypothesis that ends, or
    has `max_new_tokens`, leaves the beam, and the one with the best score is the row's result. A row is done when no
    live hypothesis can still reach that score. With a beam of one it is `greedy`, for any penalty.
    RegardError for a beam below 1, a penalty below 0 or infinite, an empty prompt, and logits without a softmax.
    """
    _check_sizes(prompt, max_new_tokens)
    if beam_size < 1:
        raise RegardError(f"beam_search: beam_size must be at least 1, got {beam_size}")
    if not 0 <= length_penalty < math.inf:
        raise RegardError(f"beam_search: length_penalty must be at least 0 and finite, got {length_penalty}")
    rows = torch.arange(len(prompt), device=prompt.device)
    tokens, log_probs = prompt.new_empty(len(prompt), 1, 0), torch.zeros(len(prompt), 1, device=prompt.device)
    best_score = torch.full_like(log_probs[:, 0], -math.inf)
    best = Generated(prompt.new_full((len(prompt), max_new_tokens), pad), torch.zeros_like(rows), best_score)
    fed = prompt
    for length in range(1, max_new_tokens + 1):
        logits, state = step(fed, state)
        width = log_probs.shape[1]
        steps = _log_softmax(logits, log_probs > -math.inf, length, eos)
        log_probs, parent, token = _continuations(log_probs, steps, beam_size)
        tokens = torch.cat([tokens[rows[:, None], parent], token[:, :, None]], dim=2)

        finished = _ends(token, eos) if length < max_new_tokens else torch.ones_like(token, dtype=torch.bool)
        score, at = penalised(log_probs, length, length_penalty).masked_fill(~finished, -math.inf).max(1)
        padded = F.pad(tokens[rows, at], (0, max_new_tokens - length), value=pad)
        found = Generated(padded, torch.full_like(rows, length), log_probs[rows, at])
        best = _where(score > best_score, found, best)
        best_score = torch.maximum(score, best_score.to(score.dtype))

        # Probabilities only fall, and the longest hypothesis has the largest divisor: this bounds every live score.
        log_probs = log_probs.masked_fill(finished, -math.inf)
        bound = penalised(log_probs.amax(1), max_new_tokens, length_penalty)
        log_probs = log_probs.masked_fill((best_score >= bound)[:, None], -math.inf)
        if not (log_probs > -math.inf).any():
            break
        state = reordered(state, (rows[:, None] * width + parent).flatten())
        fed = token.flatten()[:, None]
    return best._replace(tokens=best.tokens[:, : int(best.lengths.max())])


def _continuations(log_probs: Tensor, steps: Tensor, beam_size: int) -> tuple[Tensor, Tensor, Tensor]:
    """The most probable hypotheses of a row with one more token: their log-probability, parent and token.

    log_probs (rows, width), steps (rows, width, vocab_size) -> three of (rows, up to beam_size). First the best tokens
    of each hypothesis are chosen: once its own log-probability is added, rounding could make two of them equal.
    """
    each = min(beam_size, steps.shape[2])
    gains, token = _top(steps, each)
    pool = (log_probs[:, :, None] + gains).flatten(1)
    log_probs, place = _top(pool, min(beam_size, pool.shape[1]))
    return log_probs, place // each, token.flatten(1).gather(1, place)


@torch.no_grad()
def _extend(
    step: Step,
    prompt: Tensor,
    state: Any,
    pick: Callable[[Tensor], Tensor],
    eos: int | None,
    pad: int,
    max_new_tokens: int,
) -> Generated:
    """One sequence a row: `pick` chooses its next token from log-probabilities (rows, vocab_size)."""
    _check_sizes(prompt, max_new_tokens)
    live = torch.ones(len(prompt), dtype=torch.bool, device=prompt.device)
    lengths, total = torch.zeros_like(live, dtype=torch.int64), torch.zeros(len(prompt), device=prompt.device)
    tokens, fed = [], prompt
    for number in range(1, max_new_tokens + 1):
        logits, state = step(fed, state)
        log_probs = _log_softmax(logits, live, number, eos)
        token = pick(log_probs)
        total = total + log_probs.gather(1, token[:, None])[:, 0].masked_fill(~live, 0)
        lengths = lengths + live
        tokens.append(token.masked_fill(~live, pad))
        # A row that has ended is fed the token that it picks: padding need not be a token of the vocabulary.
        live = live & ~_ends(token, eos)
        if not live.any():
            break
        fed = token[:, None]
    return Generated(torch.stack(tokens, dim=1), lengths, total)


def _log_softmax(logits: Tensor, live: Bool[Tensor, "*hypotheses"], number: int, eos: int | None) -> Tensor:
    """(*hypotheses, vocab_size) in float32 at least. The values of hypotheses that are not live have no meaning."""
    vocab_size = logits.shape[-1]
    if eos is not None and not 0 <= eos < vocab_size:
        raise RegardError(f"decoding: eos {eos} is outside the vocabulary, 0 to {vocab_size - 1}")
    logits = logits.reshape(*live.shape, vocab_size).masked_fill(~live[..., None], 0)
    log_probs = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)
    spoilt = log_probs.isnan().any(-1).nonzero()
    if len(spoilt):
        row = int(spoilt[0, 0])
        raise RegardError(f"decoding: row {row}, new token {number}: the logits hold NaN or inf, or are all -inf")
    return log_probs


def _top(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest along the last axis, and their indices; k = 1 takes the first of equal ones."""
    return x.max(-1, keepdim=True) if k == 1 else x.topk(k)


def _ends(token: Tensor, eos: int | None) -> Tensor:
    return torch.zeros_like(token, dtype=torch.bool) if eos is None else token == eos


def _where(wins: Tensor, new: Generated, old: Generated) -> Generated:
    return Generated(
        tokens=torch.where(wins[:, None], new.tokens, old.tokens),
        lengths=torch.where(wins, new.lengths, old.lengths),
        log_probs=torch.where(wins, new.log_probs, old.log_probs),
    )


def _check_sizes(prompt: Tensor, max_new_tokens: int) -> None:
    if not prompt.numel():
        raise RegardError(f"prompt: empty; there must be at least one token, got shape {tuple(prompt.shape)}")
    if max_new_tokens < 1:
        raise RegardError(f"decoding: max_new_tokens must be at least 1, got {max_new_tokens}")
