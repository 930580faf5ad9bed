"""A translator in use: on texts, on pairs, and for what it looked at."""

import math

import pytest
import torch
import torch.nn.functional as F

from regard.data import BOS, EOS, ByteTokenizer, LinePairs, create_tokenizer
from regard.errors import RegardError
from regard.models import build, configure
from regard.models.decoding import beam_search, greedy
from regard.tasks import PairEvaluation, Translator

TINY = {"embed_dim": 16, "num_heads": 2, "depth": 1, "decoder_depth": 2, "mlp_ratio": 2.0}
TEXTS = ["twaalf", "x", "vijfhonderdtwaalf", "één", "zeven en twintig", "花見", "acht", "x"]


class Reverser(torch.nn.Module):
    """Writes the source backwards, sure of it: what is right can be worked out by hand."""

    def __init__(self):
        super().__init__()
        self.sureness = torch.nn.Parameter(torch.tensor(9.0))
        self.batches = []

    def _logits(self, source, position):
        rows = []
        for tokens in source.tolist():
            tokens = [token for token in tokens if token]
            backwards = [*reversed(tokens), EOS]
            rows.append(F.one_hot(torch.tensor(backwards[min(position, len(tokens))]), 259))
        return torch.stack(rows) * self.sureness

    def forward(self, source, target, *, source_mask=None):
        return torch.stack([self._logits(source, at) for at in range(target.shape[1])], dim=1)

    def start(self, source, *, source_mask=None):
        self.batches.append(tuple(source.shape))
        return {"source": source, "at": 0}

    def step(self, tokens, state):
        at = state["at"]
        return self._logits(state["source"], at), {**state, "at": at + tokens.shape[1]}


@pytest.fixture
def reverser():
    return Translator(Reverser(), ByteTokenizer(), 30)


def translator(name="transformer_mini", tokenizer=None, **config):
    """With random weights, spread wide enough that its answers differ."""
    tokenizer = tokenizer or ByteTokenizer()
    sizes = {"src_vocab": tokenizer.vocab_size, "tgt_vocab": tokenizer.vocab_size}
    model = build(configure(name, {**(TINY if name == "transformer_mini" else {"embed_dim": 16}), **sizes, **config}))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    return Translator(model, tokenizer, 9)


@pytest.fixture
def pairs(tmp_path):
    """Seven pairs of which the reverser gets four right."""
    lines = [
        ("ab", "ba"),
        ("12345", "54321"),
        ("no", "no"),
        ("x", "x"),
        ("long one", "short"),
        ("ä", "?"),
        ("aba", "aba"),
    ]
    return LinePairs(tmp_path / "pairs.tsv", lines, range(1, 8))


def test_answers_keep_the_order_of_texts(reverser):
    texts = ["abc", "a", "12345678", "xy", "a", "zzzzy"]
    for batch_size in (1, 2, 4, 256):
        answers = reverser.predict(texts, batch_size=batch_size)
        assert [answer.source for answer in answers] == texts
        assert [answer.text for answer in answers] == [text[::-1] for text in texts]
    # Those of like lengths go together.
    reverser.model.batches.clear()
    reverser.predict(texts, batch_size=2)
    assert reverser.model.batches == [(2, 1), (2, 3), (2, 8)]


def test_the_log_probability_of_an_answer_by_hand(reverser):
    answer = reverser.predict(["abcd"])[0]
    each = 9 - math.log(math.exp(9) + 258)
    assert answer.log_prob == pytest.approx(5 * each, rel=1e-4)  # the end counts too


def test_no_text_no_answer(reverser):
    assert reverser.predict([]) == []


def test_the_model_is_in_evaluation_mode_and_leaves_no_graph():
    found = translator(dropout=0.5)
    assert not found.model.training
    assert found.predict(TEXTS) == found.predict(TEXTS)
    assert all(parameter.grad is None for parameter in found.model.parameters())


