"""Batches of token ids: padding, order, windows; the same with every number of workers and processes."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from regard.data import (
    BOS,
    EOS,
    PAD,
    ByteTokenizer,
    NumberPairs,
    PairBatch,
    TrainingOrder,
    TrainingWindows,
    evaluation_pairs,
    num_windows,
    pair_batch,
    training_pairs,
    training_windows,
)
from regard.errors import RegardError

BYTES = ByteTokenizer()
WORDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=7)


@given(st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=5))
def test_a_batch_holds_every_pair_and_its_padding(pairs):
    batch = pair_batch(pairs, BYTES, [str(i) for i in range(len(pairs))])
    assert len(batch) == len(pairs)
    assert batch.names == [str(i) for i in range(len(pairs))]
    assert batch.skipped == []
    for i, (source, target) in enumerate(pairs):
        tokens, written = BYTES.encode(source), [BOS, *BYTES.encode(target), EOS]
        padded = len(batch.source[i]) - len(tokens)
        assert batch.source[i].tolist() == tokens + [PAD] * padded
        assert batch.target[i].tolist() == written + [PAD] * (len(batch.target[i]) - len(written))
        if batch.source_mask is not None:
            assert batch.source_mask[i].tolist() == [True] * len(tokens) + [False] * padded
    same = len({len(BYTES.encode(source)) for source, _ in pairs}) == 1
    assert (batch.source_mask is None) == same


@pytest.mark.parametrize(("source", "said"), [("", "second: the source is empty"), ("\udcff", "is not UTF-8")])
def test_a_source_that_cannot_be_read(source, said):
    with pytest.raises(RegardError, match=said):
        pair_batch([("a", "b"), (source, "b")], BYTES, ["first", "second"])


def test_an_empty_target_is_its_beginning_and_end():
    assert pair_batch([("a", "")], BYTES, ["x"]).target.tolist() == [[BOS, EOS]]


def test_batches_move_as_a_whole():
    batch = pair_batch([("a", "b"), ("aaa", "b")], BYTES, ["x", "y"]).to("meta")
    assert batch.source_mask is not None
    assert {batch.source.device.type, batch.source_mask.device.type, batch.target.device.type} == {"meta"}
    assert batch.names == ["x", "y"]
    assert pair_batch([("a", "b")], BYTES, ["x"]).to("meta").source_mask is None
    windows = next(iter(training_windows(torch.arange(29), 5, TrainingOrder(4, 3, seed=1), 0))).to("meta")
    assert windows.tokens.device.type == "meta"
    assert len(windows) == len(windows.names) == 3


def take(loader, number: int) -> list:
    return list(itertools.islice(loader, number))


def same(first: PairBatch, second: PairBatch) -> bool:
    return first.names == second.names and torch.equal(first.source, second.source)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_training_pairs_follow_the_order_and_start_anywhere(num_workers):
    source = NumberPairs(tuple(range(100, 117)))
    order = TrainingOrder(len(source), 7, seed=3)
    expected = [[source.name(index) for _, index in batch] for batch in itertools.islice(order, 15)]
    batches = take(training_pairs(source, BYTES, order, num_workers), 15)  # an epoch has 12 steps
    assert [batch.names for batch in batches] == expected
    later = TrainingOrder(len(source), 7, seed=3, start_step=13)
    for batch, other in zip(take(training_pairs(source, BYTES, later, num_workers), 2), batches[13:], strict=True):
        assert same(batch, other)


def test_loaders_draw_nothing_from_the_global_generator():
    before = torch.random.get_rng_state()
    source = NumberPairs((1, 2, 3))
    take(training_pairs(source, BYTES, TrainingOrder(15, 4, seed=0), 0), 3)
    take(training_windows(torch.arange(29), 5, TrainingOrder(4, 3, seed=1), 0), 3)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(("world_size", "num_workers"), [(1, 0), (3, 0), (2, 1)])
def test_evaluation_takes_each_pair_once_the_shortest_first(world_size, num_workers):
    source = NumberPairs(tuple(range(0, 99_999, 9_091)))
    names = []
    for rank in range(world_size):
        loader = evaluation_pairs(source, BYTES, 7, rank, world_size, num_workers)
        batches = list(loader)
        assert len(loader) == len(batches)
        assert all(len(batch) == 7 for batch in batches[:-1])
        lengths = [len(BYTES.encode(source.pair(place(source, name))[0])) for b in batches for name in b.names]
        assert lengths == sorted(lengths)
        names += [name for batch in batches for name in batch.names]
    assert sorted(names) == sorted(source.name(i) for i in range(len(source)))
    assert [batch.names for batch in loader] == [batch.names for batch in batches]  # a second time, too


def place(source: NumberPairs, name: str) -> int:
    return next(i for i in range(len(source)) if source.name(i) == name)


def test_evaluation_pads_little():
    source = NumberPairs(tuple(range(0, 99_999, 911)))
    padded = [batch.source == PAD for batch in evaluation_pairs(source, BYTES, 16)]
    assert sum(int(p.sum()) for p in padded) < 0.03 * sum(p.numel() for p in padded)


@given(context=st.integers(1, 23), more=st.integers(1, 200), seed=st.integers(0, 99))
def test_windows_are_whole_and_lie_one_behind_the_other(context, more, seed):
    tokens = torch.arange(context + more)
    windows = TrainingWindows(tokens, context, seed)
    assert len(windows) == num_windows(len(tokens), context) >= 1
    for epoch in range(3):
        for index in range(len(windows)):
            window, name = windows[epoch, index]
            first = index * context + windows.shift(epoch)
            assert window.tolist() == list(range(first, first + context + 1))
            assert name == f"text[{first}]"


def test_every_token_is_trained_on_in_some_epoch():
    tokens = torch.arange(101)
    windows = TrainingWindows(tokens, 7, seed=3)
    assert len(windows) == 13
    assert len({windows.shift(epoch) for epoch in range(40)}) > 7
    seen = {int(token) for epoch in range(40) for i in range(13) for token in windows[epoch, i][0]}
    assert seen == set(range(101))
    assert [TrainingWindows(tokens, 7, seed=4).shift(e) for e in range(9)] != [windows.shift(e) for e in range(9)]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_training_windows_follow_the_order_and_start_anywhere(num_workers):
    tokens = torch.arange(101)
    windows = TrainingWindows(tokens, 7, seed=3)
    order = TrainingOrder(13, 5, seed=3)
    batches = take(training_windows(tokens, 7, order, num_workers), 6)  # three epochs
    expected = [torch.stack([windows[key][0] for key in keys]) for keys in itertools.islice(order, 6)]
    for batch, exact in zip(batches, expected, strict=True):
        assert torch.equal(batch.tokens, exact)
        assert batch.names == [f"text[{window[0]}]" for window in batch.tokens.tolist()]
    later = TrainingOrder(13, 5, seed=3, start_step=4)
    assert torch.equal(next(iter(training_windows(tokens, 7, later, num_workers))).tokens, expected[4])


@pytest.mark.parametrize(
    ("num_tokens", "context", "windows"), [(8, 7, 1), (14, 7, 1), (21, 7, 2), (2, 1, 1), (9, 1, 8)]
)
def test_the_number_of_windows(num_tokens, context, windows):
    assert num_windows(num_tokens, context) == windows


@pytest.mark.parametrize(
    ("num_tokens", "context", "said"),
    [
        (7, 7, "a text of 7 tokens is too short for a context of 7; the context may be at most 6"),
        (1, 1, "two tokens are needed"),
        (0, 1, "two tokens are needed"),
        (9, 0, "context is 0; it must be at least 1"),
    ],
)
def test_a_text_that_is_too_short(num_tokens, context, said):
    with pytest.raises(RegardError, match=said):
        num_windows(num_tokens, context)
    with pytest.raises(RegardError, match=said):
        TrainingWindows(torch.arange(num_tokens), context, seed=0)


def test_an_order_of_other_windows_is_an_error():
    with pytest.raises(RegardError, match="the order counts 12 samples; the text has 13 windows"):
        training_windows(torch.arange(101), 7, TrainingOrder(12, 5, seed=3), 0)
