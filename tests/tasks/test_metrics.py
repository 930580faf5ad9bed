"""The figures of a classifier, against ones worked out by hand."""

import math

import pytest
import torch
from torch import tensor

from regard.errors import RegardError
from regard.tasks import Evaluation

# Six images, seven classes named by letters. Predictions: a b b c a g; the truth: a b c c b f.
LOGITS = tensor(
    [
        [5.0, 0, 0, 0, 0, 0, 0],
        [0.0, 4, 0, 0, 0, 0, 0],
        [0.0, 3, 2, 0, 0, 0, 0],
        [0.0, 0, 1, 0, 0, 0, 0],
        [9.0, 0, 1, 2, 3, 4, 5],
        [6.0, 5, 4, 3, 2, 1, 7],
    ]
)
LABELS = tensor([0, 1, 2, 2, 1, 5])


def evaluation(rows=slice(None), skipped=()):
    names = tuple(f"{i}.png" for i in range(6))[rows]
    return Evaluation(LOGITS[rows], LABELS[rows], names, tuple("abcdefg"), skipped)


def test_accuracy_top5_and_loss():
    metrics = evaluation().metrics()
    # The fifth and the sixth image's classes come in last of seven, beyond the first five.
    assert metrics["accuracy"] == 3 / 6
    assert metrics["top5"] == 4 / 6
    losses = [
        math.log(math.exp(5) + 6) - 5,
        math.log(math.exp(4) + 6) - 4,
        math.log(math.exp(3) + math.exp(2) + 5) - 2,
        math.log(math.e + 6) - 1,
        math.log(sum(math.exp(x) for x in (9, 0, 1, 2, 3, 4, 5))) - 0,
        math.log(sum(math.exp(x) for x in range(1, 8))) - 1,
    ]
    torch.testing.assert_close(metrics["loss"], sum(losses) / 6, rtol=1e-6, atol=0)


def test_top5_of_fewer_than_five_classes():
    found = Evaluation(tensor([[1.0, 2.0], [1.0, 2.0]]), tensor([0, 1]), ("a", "b"), ("x", "y")).metrics()
    assert (found["accuracy"], found["top5"]) == (0.5, 1.0)


def test_without_images_there_are_no_figures():
    with pytest.raises(RegardError, match=r"no image that can be read \(1 were skipped\)"):
        evaluation(slice(0, 0), ("x.png: bad",)).metrics()


def test_shards_of_processes_are_one_evaluation():
    shards = [evaluation(slice(0, 6, 2), ("x.png: bad",)), evaluation(slice(1, 6, 2), ("y.png: bad",))]
    joined = Evaluation.joined(shards)
    assert joined.names == ("0.png", "2.png", "4.png", "1.png", "3.png", "5.png")
    assert joined.skipped == ("x.png: bad", "y.png: bad")
    whole, found = evaluation().metrics(), joined.metrics()
    assert (found["accuracy"], found["top5"]) == (whole["accuracy"], whole["top5"])
    torch.testing.assert_close(found["loss"], whole["loss"], rtol=1e-12, atol=0)


def test_confusion_has_the_truth_in_rows():
    confusion = evaluation().confusion()
    expected = torch.zeros(7, 7, dtype=torch.int64)
    for truth, predicted in ((0, 0), (1, 1), (2, 1), (2, 2), (1, 0), (5, 6)):
        expected[truth, predicted] += 1
    assert torch.equal(confusion, expected)


def test_figures_of_each_class():
    figures = {found.name: found for found in evaluation().per_class()}
    assert list(figures) == list("abcdefg")
    a, b, c, d = (figures[name] for name in "abcd")
    assert (a.precision, a.recall, a.f1, a.images) == (0.5, 1.0, 2 / 3, 1)
    assert (b.precision, b.recall, b.f1, b.images) == (0.5, 0.5, 0.5, 2)
    assert (c.precision, c.recall, c.f1, c.images) == (1.0, 0.5, 2 / 3, 2)
    assert (d.precision, d.recall, d.f1, d.images) == (0.0, 0.0, 0.0, 0)
    assert isinstance(a.images, int)


def test_mistakes_come_with_the_most_confident_first():
    # Confidences: exp(9) of 9.. is 0.97, exp(3) of 3, 2, 0.. is 0.62, exp(7) of 7 .. 1 is 0.63.
    assert evaluation().mistakes() == [4, 5, 2]
    assert evaluation(slice(0, 2)).mistakes() == []


def test_logits_that_are_not_finite_are_no_answer():
    """NaN would count as the largest, and so as right where its class is."""
    logits = torch.tensor([[1.0, 0.0], [float("nan"), 0.0], [0.0, float("inf")]])
    found = Evaluation(logits, torch.tensor([0, 0, 1]), ("a", "b", "c"), ("ant", "bee"))
    assert found.not_finite == ("b", "c")
    figures = found.metrics()
    assert (figures["accuracy"], figures["top5"]) == pytest.approx((1 / 3, 1 / 3))
    assert math.isnan(figures["loss"])
