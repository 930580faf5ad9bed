"""Decoding, held to brute force, recomputation and each row alone, on toy models that see the whole past."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from regard.errors import RegardError
from regard.models import decoding
from regard.models.decoding import (
    beam_search,
    greedy,
    penalised,
    reordered,
    sample,
    top_k_filter,
    top_p_filter,
    uncached,
)

EOS = 2
SEEDS = st.integers(0, 2**20)
some = settings(max_examples=25, deadline=None, derandomize=True)


def toy(seed, vocab_size=5, spread=2.0):
    """Logits of the next token: random, and a function of (seed, the whole prefix)."""

    def logits(tokens):
        rows = []
        for prefix in tokens.tolist():
            generator = torch.Generator().manual_seed(hash((seed, *prefix)) % 2**63)
            rows.append(spread * torch.randn(vocab_size, generator=generator, dtype=torch.float64))
        return torch.stack(rows)

    return logits


def prompts(seed, rows=1, tokens=2, vocab_size=5):
    return torch.randint(vocab_size, (rows, tokens), generator=torch.Generator().manual_seed(seed))


def written(result, row=0):
    """A row's tokens, without padding."""
    return result.tokens[row, : result.lengths[row]].tolist()


def log_prob(logits, prompt, new):
    """log P(new | prompt), token by token."""
    seen, total = list(prompt), 0.0
    for token in new:
        total += logits(torch.tensor([seen])).log_softmax(-1)[0, token].item()
        seen.append(token)
    return total


def candidates(vocab_size, eos, longest):
    """All sequences that end with `eos`, or have `longest` tokens."""
    others = [token for token in range(vocab_size) if token != eos]
    for length in range(1, longest + 1):
        for start in itertools.product(others, repeat=length - 1):
            for last in range(vocab_size) if length == longest else [eos] if eos is not None else []:
                yield [*start, last]


SEARCHES = {
    "greedy": lambda step, prompt, **options: greedy(step, prompt, **options),
    "beam": lambda step, prompt, **options: beam_search(step, prompt, beam_size=3, **options),
}


# Greedy


@some
@given(SEEDS)
def test_greedy_takes_the_most_probable_each_time(seed):
    logits, prompt = toy(seed), prompts(seed)
    seen = prompt
    while seen.shape[1] < 2 + 7 and (seen.shape[1] == 2 or seen[0, -1] != EOS):
        seen = torch.cat([seen, logits(seen).argmax(-1, keepdim=True)], dim=1)
    result = greedy(uncached(logits), prompt, eos=EOS, max_new_tokens=7)
    assert written(result) == seen[0, 2:].tolist()
    assert result.tokens.shape == (1, seen.shape[1] - 2)
    assert result.log_probs.item() == pytest.approx(log_prob(logits, prompt[0].tolist(), written(result)), abs=1e-10)


def test_of_equally_probable_tokens_the_first():
    def level(tokens):
        return torch.zeros(len(tokens), 7)

    assert greedy(uncached(level), prompts(3), eos=None, max_new_tokens=3).tokens.tolist() == [[0, 0, 0]]
    one = beam_search(uncached(level), prompts(3), beam_size=1, eos=None, max_new_tokens=3)
    assert one.tokens.tolist() == [[0, 0, 0]]


# What all searches share


@pytest.mark.parametrize("search", SEARCHES.values(), ids=SEARCHES)
@some
@given(SEEDS)
def test_a_batch_gives_what_each_row_alone_gives(search, seed):
    step, prompt = uncached(toy(seed)), prompts(seed, rows=7, tokens=3)
    batch = search(step, prompt, eos=EOS, pad=-7, max_new_tokens=5)
    for row in range(7):
        alone = search(step, prompt[row : row + 1], eos=EOS, pad=-7, max_new_tokens=5)
        assert written(batch, row) == written(alone)
        assert_close(batch.log_probs[row : row + 1], alone.log_probs, rtol=1e-10, atol=1e-10)
    assert batch.tokens.shape[1] == batch.lengths.max()