@pytest.mark.parametrize("name", ["transformer_mini", "recurrent_mini"])
@pytest.mark.parametrize("beam_size", [1, 3])
def test_an_answer_does_not_depend_on_its_batch(name, beam_size):
    found = translator(name)
    together = found.predict(TEXTS, beam_size=beam_size)
    alone = [found.predict([text], beam_size=beam_size)[0] for text in TEXTS]
    assert [answer.text for answer in together] == [answer.text for answer in alone]
    assert len({answer.text for answer in alone}) > 3
    for ours, theirs in zip(together, alone, strict=True):
        assert ours.log_prob == pytest.approx(theirs.log_prob, abs=1e-3)


def test_answers_are_those_of_the_search():
    found = translator()
    source = torch.tensor([found.tokenizer.encode("twaalf")])
    prompt, limits = torch.tensor([[BOS]]), {"eos": EOS, "max_new_tokens": 9}
    model = found.model
    plain = greedy(model.step, prompt, model.start(source), **limits)
    assert found.predict(["twaalf"])[0].text == found.tokenizer.decode(plain.tokens[0].tolist())
    for penalty in (0.0, 2.0):
        wide = beam_search(model.step, prompt, model.start(source), beam_size=4, length_penalty=penalty, **limits)
        answer = found.predict(["twaalf"], beam_size=4, length_penalty=penalty)[0]
        assert answer.text == found.tokenizer.decode(wide.tokens[0].tolist())
        assert answer.log_prob == pytest.approx(wide.log_probs[0].item(), rel=1e-5)
        assert penalty or answer.log_prob >= plain.log_probs[0].item() - 1e-4


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([""], "predict: text 1 of 1 is empty"),
        (["a", "b", ""], "predict: text 3 of 3 is empty"),
        (["a", "b\udcff"], r"'b\\udcff' is not UTF-8 \(its character number 2\)"),
    ],
)
def test_a_text_that_cannot_be_read_is_one_line(reverser, texts, message):
    with pytest.raises(RegardError, match=message) as caught:
        reverser.predict(texts)
    assert "\n" not in str(caught.value)


def test_a_text_longer_than_positions_reach_is_one_line():
    found = translator(positions="learned", max_tokens=11)
    assert len(found.predict(["x" * 11])) == 1
    with pytest.raises(RegardError, match=r"source: 12 tokens are more than the model's positions reach, 11"):
        found.predict(["ok", "x" * 12])


def test_an_evaluation_by_hand(reverser, pairs):
    found = reverser.evaluate(pairs, batch_size=3)
    right = {1, 2, 4, 7}
    assert {int(found.names[i].rpartition(":")[2]) for i in range(7) if i not in found.mistakes()} == right
    assert found.metrics()["exact_match"] == 4 / 7
    for name, source, reference in zip(found.names, found.sources, found.references, strict=True):
        assert pairs.pair(int(name.rpartition(":")[2]) - 1) == (source, reference)
    assert found.predictions[found.sources.index("long one")] == "eno gnol"
    # Every letter of a reference and its end; a token is right (9 - z) or wrong (-z).
    assert found.num_tokens == sum(len(target) + 1 for _, target in pairs.pairs) == 26
    z, wrong = math.log(math.exp(9) + 258), 0
    for source, target in pairs.pairs:
        backwards = [*reversed(source.encode()), -1]
        wrong += sum(backwards[min(at, len(backwards) - 1)] != token for at, token in enumerate([*target.encode(), -1]))
    assert found.nats == pytest.approx(26 * z - 9 * (26 - wrong), rel=1e-5)


def test_a_loss_by_hand_of_a_transformer(pairs):
    found = translator()
    nats = 0.0
    for source, target in pairs.pairs:
        tokens = [BOS, *found.tokenizer.encode(target), EOS]
        with torch.no_grad():
            logits = found.model(torch.tensor([found.tokenizer.encode(source)]), torch.tensor([tokens[:-1]]))
        nats -= logits[0].double().log_softmax(-1)[range(len(tokens) - 1), tokens[1:]].sum().item()
    assert found.evaluate(pairs, batch_size=4).nats == pytest.approx(nats, rel=1e-5)


