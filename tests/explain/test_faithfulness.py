"""Curves of deletion and insertion, and verdicts: on models of which it is known what they look at."""

import pytest
import torch

from regard.explain.faithfulness import BEATS_BOTH, NOT_CENTRE, NOT_RANDOM, Judge, blurred, centre_map, resized_map
from regard.explain.target import Target
from regard.layers import Grid


class Looks(torch.nn.Module):
    """P(class 1) is 1 while the weighted mean of the patches is light, and falls with it; it sees nothing else."""

    num_classes = 2

    def __init__(self, weights):
        super().__init__()
        self.weights = torch.nn.Parameter(weights / weights.sum())
        self.patch_embed = torch.nn.Identity()
        self.patch_embed.patch_size, self.num_prefix_tokens = (4, 4), 0
        self.shown = 0

    def forward(self, images):
        self.shown += len(images)
        cells = torch.nn.functional.avg_pool2d(images, 4)[:, 0]
        light = (cells * self.weights).sum((1, 2)).clamp(1e-6, 1 - 1e-6)
        return torch.stack([(1 - light).log(), light.log()], dim=1)


ONE = Target((1,), "one")


def light_image(weights):
    """1 where the model looks, 0 elsewhere: both fillings take the light away."""
    return (weights > 0).float().repeat_interleave(4, 0).repeat_interleave(4, 1)[None]


def planted(places, size=8):
    weights = torch.zeros(size, size)
    for row, col in places:
        weights[row, col] = 1.0
    return weights


def test_the_right_map_beats_both_and_a_random_one_does_not():
    weights = planted([(6, 1), (6, 2)])
    judge = Judge(Looks(weights), light_image(weights), ONE)
    found = judge(weights)
    assert found.verdict == BEATS_BOTH
    assert found.line.endswith(": beats both")
    assert found.deletion < found.random < found.insertion
    verdicts = [judge(torch.rand(8, 8, generator=torch.Generator().manual_seed(i))).verdict for i in range(20)]
    assert verdicts.count(NOT_RANDOM) >= 15
    assert judge(-weights).verdict == NOT_RANDOM
    assert judge(torch.zeros(8, 8)).verdict == NOT_RANDOM


def test_a_map_of_the_centre_is_no_better_than_the_centre():
    weights = planted([(3, 3), (3, 4), (4, 3), (4, 4)])
    judge = Judge(Looks(weights), light_image(weights), ONE)
    assert judge(centre_map(Grid(8, 8))).verdict == NOT_CENTRE
    assert judge(weights).verdict == NOT_CENTRE  # it is no more than the centre


def test_areas_and_curves_by_hand():
    weights = planted([(0, 0)], size=2)
    image = torch.zeros(1, 8, 8)
    image[:, :4, :4] = 1.0
    model = Looks(weights)
    judge = Judge(model, image, ONE)
    found = judge(torch.tensor([[3.0, 2.0], [1.0, 0.0]]))
    assert found.fractions == (0, 0.25, 0.5, 0.75, 1)
    mean = found.curves["mean"]
    assert mean.deletion == pytest.approx((1, 0.25, 0.25, 0.25, 0.25), abs=1e-5)
    assert mean.insertion == pytest.approx((0.25, 1, 1, 1, 1), abs=1e-5)
    areas = [sum((a + b) / 8 for a, b in zip(c.deletion, c.deletion[1:], strict=False)) for c in found.curves.values()]
    assert found.deletion == pytest.approx(sum(areas) / 2)
    assert len(found.curves["blur"].deletion) == 5
    # 2 fillings × (2 ends + 8 random + 2 of the centre, 3 steps each); a map: 2 × 2 × 3
    assert found.shared_passes == 2 * (2 + 10 * 3)
    assert found.passes == 2 * 2 * 3
    assert model.shown == found.shared_passes + found.passes
    judge(torch.rand(2, 2))
    assert model.shown == found.shared_passes + 2 * found.passes
    assert found.to_dict()["verdict"] == found.verdict


def test_the_passes_are_bounded():
    weights = planted([(5, 5)], size=40)
    judge = Judge(Looks(weights), light_image(weights), ONE)
    found = judge(weights)
    assert len(found.fractions) == 17
    assert found.passes + found.shared_passes == 2 * (2 + 12 * 15)


def test_every_patch_has_its_turn_early_and_late_once():
    weights = planted([(2, 5)])
    judge = Judge(Looks(weights), light_image(weights), ONE)
    whole, blank = 1.0, 0.0
    assert judge.random.std(correction=0) == pytest.approx(0.286 * (whole - blank), rel=0.2)
    assert judge.random.mean() == pytest.approx(0.5, abs=0.12)


def test_a_map_on_another_grid():
    grid = Grid(2, 3)
    fine = torch.arange(24.0).reshape(4, 6)
    assert torch.equal(resized_map(fine, grid)[0], torch.tensor([3.5, 5.5, 7.5]))
    assert resized_map(torch.ones(1, 1), grid).shape == (2, 3)


def test_blur_keeps_the_mean_and_takes_what_is_small():
    image = torch.zeros(3, 32, 48)
    image[:, ::2] = 1.0
    assert blurred(image).sub(0.5).abs().max() < 0.03
    assert torch.equal(blurred(torch.ones(1, 1, 1)), torch.ones(1, 1, 1))