@pytest.mark.parametrize("search", SEARCHES.values(), ids=SEARCHES)
def test_what_follows_the_end_is_padding(search):
    """Row by row a prompt of another end; the padding may be a token that the model does not know."""

    def countdown(tokens):  # the token before, less one, is all but certain
        return 20.0 * torch.nn.functional.one_hot((tokens[:, -1] - 1).clamp(min=0), 7)

    prompt = torch.tensor([[6, 1], [6, 5], [6, 3]])
    result = search(uncached(countdown), prompt, eos=0, pad=-100, max_new_tokens=11)
    assert result.tokens.tolist() == [[0, -100, -100, -100, -100], [4, 3, 2, 1, 0], [2, 1, 0, -100, -100]]
    assert result.lengths.tolist() == [1, 5, 3]
    cut = search(uncached(countdown), prompt, eos=0, pad=-100, max_new_tokens=3)
    assert cut.tokens.tolist() == [[0, -100, -100], [4, 3, 2], [2, 1, 0]]
    assert cut.lengths.tolist() == [1, 3, 3]
    endless = search(uncached(countdown), prompt, eos=None, pad=-100, max_new_tokens=5)
    assert endless.tokens.tolist() == [[0, 0, 0, 0, 0], [4, 3, 2, 1, 0], [2, 1, 0, 0, 0]]
    assert endless.lengths.tolist() == [5, 5, 5]


@pytest.mark.parametrize("search", SEARCHES.values(), ids=SEARCHES)
def test_it_stops_when_all_rows_are_done(search):
    calls = []

    def logits(tokens):
        calls.append(len(tokens))
        return torch.tensor([0.0, 0.0, 50.0, 0.0, 0.0]).expand(len(tokens), 5)

    search(uncached(logits), prompts(3, rows=3), eos=EOS, max_new_tokens=100)
    assert len(calls) <= 2


@pytest.mark.parametrize("search", SEARCHES.values(), ids=SEARCHES)
def test_a_row_that_is_done_may_give_anything(search):
    def logits(tokens):
        certain = 50.0 * torch.nn.functional.one_hot(torch.where(tokens[:, 0] == 1, EOS, 3), 5)
        return certain.masked_fill(((tokens[:, 0] == 1) & (tokens.shape[1] > 2))[:, None], math.nan)

    result = search(uncached(logits), torch.tensor([[1, 1], [0, 1]]), eos=EOS, max_new_tokens=3)
    assert [written(result, row) for row in range(2)] == [[EOS], [3, 3, 3]]


def test_nothing_keeps_gradients():
    weight = torch.zeros(5, requires_grad=True)
    step = uncached(lambda tokens: weight.expand(len(tokens), 5))
    for search in (*SEARCHES.values(), sample):
        assert not search(step, prompts(3), eos=None, max_new_tokens=2).log_probs.requires_grad


# Sampling


def test_draws_follow_the_probabilities():
    """30,000 draws: the frequency of each token within four standard deviations of the multinomial."""
    rows, logits = 30_000, torch.tensor([0.5, -1.0, -math.inf, 1.5, 0.0])
    for temperature in (1.0, 0.7):
        step = uncached(lambda tokens: logits.expand(len(tokens), 5))
        generator = torch.Generator().manual_seed(3)
        result = sample(
            step, prompts(3, rows=rows), eos=None, max_new_tokens=1, temperature=temperature, generator=generator
        )
        expected = (logits / temperature).softmax(-1)
        found = result.tokens[:, 0].bincount(minlength=5) / rows
        assert found[2] == 0
        assert ((found - expected).abs() <= 4 * (expected * (1 - expected) / rows).sqrt()).all()
        # The log-probabilities are the model's own, at any temperature.
        assert_close(result.log_probs, logits.log_softmax(-1)[result.tokens[:, 0]], rtol=1e-5, atol=1e-6)


@some
@given(SEEDS)
def test_draws_are_a_function_of_the_generator(seed):
    step, prompt = uncached(toy(seed, vocab_size=17)), prompts(seed, rows=3)

    def drawn(seed, noise):
        torch.manual_seed(noise)
        generator = torch.Generator().manual_seed(seed)
        return sample(step, prompt, eos=None, max_new_tokens=5, temperature=2.0, generator=generator).tokens

    assert drawn(seed, 3).equal(drawn(seed, 5))
    assert any(not drawn(seed, 3).equal(drawn(seed + other, 3)) for other in range(1, 5))


