"""Scores per group of images for metrics that are no mean over images, such as AP: delete-a-group pseudo-values.

With g groups, T the metric of all images and T_(−j) that without group j, the pseudo-value of group j is
g T − (g − 1) T_(−j) (Tukey 1958). Their mean is T without its bias of order 1/n, and they stand in the place of images.
They carry verdicts: equal detectors come out different in 0.8 to 6.4% of 500 simulated comparisons each, of 40 to 400
images, one class and four, 3 to 10 seeds (benchmarks/verdicts.py).
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from regard.errors import RegardError

GROUPS = 20


def groups(images: int, number: int = GROUPS) -> list[NDArray[np.intp]]:
    """The images of each group: every g-th of them, so that it is the same for all runs. RegardError for too few."""
    if images < 2 * number:
        raise RegardError(f"a jackknife over {number} groups needs {2 * number} test images at least, got {images}")
    return [np.arange(start, images, number) for start in range(number)]


def pseudo_values(
    metric: Callable[[NDArray[np.intp]], float], images: int, number: int = GROUPS
) -> NDArray[np.float64]:
    """The pseudo-value of each group, (number,). `metric` gets the images that are left and gives their score."""
    everything = np.arange(images)
    whole = metric(everything)
    without = [metric(np.delete(everything, group)) for group in groups(images, number)]
    return number * whole - (number - 1) * np.array(without, dtype=np.float64)
