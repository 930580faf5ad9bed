"""The recurrent baseline: padding, decoding step by step, its attention by hand, and that it learns."""

import jaxtyping
import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch.testing import assert_close

from regard.errors import RegardError
from regard.models.decoding import beam_search, greedy, uncached
from regard.models.recurrent import RecurrentConfig, RecurrentSeq2Seq

SRC_VOCAB, TGT_VOCAB, SOURCE, TARGET = 17, 13, 7, 5


def tiny(**changes):
    """In float64, without dropout unless it is turned on by `train`."""
    sizes = {"embed_dim": 22, "depth": 3, "dropout": 0.5} | changes
    return RecurrentSeq2Seq(RecurrentConfig(SRC_VOCAB, TGT_VOCAB, **sizes)).double().eval()


def pair(batch=3, source=SOURCE, target=TARGET):
    return torch.randint(SRC_VOCAB, (batch, source)), torch.randint(TGT_VOCAB, (batch, target))


def padding(*lengths, tokens=SOURCE):
    return torch.arange(tokens) < torch.tensor(lengths)[:, None]


# Shapes and the equations


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("mask", [None, padding(7, 3, 1)], ids=["no mask", "mask"])
def test_shapes_and_gradients(depth, mask):
    model, (source, target) = tiny(depth=depth), pair()
    logits = model(source, target, source_mask=mask)
    assert logits.shape == (3, TARGET, TGT_VOCAB)
    logits.square().sum().backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad.isfinite().all(), key
        assert parameter.grad.ne(0).any(), key


def test_logits_by_hand():
    """Luong et al. 2015, eq. 5 to 8, one target token at a time."""
    model, (source, target) = tiny(), pair(batch=1)
    memory, (h, c) = model.encoder(model.src_embed(source))
    ends = tuple(end.view(3, 2, 11).flatten(1)[:, None] for end in (h, c))  # both directions of each layer
    states, _ = model.decoder(model.tgt_embed(target), ends)
    w_a, w_c, logits = model.score.weight.T, model.combine.weight, model(source, target)
    attended = model.cross_attention(source, target)
    assert attended.shape == (1, 1, 1, TARGET, SOURCE)
    for t in range(TARGET):
        a = torch.stack([states[0, t] @ w_a @ memory[0, s] for s in range(SOURCE)]).softmax(0)
        assert_close(attended[0, 0, 0, t], a, rtol=1e-10, atol=1e-12)
        context = sum(a[s] * memory[0, s] for s in range(SOURCE))
        attentional = torch.tanh(w_c @ torch.cat([context, states[0, t]]))
        assert_close(logits[0, t], model.tgt_embed.weight @ attentional, rtol=1e-10, atol=1e-12)


def test_the_decoder_begins_where_both_directions_end():
    """The reading direction ends at the last token, the other at the first: seen in the last layer's outputs."""
    model, (source, _) = tiny(), pair()
    state = model.start(source, source_mask=padding(7, 3, 1))
    assert state.h.shape == state.c.shape == (3, 3, 22)
    for row, length in enumerate((7, 3, 1)):
        assert_close(state.h[row, -1, :11], state.memory[row, length - 1, :11], rtol=0, atol=0)
        assert_close(state.h[row, -1, 11:], state.memory[row, 0, 11:], rtol=0, atol=0)


# Padding and the future


def test_a_padded_batch_gives_what_each_sequence_alone_gives():
    model, (source, target), lengths = tiny(), pair(), (7, 3, 1)
    mask = padding(*lengths)
    logits, attended = (f(source, target, source_mask=mask) for f in (model, model.cross_attention))
    assert attended.masked_select(~mask[:, None, None, None]).eq(0).all()
    for row, length in enumerate(lengths):
        alone = source[row : row + 1, :length], target[row : row + 1]
        assert_close(logits[row : row + 1], model(*alone), rtol=1e-10, atol=1e-12)
        expected = model.cross_attention(*alone)
        assert_close(attended[row : row + 1, ..., :length], expected, rtol=1e-10, atol=1e-12)


