"""Scores of contenders whose truth is known, to prove the verdicts with."""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri

from regard.errors import RegardError


def simulate(
    accuracies: Sequence[float],
    runs: int,
    images: int,
    *,
    seed_sd: float | Sequence[float] = 0.005,
    shared: float = 0.5,
    own: float = 0.1,
    seed: int | np.random.Generator = 0,
) -> NDArray[np.float64]:
    """X of contenders whose true accuracies are known, (contenders, runs, images) of 0 and 1.

    x_cri = [μ_c + √shared u_i + √own v_ci + τ_c w_cr + e_cri > 0] with standard normal draws: images are hard for all
    (u) or for one contender (v), whole runs are good or bad (w). shared, own: fractions of the variance; the rest is
    of the run and the image. seed_sd: the standard deviation of a run's accuracy between seeds, of each or of all.
    """
    random, count = np.random.default_rng(seed), len(accuracies)
    sds = [float(sd) for sd in np.broadcast_to(seed_sd, count)]
    if not (min(shared, own) >= 0 and shared + own <= 1):
        raise RegardError(f"simulate: shared and own are parts of 1, got {shared} and {own}")
    if not all(0 < p < 1 for p in accuracies):
        raise RegardError(f"simulate: accuracies must lie between 0 and 1, got {list(accuracies)}")
    tau = np.array([_latent_sd(p, sd) for p, sd in zip(accuracies, sds, strict=True)])
    mean = ndtri(np.asarray(accuracies)) * np.sqrt(1 + tau**2)
    hardness = math.sqrt(shared) * random.standard_normal(images) + math.sqrt(own) * random.standard_normal(
        (count, images)
    )
    run = mean[:, None] + tau[:, None] * random.standard_normal((count, runs))
    rest = math.sqrt(1 - shared - own) * random.standard_normal((count, runs, images))
    return (run[:, :, None] + hardness[:, None] + rest > 0).astype(np.float64)


@lru_cache(maxsize=256)
def _latent_sd(accuracy: float | int, sd: float | int) -> float:
    """τ for which Φ(μ + τ w) has mean `accuracy` and standard deviation `sd`."""
    if sd == 0:
        return 0.0
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)

    def excess(tau: float | int) -> float:
        run = ndtr(ndtri(accuracy) * math.sqrt(1 + tau * tau) + tau * nodes)
        return math.sqrt(float(weights @ (run - accuracy) ** 2) / math.sqrt(2 * math.pi)) - sd

    if excess(3.0) < 0:
        raise RegardError(f"simulate: runs of accuracy {accuracy} cannot differ by a deviation of {sd}")
    return float(brentq(excess, 0.0, 3.0))
