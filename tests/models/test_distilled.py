"""A student and its teacher's features: averaged to one grid, standardised, and predicted by linear maps."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from regard.models import Features, SASAResNetConfig, Student, ViT, ViTConfig, build, features_of
from regard.models.distilled import averaged

SMALL = {"img_size": (15, 21), "patch_size": 3, "num_classes": 11, "embed_dim": 22, "depth": 1, "num_heads": 2}


def vit(**changes: object) -> ViT:
    model = build(ViTConfig(**SMALL | changes))  # type: ignore[arg-type]
    assert isinstance(model, ViT)
    return model


def features(images: int = 7, channels: int = 5, grid: tuple[int, int] = (2, 3)) -> Features:
    return Features(3 * torch.randn(images, 13) + 2, 0.1 * torch.randn(images, channels, *grid) - 4)


@pytest.mark.parametrize(
    ("grid", "wanted"), [((6, 15), (2, 5)), ((7, 11), (3, 2)), ((5, 13), (4, 13)), ((2, 3), (1, 1))]
)
def test_a_map_is_averaged_over_the_parts_that_belong_to_a_place(grid, wanted):
    """Place i of n covers the rows from ⌊i h / n⌋ to ⌈(i + 1) h / n⌉: all of the same number where n divides h."""
    pixels = torch.randn(2, 3, *grid, dtype=torch.float64, requires_grad=True)
    found = averaged(pixels, wanted)
    rows, columns = (
        [(i * side // n, -(-(i + 1) * side // n)) for i in range(n)] for side, n in zip(grid, wanted, strict=True)
    )
    parts = [[pixels[:, :, top:bottom, left:right].mean((2, 3)) for left, right in columns] for top, bottom in rows]
    exact = torch.stack([torch.stack(row, dim=2) for row in parts], dim=2)
    assert_close(found, exact)
    weights = torch.randn_like(found)
    assert_close(
        torch.autograd.grad((found * weights).sum(), pixels), torch.autograd.grad((exact * weights).sum(), pixels)
    )


def test_a_map_is_never_made_finer():
    pixels = torch.randn(2, 3, 5, 7)
    assert averaged(pixels, (11, 13)) is pixels
    assert torch.equal(averaged(pixels, (11, 7)), pixels)
    assert_close(averaged(pixels, (11, 1)), pixels.mean(3, keepdim=True))


@pytest.mark.parametrize("pool", ["token", "avg", "token_avg"])
def test_features_are_what_the_head_reads_and_the_map_and_the_logits(pool):
    model, images = vit(pool=pool).eval(), torch.randn(2, 3, 15, 21)
    found = features_of(model, images, (5, 7))
    tokens = model.forward_features(images)
    assert torch.equal(found.pooled, model.pool(tokens))
    assert torch.equal(found.pixels.flatten(2).transpose(1, 2), tokens[:, model.grid.prefix :])
    assert_close(found.logits, model(images))
    assert features_of(vit(num_classes=0), images, (5, 7)).logits is None
    assert features_of(model, images, (2, 3)).pixels.shape == (2, 22, 2, 3)


def test_standardised_features_have_a_mean_of_zero_and_a_deviation_of_one():
    student, theirs = Student(vit(), 13, 5, (2, 3)), features(images=101)
    student.standardise(theirs.pooled, theirs.pixels.permute(0, 2, 3, 1).flatten(0, 2))
    found = student.standardised(theirs)
    for values in (found.pooled, found.pixels.permute(0, 2, 3, 1).flatten(0, 2)):
        assert_close(values.mean(0), torch.zeros(values.shape[1]), atol=1e-4, rtol=0)
        assert_close(values.std(0), torch.ones(values.shape[1]), atol=1e-2, rtol=0)
    exact = theirs.pooled.double()
    wanted = (exact - exact.mean(0)) / (exact - exact.mean(0)).square().mean(0).sqrt()
    assert_close(found.pooled.double(), wanted, atol=1e-4, rtol=1e-4)
    # They are kept with the student, so that one that resumes has the same targets.
    other = Student(vit(), 13, 5, (2, 3))
    other.load_state_dict(student.state_dict())
    assert torch.equal(other.standardised(theirs).pixels, found.pixels)


def test_a_channel_that_never_varies_is_zero_and_so_is_a_single_image():
    student, theirs = Student(vit(), 13, 5, (2, 3)), features()
    theirs.pooled[:, 3], theirs.pixels[:, 2] = 7.0, -1.0
    student.standardise(theirs.pooled, theirs.pixels.permute(0, 2, 3, 1).flatten(0, 2))
    found = student.standardised(theirs)
    assert torch.equal(found.pooled[:, 3], torch.zeros(7))
    assert torch.equal(found.pixels[:, 2], torch.zeros(7, 2, 3))
    assert found.pooled.isfinite().all()
    student.standardise(theirs.pooled[:1], theirs.pixels[:1].permute(0, 2, 3, 1).flatten(0, 2))
    assert torch.equal(student.standardised(Features(theirs.pooled[:1], theirs.pixels[:1])).pooled, torch.zeros(1, 13))


def test_a_student_predicts_by_a_linear_map_of_its_own_features():
    student, images = Student(vit(), 13, 5, (2, 3)).double(), torch.randn(2, 3, 15, 21).double()
    found, own = student(images), features_of(student.model, images, (2, 3))
    assert_close(found.pooled, own.pooled @ student.pooled.weight.T + student.pooled.bias)
    for row in range(2):
        for column in range(3):
            wanted = student.pixels(own.pixels[:, :, row, column])
            assert_close(found.pixels[:, :, row, column], wanted)
    assert_close(found.logits, student.model(images))


def test_a_network_of_stages_can_be_a_student():
    model = build(SASAResNetConfig(num_classes=0, embed_dim=8, depths=(1, 1), stem="small", num_heads=2, window=3))
    student, images = Student(model, 13, 5, (2, 3)), torch.randn(2, 3, 8, 12)
    found: Features = student(images)
    assert (found.pooled.shape, found.pixels.shape, found.logits) == ((2, 13), (2, 5, 2, 3), None)
    sum_of: Tensor = found.pooled.sum() + found.pixels.sum()
    sum_of.backward()
    assert all(parameter.grad is not None for parameter in student.parameters())