def test_what_the_padding_holds_does_not_matter():
    model, (source, target) = tiny(), pair()
    mask = padding(7, 3, 1)
    other = torch.where(mask, source, (source + 1) % SRC_VOCAB)
    assert model(other, target, source_mask=mask).equal(model(source, target, source_mask=mask))
    assert not model(other, target).isclose(model(source, target)).all()


def test_the_past_does_not_change_when_later_tokens_do():
    """To the bit; and the token itself does matter."""
    model, (source, target) = tiny(), pair()
    for t in range(1, TARGET):
        other = target.clone()
        other[:, t:] = (target[:, t:] + 1) % TGT_VOCAB
        before, after = model(source, target), model(source, other)
        assert after[:, :t].equal(before[:, :t])
        assert not after[:, t].isclose(before[:, t]).all()


# Decoding


@pytest.mark.parametrize("sizes", [(1, 1, 1, 1, 1), (3, 1, 1), (5,)], ids=["one by one", "prompt", "all at once"])
def test_steps_give_what_forward_gives(sizes):
    model, (source, target) = tiny(), pair()
    mask = padding(7, 3, 1)
    expected, state, end = model(source, target, source_mask=mask), model.start(source, source_mask=mask), 0
    for size in sizes:
        logits, state = model.step(target[:, end : end + size], state)
        end += size
        assert_close(logits, expected[:, end - 1], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("search", [greedy, beam_search])
def test_cached_and_uncached_decoding_give_the_same_tokens(search):
    model, (source, _) = tiny(), pair()
    mask = padding(7, 3, 1)
    # What it writes without training hardly depends on what it reads: larger weights make the choices differ.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))

    def anew(tokens):  # the sources of a beam are those of its rows, each as often as there are hypotheses
        times = len(tokens) // 3
        rows = torch.arange(3).repeat_interleave(times)
        return model(source[rows], tokens, source_mask=mask[rows])[:, -1]

    prompt = torch.ones(3, 1, dtype=torch.int64)
    cached = search(model.step, prompt, model.start(source, source_mask=mask), eos=2, max_new_tokens=11)
    again = search(uncached(anew), prompt, eos=2, max_new_tokens=11)
    assert cached.tokens.equal(again.tokens)
    assert_close(cached.log_probs, again.log_probs, rtol=1e-8, atol=1e-10)
    assert len(cached.tokens.unique()) > 4
    assert not cached.tokens[0].equal(cached.tokens[1])


# Dropout, precision, learning


def test_dropout_is_for_training():
    model, (source, target) = tiny(), pair()
    assert model.eval()(source, target).equal(model(source, target))
    assert not model.train()(source, target).isclose(model(source, target)).all()
    for calm in (tiny(dropout=0.0), tiny(dropout=0.0, depth=1)):
        assert calm.train()(source, target).equal(calm.eval()(source, target))


def test_under_autocast_it_is_close():
    model, (source, target) = tiny().float(), pair()
    mask = padding(7, 3, 1)
    expected = model(source, target, source_mask=mask)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(source, target, source_mask=mask)
        state = model.start(source, source_mask=mask)
        last, _ = model.step(target, state)
    assert_close(logits.float(), expected, rtol=0.05, atol=0.05)
    assert_close(last.float(), expected[:, -1], rtol=0.05, atol=0.05)
    logits.float().sum().backward()


def test_it_learns_to_copy():
    """Four letters, written in the order in which they were read; new ones come out right as well."""
    model = RecurrentSeq2Seq(RecurrentConfig(SRC_VOCAB, SRC_VOCAB, embed_dim=32, depth=1, dropout=0.0))
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(150):
        source = torch.randint(1, SRC_VOCAB, (64, 4))
        target = torch.nn.functional.pad(source[:, :-1], (1, 0))
        loss = torch.nn.functional.cross_entropy(model(source, target).flatten(0, 1), source.flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    source = torch.randint(1, SRC_VOCAB, (199, 4))
    prompt = torch.zeros(199, 1, dtype=torch.int64)
    result = greedy(model.eval().step, prompt, model.start(source), eos=None, max_new_tokens=4)
    assert (result.tokens == source).all(1).float().mean() > 0.9


# Configuration, operations, errors


def test_sizes_of_the_configuration():
    model = tiny(embed_dim=22, depth=3)
    assert model.encoder.num_layers == model.decoder.num_layers == 3
    assert (model.encoder.hidden_size, model.decoder.hidden_size) == (11, 22)


@pytest.mark.parametrize("change", [{"depth": 0}, {"embed_dim": 0}, {"src_vocab": 0}, {"dropout": 1.0}])
def test_values_that_the_configuration_does_not_take(change):
    values = {"src_vocab": 17, "tgt_vocab": 13, "embed_dim": 22, "depth": 3, "dropout": 0.1}
    TypeAdapter(RecurrentConfig).validate_python(values)
    with pytest.raises(ValidationError):
        TypeAdapter(RecurrentConfig).validate_python(values | change)


def test_flops_equal_the_hand_count():
    """Multiplies and adds, at a width of 22 and three layers

    a source token    3 layers · 2 directions · 4 gates · 11 · (22 + 11)
    a target token    3 layers · 4 gates · 22 · (22 + 22), W_a 22², W_c 22 · 44, the logits 22 · 13
    a pair            the score 22, the sum 22
    """
    source, target = 3 * 2 * 4 * 11 * (22 + 11), 3 * 4 * 22 * (22 + 22) + 22**2 + 22 * 44 + 22 * TGT_VOCAB
    assert tiny().flops(7, 5) == 2 * (7 * source + 5 * target + 7 * 5 * 2 * 22)


def test_the_width_must_be_even():
    with pytest.raises(
        RegardError, match=r"^model: embed_dim is halved between two directions and must be even, got 23$"
    ):
        tiny(embed_dim=23)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda s, t, m: (s + SRC_VOCAB, t, m), r"^source: token \d+ at row 0, position \d is outside the vocabulary"),
        (
            lambda s, t, m: (s, t - TGT_VOCAB, m),
            r"^target: token -\d+ at row \d, position \d is outside the vocabulary",
        ),
        (lambda s, t, m: (s[:, :0], t, None), r"^source: empty; there must be at least one token"),
        (lambda s, t, m: (s, t[:, :0], m), r"^target: empty; there must be at least one token"),
        (lambda s, t, m: (s, t, m.flip(1)), r"^source: the mask must be real tokens and then padding; it has a gap$"),
        (lambda s, t, m: (s, t, m & padding(7, 0, 1)), r"^source: row 1 is empty; there must be at least one token"),
    ],
    ids=["source token", "target token", "empty source", "empty target", "gap", "empty row"],
)
def test_errors_of_forward(spoil, message):
    inputs = spoil(*pair(), padding(7, 3, 1))
    model = tiny()
    for function in (model, model.cross_attention):
        with pytest.raises(RegardError, match=message):
            function(*inputs[:2], source_mask=inputs[2])


@pytest.fixture
def unchecked():
    """Without the tests' shape checker, which is the first to see shapes that do not meet."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda s, t, m: (s, t, m[:, 1:]), r"^source: the mask must be bool, .* of shape \(3, 7\); got .* \(3, 6\)$"),
        (lambda s, t, m: (s, t, m.long()), r"^source: the mask must be bool, .*; got torch\.int64 \(3, 7\)$"),
        (lambda s, t, m: (s, t[:2], m), r"^target: 2 rows do not go with 3 rows of the source$"),
    ],
    ids=["shape of the mask", "kind of the mask", "rows"],
)
@pytest.mark.usefixtures("unchecked")
def test_shapes_that_do_not_meet(spoil, message):
    source, target, mask = spoil(*pair(), padding(7, 3, 1))
    with pytest.raises(RegardError, match=message):
        tiny()(source, target, source_mask=mask)
