"""A writer in use: what it goes on with, and how probable it holds a text."""

import math

import pytest
import torch
from torch import nn

from regard.data import ByteTokenizer, create_tokenizer
from regard.errors import RegardError
from regard.models import LanguageModel, LanguageModelConfig
from regard.models.decoding import greedy, uncached
from regard.tasks import TextEvaluation, Writer

TEXT = "Das Fräulein stand am Meere und seufzte lang und bang.\n花\n"


def writer(context=11, tokenizer=None):
    """With random weights, spread wide enough that its tokens differ."""
    tokenizer = tokenizer or ByteTokenizer()
    size = {"vocab_size": tokenizer.vocab_size, "context": context, "embed_dim": 16, "num_heads": 2, "depth": 1}
    model = LanguageModel(LanguageModelConfig(**size, dropout=0.3))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    return Writer(model, tokenizer)


class Uniform(nn.Module):
    """Holds all tokens equally probable."""

    def __init__(self, context):
        super().__init__()
        self.context = context
        self.level = nn.Parameter(torch.tensor(0.5))

    def forward(self, tokens):
        assert tokens.shape[1] <= self.context
        return self.level.expand(*tokens.shape, 259)


def scored(found, text):
    """The definition: each token once, from windows that overlap by half; (nats, number of tokens)."""
    tokens = found.tokenizer.encode("\n" + text)
    context, stride = found.context, max(found.context // 2, 1)
    nats, done = 0.0, 0
    for at in range(1, len(tokens)):
        # The window that scores token `at` sees as much before it as a whole number of strides leaves.
        start = max(math.ceil((at - context) / stride), 0) * stride
        with torch.no_grad():
            logits = found.model(torch.tensor([tokens[start:at]]))[0, -1]
        nats -= logits.double().log_softmax(-1)[tokens[at]].item()
        done += 1
    return nats, done


@pytest.mark.parametrize("context", [1, 2, 5, 8, 11, 200])
@pytest.mark.parametrize("text", [TEXT, "a", "a" * 8, "abcdefgh" * 2])
def test_every_token_is_scored_once(context, text):
    found = writer(context)
    result = found.evaluate(text, batch_size=3)
    nats, number = scored(found, text)
    assert result.num_tokens == number == len(text.encode())
    assert result.num_bytes == len(text.encode())
    assert result.nats == pytest.approx(nats, rel=1e-5)


@pytest.mark.parametrize("length", range(1, 24))
def test_every_length_of_text_is_scored_to_its_end(length):
    """Around the ends of windows nothing is scored twice or left out."""
    for context in (4, 7):
        found = Writer(Uniform(context), ByteTokenizer()).evaluate("x" * length, batch_size=2)
        assert found.num_tokens == length
        assert found.nats == pytest.approx(length * math.log(259), rel=1e-6)


@pytest.mark.parametrize("context", [1, 6, 13, 500])
def test_what_knows_nothing_needs_the_bits_of_its_vocabulary(context):
    found = Writer(Uniform(context), ByteTokenizer()).evaluate(TEXT).metrics()
    assert found["bits_per_byte"] == pytest.approx(math.log2(259), rel=1e-6)
    assert found["perplexity"] == pytest.approx(259, rel=1e-5)
    assert found["loss"] == pytest.approx(math.log(259), rel=1e-6)


@pytest.mark.parametrize("world_size", [2, 3, 40])
@pytest.mark.parametrize("context", [4, 7])
def test_the_shards_of_processes_join_to_the_whole(context, world_size):
    found = writer(context)
    whole = found.evaluate(TEXT)
    shards = [found.evaluate(TEXT, rank=rank, world_size=world_size) for rank in range(world_size)]
    joined = TextEvaluation.joined(shards)
    assert (joined.num_tokens, joined.num_bytes) == (whole.num_tokens, whole.num_bytes)
    assert joined.metrics() == pytest.approx(whole.metrics(), rel=1e-6)
    assert (shards[-1].num_tokens == 0) == (world_size == 40)


def test_bits_per_byte_count_bytes_and_not_tokens():
    tokenizer = create_tokenizer("bpe", 280, [TEXT] * 3)
    found = writer(7, tokenizer).evaluate(TEXT)
    assert found.num_bytes == len(TEXT.encode()) > found.num_tokens == len(tokenizer.encode(TEXT))
    assert found.metrics()["bits_per_byte"] == pytest.approx(found.nats / math.log(2) / found.num_bytes, rel=1e-12)


def test_an_empty_text_has_no_figures():
    with pytest.raises(RegardError, match="evaluation: the text is empty"):
        writer().evaluate("")


def test_same_seed_same_text():
    found = writer(40)
    texts = [found.generate("The", seed=seed) for seed in (7, 7, 8, 2**70)]
    assert texts[0] == texts[1]
    assert len(set(texts)) == 3
    torch.manual_seed(5)
    state = torch.get_rng_state()
    assert found.generate("The", seed=7) == texts[0]
    assert torch.equal(torch.get_rng_state(), state), "it draws from a generator of its own"


def test_temperature_zero_takes_the_likeliest():
    found = writer(40)
    model = found.model
    prompt = torch.tensor([found.tokenizer.encode("The")])
    slow = greedy(uncached(lambda seen: model(seen)[:, -1]), prompt, eos=None, max_new_tokens=37)
    expected = found.tokenizer.decode(slow.tokens[0].tolist())
    assert found.generate("The", temperature=0.0) == expected
    assert found.generate("The", temperature=0.0, seed=9) == expected
    assert found.generate("The", top_k=1) == expected
    assert found.generate("The", top_p=1e-9) == expected
    assert found.generate("The", temperature=1e-6) == expected
    assert found.generate("The", temperature=5.0) != expected


@pytest.mark.parametrize("options", [{}, {"temperature": 0.7, "top_k": 9}, {"top_p": 0.8}])
def test_cached_and_uncached_write_the_same(options, monkeypatch):
    found = writer(40)
    cached = found.generate("né", seed=3, **options)
    model = found.model
    monkeypatch.setattr(found, "model", nn.Module())
    found.model.anchor = nn.Parameter(torch.zeros(1))
    found.model.step = uncached(lambda seen: model(seen)[:, -1])
    assert found.generate("né", seed=3, **options) == cached


def test_as_many_tokens_as_were_asked_for_or_as_fit():
    tokens = []

    class Recorder(ByteTokenizer):
        def decode(self, ids):
            tokens.append(len(ids))
            return super().decode(ids)

    found = writer(11, Recorder())
    found.generate("abcd")
    found.generate("é", max_new_tokens=3)
    found.generate("abcd", max_new_tokens=7)
    found.generate("abcdefghij")
    assert tokens == [7, 3, 7, 1]


@pytest.mark.parametrize(
    ("prompt", "options", "message"),
    [
        ("", {}, "prompt: is empty"),
        ("x" * 11, {}, "prompt: 11 tokens are too many; the context holds 11, so at most 10 leave room"),
        ("é" * 6, {}, "prompt: 12 tokens are too many"),
        ("abcd", {"max_new_tokens": 8}, "prompt of 4 tokens and 8 new ones are more than the context of 11.* most 7"),
        ("abcd", {"max_new_tokens": 0}, "max_new_tokens must be at least 1, got 0"),
        ("a\udcff", {}, r"'a\\udcff' is not UTF-8 \(its character number 2\)"),
        ("abcd", {"temperature": -0.5}, "temperature must be above 0 and finite, got -0.5"),
        ("abcd", {"temperature": math.nan}, "temperature must be above 0 and finite, got nan"),
        ("abcd", {"temperature": math.inf}, "temperature must be above 0 and finite, got inf"),
        ("abcd", {"top_k": 0}, "top_k must be at least 1, got 0"),
        ("abcd", {"top_p": 0.0}, "top_p must be above 0 and at most 1, got 0.0"),
        ("abcd", {"top_p": 1.5}, "top_p must be above 0 and at most 1, got 1.5"),
    ],
)
def test_a_prompt_or_option_that_cannot_be_served_is_one_line(prompt, options, message):
    with pytest.raises(RegardError, match=message) as caught:
        writer(11).generate(prompt, **options)
    assert "\n" not in str(caught.value)


def test_a_model_without_a_context_is_no_language_model():
    with pytest.raises(RegardError, match="Linear is no language model: it has no context"):
        Writer(nn.Linear(2, 2), ByteTokenizer())
