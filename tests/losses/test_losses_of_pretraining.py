"""The losses of pre-training against their definitions in float64, values and gradients."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from regard.losses import feature_loss, masked_loss, normalised_patches, soft_target_loss


def same(ours: Tensor, ours_in: Tensor, definition: Tensor, in_float64: Tensor) -> None:
    """Asserts that a loss and its gradient are those of the definition, which was computed in float64."""
    assert ours.dtype == torch.float32
    assert definition.dtype == torch.float64
    assert_close(ours.double(), definition, rtol=1e-5, atol=1e-6)
    (found,) = torch.autograd.grad(ours, ours_in)
    (wanted,) = torch.autograd.grad(definition, in_float64)
    assert found.abs().max() > 0
    assert_close(found.double(), wanted, rtol=1e-5, atol=1e-7)


def leaves(*shape: int) -> tuple[Tensor, Tensor]:
    """The same random numbers in float32 and in float64, of which both want a gradient; many beyond ± 1."""
    values = 2 * torch.randn(*shape)
    return values.clone().requires_grad_(), values.double().requires_grad_()


@pytest.mark.parametrize("shape", [(3, 7), (2, 5, 3, 11)])
def test_the_loss_of_features_is_hubers(shape):
    (found, exact), wanted = leaves(*shape), torch.randn(*shape)
    distance = (exact - wanted.double()).abs()
    assert 0 < (distance < 1).sum() < distance.numel()
    definition = torch.where(distance < 1, distance**2 / 2, distance - 0.5).mean()
    same(feature_loss(found, wanted), found, definition, exact)
    assert feature_loss(wanted, wanted) == 0


def test_half_precision_is_no_reason_to_lose_the_loss():
    """Their differences would be lost in bf16, and the sum of fp16's squares would be infinite."""
    low, values = torch.full((3, 257), 256.0, dtype=torch.float16), torch.full((3, 257), 0.5)
    assert feature_loss(low, values) == 255
    assert masked_loss(low[:, None], values[:, None], torch.ones(3, 1, dtype=torch.bool), power=2) == 255.5**2
    logits = torch.tensor([[300.0, 1.0, -200.0]], dtype=torch.bfloat16)
    assert soft_target_loss(logits, logits) == 0


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_loss_of_classes_is_hintons(temperature):
    (found, exact), theirs = leaves(5, 7), 2 * torch.randn(5, 7)
    ours, wanted = (
        values.exp() / values.exp().sum(1, keepdim=True)
        for values in (exact / temperature, theirs.double() / temperature)
    )
    definition = temperature**2 * (wanted * (wanted / ours).log()).sum(1).mean()
    same(soft_target_loss(found, theirs, temperature=temperature), found, definition, exact)
    # That of torch, whose arguments come in the other order.
    torchs = F.kl_div((exact / temperature).log_softmax(1), wanted, reduction="batchmean") * temperature**2
    assert_close(soft_target_loss(found, theirs, temperature=temperature).double(), torchs, rtol=1e-5, atol=1e-6)


def test_equal_logits_cost_nothing_and_neither_does_what_is_added_to_all_of_an_image():
    found = torch.randn(5, 7, requires_grad=True)
    loss = soft_target_loss(found, found.detach() + torch.randn(5, 1), temperature=2.0)
    assert_close(loss, torch.zeros(()), atol=1e-6, rtol=0)
    (gradient,) = torch.autograd.grad(loss, found)
    assert gradient.abs().max() < 1e-6


def test_the_gradient_at_a_high_temperature_is_that_of_the_squares_of_centred_logits():
    """(s - t) / (N n): Hinton et al. 2015, section 2.1, equation 4, for logits of mean zero. So T² keeps its size."""
    found = torch.randn(5, 7)
    found = (found - found.mean(1, keepdim=True)).requires_grad_()
    theirs = torch.randn(5, 7)
    theirs -= theirs.mean(1, keepdim=True)
    (gradient,) = torch.autograd.grad(soft_target_loss(found, theirs, temperature=100.0), found)
    assert_close(gradient, (found - theirs).detach() / (7 * 5), rtol=0.05, atol=1e-3)


def test_a_certain_teacher_gives_the_cross_entropy_of_its_class():
    found, classes = torch.randn(5, 7), torch.tensor([0, 6, 3, 3, 1])
    certain = 1000.0 * F.one_hot(classes, 7)
    assert_close(soft_target_loss(found, certain), F.cross_entropy(found, classes))


def test_normalised_patches_have_a_mean_of_zero_and_a_deviation_of_one():
    patches = 3 * torch.randn(2, 5, 3, dtype=torch.float64) + 7
    found = normalised_patches(patches)
    for image in range(2):
        for place in range(5):
            values = patches[image, place].tolist()
            mean = sum(values) / 3
            variance = sum((value - mean) ** 2 for value in values) / 2  # that of a sample, as in the authors' code
            wanted = [(value - mean) / math.sqrt(variance + 1e-6) for value in values]
            assert found[image, place].tolist() == pytest.approx(wanted, rel=1e-12)
    assert torch.equal(normalised_patches(torch.full((2, 5, 3), 0.25)), torch.zeros(2, 5, 3))  # of one colour


@pytest.mark.parametrize("power", [1, 2])
def test_the_loss_of_hidden_patches_is_over_these_alone(power):
    (found, exact), wanted = leaves(3, 7, 5), torch.randn(3, 7, 5)
    hidden = torch.rand(3, 7) < 0.6
    hidden[0], hidden[1, 0] = False, True  # an image may have none
    total, count = torch.zeros((), dtype=torch.float64), 0
    for image, place in hidden.nonzero().tolist():
        total = total + ((exact[image, place] - wanted[image, place].double()).abs() ** power).sum()
        count += 5
    same(masked_loss(found, wanted, hidden, power=power), found, total / count, exact)
    poisoned = torch.where(hidden[..., None], found, torch.nan)
    assert masked_loss(poisoned, wanted, hidden, power=power) == masked_loss(found, wanted, hidden, power=power)
