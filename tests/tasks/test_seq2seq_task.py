"""The task of sequence to sequence: what it makes of a recipe's data, model and loss."""

import pytest
import torch
from torch import nn

from regard.data import EOS, PAD, BPETokenizer, ByteTokenizer, PairSource, TextPairs, pair_batch
from regard.errors import RegardError
from regard.models import RecurrentSeq2Seq
from regard.recipes import load_recipe
from regard.tasks import TASKS, PairEvaluation, Task, Translator, create_task
from regard.tasks.seq2seq.task import SPARE_TOKENS

TINY = ("model.embed_dim=16", "model.num_heads=2", "model.depth=1", "model.decoder_depth=1", "train.batch_size=8")


@pytest.fixture
def address(tmp_path):
    """Forty pairs; the longest target has five letters."""
    lines = [f"{'abcde'[i % 5] * (i % 7 + 1)}{i}\t{'x' * (i % 4)}{i:02}" for i in range(40)]
    (tmp_path / "pairs.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return f"pairs:{tmp_path / 'pairs.tsv'}"


@pytest.fixture
def task(address):
    def make(*settings: str):
        return create_task(load_recipe("seq2seq-numbers", [*TINY, "data.val_fraction=0.2", *settings], address=address))

    return make


@pytest.fixture
def batch():
    pairs = [("een", "1"), ("twaalf", "12"), ("honderd", "100")]
    return pair_batch(pairs, ByteTokenizer(), list("abc"))


class Fixed(nn.Module):
    """Logits that depend on the token before by one number."""

    def forward(self, source, target, *, source_mask=None):
        assert source_mask is not None
        return torch.linspace(-1, 1, 259) * target[..., None]


def test_it_is_what_the_loop_asks_for(task):
    assert TASKS.keys() == {"classification", "detection", "pretraining", "seq2seq", "next-token"}
    found = task()
    assert isinstance(found, Task)
    assert (found.unit, found.main_metric, found.larger_is_better) == ("pairs", "exact_match", True)
    assert found.skipped == ()


def test_data_and_model_follow_the_recipe(task):
    found = task()
    assert (len(found.data.train), len(found.data.val)) == (32, 8)
    assert isinstance(found.tokenizer, ByteTokenizer)
    model = found.build_model()
    assert (found.config.src_vocab, found.config.tgt_vocab) == (259, 259)
    assert not model.encoder.gradient_checkpointing
    assert found.flops(model) == model.flops(found._longest_source, 6) > 0
    careful = task("train.gradient_checkpointing=true").build_model()
    assert careful.encoder.gradient_checkpointing
    assert careful.decoder.gradient_checkpointing


def test_the_recurrent_baseline_is_a_model_as_well(address):
    settings = ["model.name=recurrent_mini", "model.embed_dim=16", "train.max_steps=2"]
    settings += [f"data.address={address}", "data.val_fraction=0.2"]
    found = create_task(_without_model(settings))
    model = found.build_model()
    assert isinstance(model, RecurrentSeq2Seq)
    assert found.flops(model) > 0
    assert found.evaluate(model, rank=0, world_size=1).metrics().keys() >= {"exact_match", "bleu"}


def _without_model(settings):
    from regard.recipes import parse_recipe

    values = {"task": "seq2seq", "model": {}, "data": {}, "train": {}}
    for setting in settings:
        key, _, value = setting.partition("=")
        section, _, name = key.partition(".")
        values[section][name] = value if not value.replace(".", "").isdigit() else float(value)
    values["model"]["embed_dim"] = int(values["model"]["embed_dim"])
    return parse_recipe(values)


def test_a_tokenizer_that_is_trained_sees_the_training_pairs(task):
    found = task("data.tokenizer=bpe", "data.vocab_size=270")
    assert isinstance(found.tokenizer, BPETokenizer)
    assert 259 <= found.tokenizer.vocab_size <= 270
    assert found.config.src_vocab == found.config.tgt_vocab == found.tokenizer.vocab_size
    assert found.build_model().tgt_embed.weight.shape == (found.tokenizer.vocab_size, 16)
    again = task("data.tokenizer=bpe", "data.vocab_size=270", "seed=4")
    assert again.tokenizer.to_dict() == found.tokenizer.to_dict()


class Alternating(PairSource):
    """Twenty thousand pairs, of which every fifth is of one language; it notes which languages were read."""

    def __init__(self) -> None:
        self.read = set()

    def __len__(self) -> int:
        return 20_000

    def pair(self, index: int) -> tuple[str, str]:
        self.read.add(self.group(index))
        return f"{self.group(index)} {index}", str(index)

    def name(self, index: int) -> str:
        return f"pair {index}"

    def group(self, index: int) -> str:
        return ("en", "nl", "fr", "de", "es")[index % 5]


def test_the_sample_for_the_tokenizer_is_of_every_language(monkeypatch):
    source = Alternating()
    pairs = TextPairs("numbers", source, source, ("en", "nl", "fr", "de", "es"), "char")
    monkeypatch.setattr("regard.tasks.seq2seq.task.open_pairs", lambda *_, **__: pairs)
    found = create_task(load_recipe("seq2seq-numbers", TINY))
    assert source.read == {"en", "nl", "fr", "de", "es"}
    assert found._longest_target == 5


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_is_cross_entropy_of_what_is_no_padding(task, batch, smoothing):
    found = task(f"train.label_smoothing={smoothing}")
    logits = Fixed()(batch.source, batch.target[:, :-1], source_mask=batch.source_mask)
    losses = []
    for row, target in zip(logits.double(), batch.target.tolist(), strict=True):
        for at, token in enumerate(target[1:]):
            if token != PAD:
                log_p = row[at].log_softmax(-1)
                losses.append((1 - smoothing) * -log_p[token] + smoothing * -log_p.mean())
    assert len(losses) == 2 + 3 + 4 == found.weight(batch)
    torch.testing.assert_close(found.loss(Fixed(), batch).double(), sum(losses) / 9, rtol=1e-5, atol=0)


def test_the_loss_learns_nothing_from_padding(task, batch):
    found = task()
    torch.manual_seed(1)
    model = found.build_model().eval()
    longer = pair_batch(
        [("een", "1"), ("twaalf", "12"), ("honderd", "100"), ("x" * 30, "y" * 30)], found.tokenizer, list("abcd")
    )
    longer = type(longer)(longer.source[:3], longer.source_mask[:3], longer.target[:3], longer.names[:3], [])
    assert longer.target.shape[1] > batch.target.shape[1] + 20
    torch.testing.assert_close(found.loss(model, longer), found.loss(model, batch), rtol=1e-5, atol=1e-6)


def test_evaluation_leaves_the_model_in_its_mode(task):
    found = task("model.dropout=0.5")
    model = found.build_model().train()
    whole = found.evaluate(model, rank=0, world_size=1)
    shards = [found.evaluate(model, rank=rank, world_size=3) for rank in range(3)]
    assert model.training
    assert sorted(name for shard in shards for name in shard.names) == sorted(whole.names)
    assert len(whole.names) == 8
    assert found.metrics(shards) == pytest.approx(PairEvaluation.metrics(whole), rel=1e-5)
    assert found.metrics([whole]).keys() == {"exact_match", "bleu", "perplexity", "loss"}


def test_metadata_is_enough_to_predict(task):
    found = task("data.tokenizer=bpe", "data.vocab_size=270")
    model = found.build_model()
    metadata = found.metadata()
    assert metadata["task"] == "seq2seq"
    again = Translator.from_metadata(model, metadata, "metadata.json")
    assert again.max_new_tokens == found._longest_target + SPARE_TOKENS
    assert again.predict(["aa5", "b"]) == found.predictor(model).predict(["aa5", "b"])
    with pytest.raises(RegardError, match=r"metadata.json: unknown tokenizer 'byts'; did you mean 'bytes'"):
        Translator.from_metadata(model, {**metadata, "tokenizer": {"kind": "byts"}}, "metadata.json")


def test_nothing_is_written_beyond_learned_positions(task):
    """The longest target fits, and what may be spent beyond it does not."""
    found = task("model.positions=learned", "model.max_tokens=11")

    class Endless(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model, self.start, self.longest = model, model.start, 0

        def forward(self, *arguments, **named):
            return self.model(*arguments, **named)

        def step(self, tokens, state):
            logits, state = self.model.step(tokens, state)
            logits[:, EOS] = -torch.inf
            return logits, state

    assert found.metadata()["max_new_tokens"] == 11
    shard = found.evaluate(Endless(found.build_model()), rank=0, world_size=1)
    assert shard.metrics()["exact_match"] == 0