def test_when_a_row_ends_does_not_change_the_draws_of_others():
    def logits(tokens):  # a row that begins with 1 ends at once, another never
        return torch.where(tokens[:, :1] == 1, 90.0, -90.0) * (torch.arange(5) == EOS)

    def drawn(first):
        prompt, generator = torch.tensor([[first], [0]]), torch.Generator().manual_seed(3)
        return written(sample(uncached(logits), prompt, eos=EOS, max_new_tokens=11, generator=generator), 1)

    assert len(drawn(0)) == 11
    assert drawn(0) == drawn(1)


@some
@given(SEEDS)
def test_what_leaves_one_token_is_greedy(seed):
    step, prompt = uncached(toy(seed)), prompts(seed, rows=3)
    expected = greedy(step, prompt, eos=EOS, max_new_tokens=5)
    for options in ({"top_k": 1}, {"top_p": 1e-6}, {"temperature": 1e-30}):
        result = sample(step, prompt, eos=EOS, max_new_tokens=5, **options)
        assert result.tokens.equal(expected.tokens)
        assert_close(result.log_probs, expected.log_probs, rtol=1e-10, atol=1e-10)


def test_filters_are_applied_to_what_the_temperature_leaves():
    """At temperature 1 the nucleus of 0.6 is one token of three, at 10 it is two: then the second is drawn as well."""
    step = uncached(lambda tokens: torch.tensor([0.7, 0.2, 0.1]).log().expand(len(tokens), 3))
    for temperature, tokens in ((1.0, {0}), (10.0, {0, 1})):
        result = sample(step, prompts(3, rows=99), eos=None, max_new_tokens=1, temperature=temperature, top_p=0.6)
        assert set(result.tokens.flatten().tolist()) == tokens


@some
@given(SEEDS, st.integers(1, 13))
def test_top_k_keeps_the_k_largest(seed, k):
    logits = torch.randn(3, 11, generator=torch.Generator().manual_seed(seed))
    kept = top_k_filter(logits, k) > -math.inf
    assert (kept.sum(-1) == min(k, 11)).all()
    assert top_k_filter(logits, k)[kept].equal(logits[kept])
    for row, chosen in zip(logits, kept, strict=True):
        assert k >= 11 or row[chosen].min() > row[~chosen].max()


def test_top_k_of_equal_logits_keeps_the_first():
    assert (top_k_filter(torch.zeros(7), 3) > -math.inf).tolist() == [True] * 3 + [False] * 4