@pytest.mark.parametrize("world_size", [2, 3, 9])
def test_the_shards_of_processes_join_to_the_whole(pairs, world_size):
    found = translator()
    whole = found.evaluate(pairs, bleu_tokenize="char")
    shards = [
        found.evaluate(pairs, bleu_tokenize="char", rank=rank, world_size=world_size) for rank in range(world_size)
    ]
    joined = PairEvaluation.joined(shards)
    assert sorted(zip(joined.names, joined.predictions, strict=True)) == sorted(
        zip(whole.names, whole.predictions, strict=True)
    )
    assert joined.num_tokens == whole.num_tokens
    assert joined.metrics() == pytest.approx(whole.metrics(), rel=1e-5)


def test_workers_change_nothing(pairs):
    found = translator()
    assert found.evaluate(pairs, num_workers=1) == found.evaluate(pairs)


@pytest.mark.parametrize("name", ["transformer_mini", "recurrent_mini"])
def test_what_was_looked_at(name):
    found = translator(name)
    answer, seen = found.alignment("één xy")
    assert answer == found.predict(["één xy"])[0]
    assert seen.source == ("é", "", "é", "", "n", " ", "x", "y")
    assert seen.target[-1] == "end"
    assert "".join(seen.target[:-1]) == answer.text
    layers = 2 if name == "transformer_mini" else 1
    assert seen.weights.shape[0] == layers
    assert seen.weights.shape[2:] == (len(seen.target), len(seen.source))
    torch.testing.assert_close(seen.weights.sum(-1), torch.ones(seen.weights.shape[:3]), rtol=0, atol=1e-5)
    assert seen.weights.std() > 0


def test_what_was_looked_at_is_of_the_answer_that_is_given():
    """A beam may write something else than the likeliest token each time."""
    for seed in range(30):
        torch.manual_seed(seed)
        found = translator()
        wide, narrow = (found.predict(["twaalf"], beam_size=size)[0] for size in (4, 1))
        if wide.text != narrow.text:
            break
    assert wide.text != narrow.text
    for size, expected in ((4, wide), (1, narrow)):
        answer, seen = found.alignment("twaalf", beam_size=size)
        assert answer == expected
        assert "".join(seen.target[:-1]) == expected.text


def test_an_empty_answer_has_its_end_alone():
    class Silent(Reverser):
        def _logits(self, source, position):
            return F.one_hot(torch.full((len(source),), EOS), 259) * self.sureness

        def cross_attention(self, source, target, *, source_mask=None):
            return torch.ones(1, 1, 1, target.shape[1], source.shape[1]) / source.shape[1]

    answer, seen = Translator(Silent(), ByteTokenizer(), 5).alignment("abc")
    assert (answer.text, seen.target) == ("", ("end",))
    assert seen.weights.shape == (1, 1, 1, 3)


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("ab", ["a", "b"]),
        ("é花🎉.", ["é", "", "花", "", "", "🎉", "", "", "", "."]),
        ("e\u0301!", ["e", "\u0301", "", "!"]),
        ("a\ufffdb", ["a", "\ufffd", "", "", "b"]),  # the sign for what cannot be read is a letter as well
        ("\ufffd\ufffdé", ["\ufffd", "", "", "\ufffd", "", "", "é", ""]),
    ],
)
def test_the_first_token_of_a_letter_gets_all_of_it(reverser, text, pieces):
    assert reverser._pieces(torch.tensor(reverser.tokenizer.encode(text))) == pieces


def test_pieces_of_a_tokenizer_that_was_trained():
    tokenizer = create_tokenizer("bpe", 300, ["vijf honderd", "honderd vijf", "twee honderd", "één"] * 9)
    found = translator(tokenizer=tokenizer)
    tokens = tokenizer.encode("honderd ö \ufffd 花")
    pieces = found._pieces(torch.tensor(tokens))
    assert len(pieces) == len(tokens) < len("honderd ö \ufffd 花".encode())
    assert "".join(pieces) == "honderd ö \ufffd 花"
    assert "honderd" in pieces or " honderd" in pieces
