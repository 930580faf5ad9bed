"""Tokenizers give back every text, keep their special tokens out of it, and survive being written down."""

import json
import os
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regard.data import BOS, EOS, PAD, BPETokenizer, ByteTokenizer, create_tokenizer, tokenizer_from_dict
from regard.errors import RegardError

SOME_TEXT = [
    "the with statement wraps the execution of a block",
    "with the with the with",
    "één, twee, <pad> ⟨pad⟩",
] * 3
BPE = BPETokenizer.trained(SOME_TEXT, 300)
BOTH = pytest.mark.parametrize("tokenizer", [ByteTokenizer(), BPE], ids=["bytes", "bpe"])
# Every string of UTF-8; lone surrogates are none.
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


@BOTH
@given(text=TEXTS)
def test_every_text_comes_back(tokenizer, text):
    ids = tokenizer.encode(text)
    assert all(EOS < token < tokenizer.vocab_size for token in ids)
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode([BOS, *ids, EOS, PAD, PAD]) == text


@BOTH
@pytest.mark.parametrize(
    "text", ["", " ", "  two  spaces ", "\r\n\t\0", "<pad><bos>⟨pad⟩⟨eos⟩", "日本 🙂", "\ufeffmark"]
)
def test_awkward_texts_come_back(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_bytes_are_shifted_by_the_special_tokens():
    assert (PAD, BOS, EOS) == (0, 1, 2)
    assert ByteTokenizer().encode("aé") == [100, 198, 172]
    assert ByteTokenizer().vocab_size == 259


def test_merges_shorten_what_was_learnt_from():
    assert BPE.vocab_size == 300
    assert len(BPE.encode(SOME_TEXT[0])) < 0.7 * len(SOME_TEXT[0])
    assert len(BPE.encode("ⱤⰐ")) == 6  # never seen: a token a byte


def test_learning_is_reproducible_and_stops_where_nothing_is_frequent():
    assert BPETokenizer.trained(SOME_TEXT, 300).to_dict() == BPE.to_dict()
    assert BPETokenizer.trained(["abab", "ab"], 5000).vocab_size < 265


@BOTH
def test_bytes_that_are_no_text_become_the_replacement_character(tokenizer):
    first, *_ = tokenizer.encode("Ɽ")  # of three bytes, never merged
    assert tokenizer.decode([*tokenizer.encode("a"), first, *tokenizer.encode("b")]) == "a\ufffdb"


@BOTH
@pytest.mark.parametrize("token", [-1, 300])
def test_an_id_outside_the_vocabulary_is_an_error(tokenizer, token):
    with pytest.raises(RegardError, match=f"token id {token} is outside the vocabulary of {tokenizer.vocab_size}"):
        tokenizer.decode([5, token])


@BOTH
def test_text_that_is_not_utf8_is_an_error_in_one_line(tokenizer):
    argument = b"caf\xff\n".decode("utf-8", "surrogateescape")
    with pytest.raises(RegardError, match=r"is not UTF-8 \(its character number 4\)") as caught:
        tokenizer.encode(argument)
    assert "\n" not in str(caught.value)
    str(caught.value).encode()  # the message itself can be printed
    with pytest.raises(RegardError, match=r"'xxx.*\.\.\.' is not UTF-8"):
        tokenizer.encode("x" * 500 + argument)


def test_learning_from_text_that_is_not_utf8_is_an_error():
    with pytest.raises(RegardError, match="is not UTF-8"):
        BPETokenizer.trained(["a\udcff"], 300)


@BOTH
def test_written_down_and_read_again(tokenizer):
    text = "with the é ⟨pad⟩"
    for again in (
        tokenizer_from_dict(json.loads(json.dumps(tokenizer.to_dict(), sort_keys=True)), "run"),
        pickle.loads(pickle.dumps(tokenizer)),
    ):
        assert type(again) is type(tokenizer)
        assert again.vocab_size == tokenizer.vocab_size
        assert again.encode(text) == tokenizer.encode(text)
        assert again.decode(again.encode(text)) == text


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"kind": "byte"}, "run/metadata.json: unknown tokenizer 'byte'; did you mean 'bytes'"),
        ({}, "run/metadata.json: unknown tokenizer 'None'"),
        ({"kind": "bpe"}, "run/metadata.json: not a tokenizer"),
        ({"kind": "bpe", "json": {"model": {}}}, "run/metadata.json: not a tokenizer"),
    ],
)
def test_what_is_no_tokenizer_is_an_error(values, said):
    with pytest.raises(RegardError, match=said) as caught:
        tokenizer_from_dict(values, "run/metadata.json")
    assert "\n" not in str(caught.value)


def test_a_tokenizer_with_other_special_tokens_is_an_error():
    values = BPE.to_dict()
    vocab = values["json"]["model"]["vocab"]
    vocab["<s>"] = vocab.pop("⟨bos⟩")
    with pytest.raises(RegardError, match=r"run: .*must begin with the tokens"):
        tokenizer_from_dict(values, "run")


def test_tokenizers_by_kind():
    assert isinstance(create_tokenizer("bytes", 7, []), ByteTokenizer)
    assert create_tokenizer("bpe", 280, SOME_TEXT).vocab_size == 280
    with pytest.raises(RegardError, match="vocab_size is 258; a bpe tokenizer needs at least 259"):
        create_tokenizer("bpe", 258, SOME_TEXT)
    assert create_tokenizer("bpe", 259, SOME_TEXT).vocab_size == 259


def test_learning_leaves_the_environment_as_it_was(monkeypatch):
    monkeypatch.delenv("TOKENIZERS_PARALLELISM", raising=False)
    seen = []

    def texts():
        seen.append(os.environ["TOKENIZERS_PARALLELISM"])
        yield "abc"

    BPETokenizer.trained(texts(), 300)
    assert seen == ["false"]
    assert "TOKENIZERS_PARALLELISM" not in os.environ
