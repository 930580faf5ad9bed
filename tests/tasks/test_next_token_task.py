"""The task of the next token: what it makes of a recipe's text, model and loss."""

import itertools
import math

import pytest
import torch
from torch import nn

from regard.data import BPETokenizer, WindowBatch
from regard.errors import RegardError
from regard.recipes import load_recipe
from regard.tasks import Task, TextEvaluation, Writer, create_task

TINY = ("model.embed_dim=16", "model.num_heads=2", "model.depth=1", "model.context=12", "train.batch_size=4")


@pytest.fixture
def address(tmp_path):
    (tmp_path / "text.txt").write_text("".join(f"line {i} of the poem\n" for i in range(30)), encoding="utf-8")
    return f"text:{tmp_path / 'text.txt'}"


@pytest.fixture
def task(address):
    def make(*settings: str):
        return create_task(load_recipe("next-token", ["data.tokenizer=bytes", *TINY, *settings], address=address))

    return make


class Fixed(nn.Module):
    """Logits that depend on the token before by one number."""

    context = 12

    def forward(self, tokens):
        return torch.linspace(-1, 1, 259) * tokens[..., None]


def test_it_is_what_the_loop_asks_for(task):
    found = task()
    assert isinstance(found, Task)
    assert (found.unit, found.main_metric, found.larger_is_better) == ("windows", "bits_per_byte", False)
    assert found.skipped == ()


def test_data_and_model_follow_the_recipe(task):
    found = task()
    assert len(found.data.val) == math.ceil(0.1 * len(found.data.train + found.data.val))
    assert found.config.vocab_size == 259
    model = found.build_model()
    assert model.context == 12
    assert found.flops(model) == model.flops(12) > 0
    assert not model.decoder.gradient_checkpointing
    assert task("train.gradient_checkpointing=true").build_model().decoder.gradient_checkpointing
    batch = next(iter(found.training_loader(found.order(rank=0, world_size=1))))
    assert batch.tokens.shape == (4, 13)


def test_held_out_text_is_not_learned_from(task):
    found = task("data.tokenizer=bpe", "data.vocab_size=300")
    assert isinstance(found.tokenizer, BPETokenizer)
    assert found.config.vocab_size == found.tokenizer.vocab_size <= 300
    assert found.tokenizer.decode(found._tokens.tolist()) == found.data.train


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_the_loss_is_cross_entropy(task, smoothing):
    tokens = torch.randint(3, 259, (3, 13))
    found, losses = task(f"train.label_smoothing={smoothing}"), []
    for row in tokens.tolist():
        for before, token in itertools.pairwise(row):
            log_p = (torch.linspace(-1, 1, 259).double() * before).log_softmax(-1)
            losses.append((1 - smoothing) * -log_p[token] + smoothing * -log_p.mean())
    loss = found.loss(Fixed(), WindowBatch(tokens, list("abc"), []))
    torch.testing.assert_close(loss.double(), sum(losses) / 36, rtol=1e-5, atol=0)


def test_evaluation_leaves_the_model_in_its_mode(task):
    found = task("model.dropout=0.5")
    model = found.build_model().train()
    shards = [found.evaluate(model, rank=rank, world_size=2) for rank in range(2)]
    assert model.training
    whole = found.evaluate(model, rank=0, world_size=1)
    assert whole == found.evaluate(model, rank=0, world_size=1), "without dropout"
    assert found.metrics(shards) == pytest.approx(whole.metrics(), rel=1e-6)
    assert found.metrics([whole]).keys() == {"bits_per_byte", "perplexity", "loss"}
    assert whole.num_bytes == len(found.data.val.encode())
    assert isinstance(whole, TextEvaluation)


def test_metadata_is_enough_to_write(task):
    found = task("data.tokenizer=bpe", "data.vocab_size=300")
    model = found.build_model()
    again = Writer.from_metadata(model, found.metadata(), "metadata.json")
    assert found.metadata()["task"] == "next-token"
    assert again.generate("line", seed=4) == found.predictor(model).generate("line", seed=4)


def test_a_text_shorter_than_the_context_is_one_line(task, tmp_path):
    with pytest.raises(RegardError, match="is too short for a context of 9999; the context may be at most"):
        task("model.context=9999").order(rank=0, world_size=1)


def test_a_mixer_that_cannot_be_causal_is_one_line(task):
    with pytest.raises(RegardError, match="fourier") as caught:
        task("model.mixer=fourier").build_model()
    assert "\n" not in str(caught.value)