@some
@given(SEEDS, st.floats(0.001, 1.0))
def test_top_p_keeps_the_nucleus(seed, p):
    """Enough mass, and too little without the least probable of it."""
    logits = 3 * torch.randn(5, 11, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    filtered = top_p_filter(logits, p)
    for row, chosen, probs in zip(logits, filtered > -math.inf, logits.softmax(-1), strict=True):
        assert chosen.any()
        assert probs[chosen].sum() >= p - 1e-12
        assert probs[chosen].sum() - probs[chosen].min() < p + 1e-12
        assert chosen.all() or row[chosen].min() > row[~chosen].max()
    assert filtered[filtered > -math.inf].equal(logits[filtered > -math.inf])


def test_top_p_by_hand():
    logits = torch.tensor([0.125, 0.5, 0.25, 0.125], dtype=torch.float64).log()
    for p, kept in ((0.4, [1]), (0.5, [1]), (0.51, [1, 2]), (0.75, [1, 2]), (0.8, [0, 1, 2]), (1.0, [0, 1, 2, 3])):
        assert (top_p_filter(logits, p) > -math.inf).nonzero().flatten().tolist() == kept, p


# Beams


@pytest.mark.parametrize("eos", [EOS, None])
@pytest.mark.parametrize("length_penalty", [0.0, 0.6, 3.0])
@some
@given(SEEDS)
def test_a_beam_of_one_is_greedy(length_penalty, eos, seed):
    step, prompt = uncached(toy(seed)), prompts(seed, rows=5)
    one = beam_search(step, prompt, beam_size=1, length_penalty=length_penalty, eos=eos, max_new_tokens=7)
    expected = greedy(step, prompt, eos=eos, max_new_tokens=7)
    assert one.tokens.equal(expected.tokens)
    assert one.lengths.equal(expected.lengths)
    assert_close(one.log_probs, expected.log_probs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("length_penalty", "eos"), [(0.0, EOS), (0.6, EOS), (2.0, EOS), (0.0, None)], ids=["off", "0.6", "2", "no end"]
)
@pytest.mark.parametrize("seed", range(5))
def test_a_beam_of_all_finds_what_enumeration_finds(seed, length_penalty, eos):
    """V = 5, L = 4, a beam of V^(L - 1)."""
    logits, prompt = toy(seed), prompts(seed)

    def score(new):
        total = torch.tensor(log_prob(logits, prompt[0].tolist(), new), dtype=torch.float64)
        return penalised(total, len(new), length_penalty).item()

    every = list(candidates(5, eos, longest=4))
    assert len(every) == (1 + 4 + 16 + 64 * 5 if eos else 5**4)
    best = max(every, key=score)
    found = beam_search(
        uncached(logits), prompt, beam_size=5**3, length_penalty=length_penalty, eos=eos, max_new_tokens=4
    )
    assert written(found) == best
    assert penalised(found.log_probs, found.lengths, length_penalty).item() == pytest.approx(score(best), abs=1e-10)


def test_a_wider_beam_finds_what_greedy_misses():
    """Token 0 is likelier first, but what follows it is not likely at all."""
    table = {(3,): [0.6, 0.4, 0, 0], (3, 0): [0.25] * 4, (3, 1): [0.05, 0.9, 0.05, 0]}

    def logits(tokens):
        return torch.tensor([table[tuple(row)] for row in tokens.tolist()]).log()

    prompt = torch.tensor([[3]])
    assert greedy(uncached(logits), prompt, eos=None, max_new_tokens=2).tokens.tolist() == [[0, 0]]
    result = beam_search(uncached(logits), prompt, beam_size=2, eos=None, max_new_tokens=2)
    assert result.tokens.tolist() == [[1, 1]]
    assert result.log_probs.item() == pytest.approx(math.log(0.4 * 0.9), abs=1e-6)


def test_the_penalty_decides_between_short_and_long():
    """EOS with 0.5, or 1, 1, 1 and EOS with 0.5 · 0.9³: the short one is likelier, the long one wins by its length."""

    def logits(tokens):
        first = tokens.shape[1] == 1
        last = tokens.shape[1] == 4
        probs = [0.001, 0.499, 0.5] if first else [0.05, 0.05, 0.9] if last else [0.05, 0.9, 0.05]
        return torch.tensor(probs).log().expand(len(tokens), 3)

    for length_penalty, expected in ((0.0, [EOS]), (2.0, [1, 1, 1, EOS])):
        result = beam_search(
            uncached(logits),
            torch.tensor([[0]]),
            beam_size=2,
            length_penalty=length_penalty,
            eos=EOS,
            max_new_tokens=4,
        )
        assert written(result) == expected


def test_gnmt_penalty_by_hand():
    """(5 + 7) / 6 = 2, to the power 3."""
    assert penalised(torch.tensor([-16.0]), 7, 3.0).tolist() == [-2.0]
    assert penalised(torch.tensor([-16.0, -16.0]), torch.tensor([1, 7]), 1.0).tolist() == [-16.0, -8.0]
    assert penalised(torch.tensor([-16.0]), 7, 0.0).tolist() == [-16.0]


@some
@given(SEEDS, st.integers(1, 13))
def test_states_follow_their_hypotheses(seed, beam_size):
    """A state in a nest, with numbers in it: the sum over the past, which the logits are hashed from."""

    def of(sums):
        return toy(seed)(sums[:, None])

    def step(tokens, state):
        past, count = (0, 0) if state is None else (state["sums"][0], state["count"])
        weights = torch.arange(count + 1, count + 1 + tokens.shape[1])
        sums = past + (tokens * weights).sum(1)
        return of(sums), {"sums": (sums, None), "count": count + tokens.shape[1]}

    def anew(tokens):
        return of((tokens * torch.arange(1, 1 + tokens.shape[1])).sum(1))

    prompt = prompts(seed, rows=3)
    cached, recomputed = (
        beam_search(s, prompt, beam_size=beam_size, eos=EOS, max_new_tokens=5) for s in (step, uncached(anew))
    )
    assert cached.tokens.equal(recomputed.tokens)
    assert cached.log_probs.equal(recomputed.log_probs)


def test_reordered_selects_rows_of_every_tensor():
    state = ({"a": torch.tensor([3, 5, 7])}, [torch.eye(3), None], 11)
    changed = reordered(state, torch.tensor([2, 2, 0, 1]))
    assert changed[0]["a"].tolist() == [7, 7, 3, 5]
    assert changed[1][0].equal(torch.eye(3)[[2, 2, 0, 1]])
    assert changed[1][1] is None
    assert changed[2] == 11
    generated = reordered(decoding.Generated(*torch.arange(3)[None].expand(3, 3)), torch.tensor([1]))
    assert isinstance(generated, decoding.Generated)


# Errors


@pytest.mark.parametrize("search", [greedy, sample, beam_search])
def test_errors_of_every_search(search):
    step = uncached(toy(3))
    with pytest.raises(RegardError, match=r"^decoding: max_new_tokens must be at least 1, got 0$"):
        search(step, prompts(3), eos=EOS, max_new_tokens=0)
    for shape in ((3, 0), (0, 3)):
        with pytest.raises(RegardError, match=r"^prompt: empty; there must be at least one token, got shape "):
            search(step, torch.zeros(shape, dtype=torch.int64), eos=EOS, max_new_tokens=3)
    for eos in (5, -1):
        with pytest.raises(RegardError, match=rf"^decoding: eos {eos} is outside the vocabulary, 0 to 4$"):
            search(step, prompts(3), eos=eos, max_new_tokens=3)


@pytest.mark.parametrize("search", [greedy, sample, beam_search])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_logits_that_are_no_distribution(search, value):
    def logits(tokens):
        spoilt = (torch.arange(len(tokens)) == len(tokens) - 1) & (tokens.shape[1] == 3)
        return torch.zeros(len(tokens), 5).masked_fill(spoilt[:, None], value)

    message = r"^decoding: row 2, new token 2: the logits hold NaN or inf, or are all -inf$"
    with pytest.raises(RegardError, match=message):
        search(uncached(logits), prompts(3, rows=3), eos=None, max_new_tokens=3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"temperature": 0.0},
            r"^sample: temperature must be above 0 and finite, got 0\.0; for the limit 0 use greedy$",
        ),
        ({"temperature": -1.0}, r"^sample: temperature must be above 0"),
        ({"temperature": math.nan}, r"^sample: temperature must be above 0"),
        ({"temperature": math.inf}, r"^sample: temperature must be above 0"),
        ({"top_k": 0}, r"^sample: top_k must be at least 1, got 0$"),
        ({"top_p": 0.0}, r"^sample: top_p must be above 0 and at most 1, got 0\.0$"),
        ({"top_p": 1.1}, r"^sample: top_p must be above 0 and at most 1, got 1\.1$"),
        ({"top_p": math.nan}, r"^sample: top_p must be above 0 and at most 1, got nan$"),
    ],
)
def test_errors_of_sampling(options, message):
    with pytest.raises(RegardError, match=message):
        sample(uncached(toy(3)), prompts(3), eos=EOS, max_new_tokens=3, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beam_size": 0}, r"^beam_search: beam_size must be at least 1, got 0$"),
        ({"length_penalty": -0.1}, r"^beam_search: length_penalty must be at least 0 and finite, got -0\.1$"),
        ({"length_penalty": math.nan}, r"^beam_search: length_penalty must be at least 0 and finite, got nan$"),
    ],
)
def test_errors_of_beams(options, message):
    with pytest.raises(RegardError, match=message):
        beam_search(uncached(toy(3)), prompts(3), eos=EOS, max_new_tokens=3, **options)
