"""Pseudo-values of a jackknife over groups of images."""

import numpy as np
import pytest

from regard.compare.jackknife import GROUPS, groups, pseudo_values
from regard.errors import RegardError


def test_every_image_is_in_one_group():
    found = groups(87)
    assert len(found) == GROUPS == 20
    assert sorted(np.concatenate(found)) == list(range(87))
    assert {len(group) for group in found} == {4, 5}


def test_pseudo_values_of_a_mean_are_the_means_of_the_groups():
    values = np.random.default_rng(0).normal(0, 1, 60)
    found = pseudo_values(lambda kept: float(values[kept].mean()), 60)
    assert found == pytest.approx([values[group].mean() for group in groups(60)])


def test_pseudo_values_take_the_bias_away():
    """The variance over n is too small by 1/20 for 20 images; the mean of its pseudo-values is not."""
    random, wrong, left = np.random.default_rng(0), [], []
    for values in random.normal(0, 1, (300, 20)):
        found = pseudo_values(lambda kept, values=values: float(values[kept].var()), 20, 10)
        wrong.append(values.var() - values.var(ddof=1))
        left.append(found.mean() - values.var(ddof=1))
    assert np.mean(wrong) == pytest.approx(-0.05, abs=0.005)
    assert np.mean(left) == pytest.approx(0, abs=0.005)


def test_too_few_images():
    with pytest.raises(RegardError, match="20 groups needs 40 test images at least, got 39"):
        groups(39)
