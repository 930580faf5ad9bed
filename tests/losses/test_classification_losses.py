"""The losses of classification: against torch, torchvision and scikit-learn."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.utils.class_weight import compute_class_weight
from torchvision.ops import sigmoid_focal_loss

from regard.losses import balanced_weights, sigmoid_loss, softmax_loss

LOGITS = torch.linspace(-3, 4, 35, dtype=torch.float64).reshape(7, 5)[:, torch.tensor([2, 0, 4, 1, 3])] * torch.tensor(
    [1.0, -1, 2, 0.5, -0.3], dtype=torch.float64
)
CLASSES = torch.tensor([0, 1, 2, 3, 4, 1, 1])
HAVING = (torch.arange(35).reshape(7, 5) % 3 == 0).long()
WEIGHTS = torch.tensor([0.5, 1.0, 2.0, 3.0, 0.25])


def test_plain_they_are_torchs():
    assert torch.equal(softmax_loss(LOGITS, CLASSES), F.cross_entropy(LOGITS, CLASSES))
    assert torch.equal(
        softmax_loss(LOGITS, CLASSES, smoothing=0.1), F.cross_entropy(LOGITS, CLASSES, label_smoothing=0.1)
    )
    wanted = F.binary_cross_entropy_with_logits(LOGITS, HAVING.double())
    torch.testing.assert_close(sigmoid_loss(LOGITS, HAVING), wanted)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 5.0])
def test_focal_loss_of_several_labels_is_torchvisions(gamma):
    wanted = sigmoid_focal_loss(LOGITS, HAVING.double(), alpha=-1, gamma=gamma, reduction="mean")
    torch.testing.assert_close(sigmoid_loss(LOGITS, HAVING, gamma=gamma), wanted)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_loss_of_one_class_is_its_definition(gamma):
    p = LOGITS.softmax(1)[torch.arange(7), CLASSES]
    wanted = (-((1 - p) ** gamma) * p.log()).mean()
    torch.testing.assert_close(softmax_loss(LOGITS, CLASSES, gamma=gamma), wanted)
    soft = F.one_hot(CLASSES, 5).double()
    torch.testing.assert_close(softmax_loss(LOGITS, soft, gamma=gamma), wanted)
    mixed = 0.3 * soft + 0.7 * soft.roll(1, 0)
    every = -((1 - LOGITS.softmax(1)) ** gamma) * LOGITS.log_softmax(1)
    torch.testing.assert_close(softmax_loss(LOGITS, mixed, gamma=gamma), (mixed * every).sum(1).mean())


def test_weights_count_the_classes():
    each = F.cross_entropy(LOGITS, CLASSES, reduction="none")
    wanted = (WEIGHTS[CLASSES] * each).mean()
    torch.testing.assert_close(softmax_loss(LOGITS, CLASSES, weights=WEIGHTS), wanted)
    # torch divides by the sum of the batch's weights instead.
    theirs = F.cross_entropy(LOGITS, CLASSES, weight=WEIGHTS.double(), label_smoothing=0.2)
    ours = softmax_loss(LOGITS, CLASSES, weights=WEIGHTS, smoothing=0.2)
    torch.testing.assert_close(ours * 7 / WEIGHTS[CLASSES].sum(), theirs)
    pair = torch.stack([torch.ones(5), WEIGHTS])
    theirs = F.binary_cross_entropy_with_logits(LOGITS, HAVING.double(), pos_weight=WEIGHTS.double())
    torch.testing.assert_close(sigmoid_loss(LOGITS, HAVING, weights=pair), theirs)
    mixed = 0.7 * HAVING.double() + 0.3 * HAVING.roll(1, 0)
    theirs = F.binary_cross_entropy_with_logits(LOGITS, mixed, pos_weight=WEIGHTS.double())
    torch.testing.assert_close(sigmoid_loss(LOGITS, mixed, weights=pair), theirs)


def test_smoothing_of_several_labels():
    soft = 0.8 * HAVING.double() + 0.1
    wanted = F.binary_cross_entropy_with_logits(LOGITS, soft)
    torch.testing.assert_close(sigmoid_loss(LOGITS, HAVING, smoothing=0.2), wanted)


@pytest.mark.parametrize("loss", [softmax_loss, sigmoid_loss])
@pytest.mark.parametrize("gamma", [0.3, 2.0])
def test_gradients_stay_finite_where_the_model_is_sure(loss, gamma):
    logits = torch.tensor([[90.0, -90, -90], [-90, 90, -90]], requires_grad=True)
    targets = torch.tensor([0, 0]) if loss is softmax_loss else torch.tensor([[1, 0, 0], [1, 0, 0]])
    loss(logits, targets, gamma=gamma).backward()
    assert logits.grad.isfinite().all()
    assert logits.grad[1].abs().max() > 0.1, "what is wrong still counts"


def test_half_precision_is_computed_in_full():
    found = softmax_loss(LOGITS.bfloat16(), CLASSES, gamma=2.0)
    assert found.dtype == torch.float32


def test_balanced_weights_are_scikit_learns():
    labels = np.array([0] * 70 + [1] * 20 + [2] * 7 + [3] * 3)
    wanted = compute_class_weight("balanced", classes=np.arange(4), y=labels)
    found = balanced_weights(torch.from_numpy(labels), 4)
    torch.testing.assert_close(found, torch.from_numpy(wanted).float())
    assert found[torch.from_numpy(labels)].mean().item() == pytest.approx(1.0)
    having = (np.random.default_rng(0).random((50, 4)) < [0.1, 0.5, 0.02, 0.8]).astype(int)
    pairs = balanced_weights(torch.from_numpy(having), 4)
    for label in range(4):
        theirs = compute_class_weight("balanced", classes=np.unique(having[:, label]), y=having[:, label])
        torch.testing.assert_close(pairs[:, label], torch.from_numpy(theirs).float())


def test_what_does_not_occur_has_weight_one():
    assert balanced_weights(torch.tensor([0, 0, 2, 2]), 3).tolist() == [1.0, 1.0, 1.0]
    assert balanced_weights(torch.tensor([0, 0, 0, 2]), 3).tolist() == pytest.approx([4 / 6, 1.0, 2.0])
    assert balanced_weights(torch.tensor([[0, 1], [0, 1]]), 2).tolist() == [[1.0, 1.0], [1.0, 1.0]]
