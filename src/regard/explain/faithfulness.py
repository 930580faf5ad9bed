"""Is a map true? The model is shown the image without what the map names first, and then that part alone.

Deletion: the patches leave the image in the order of the map, and the measure (the class's probability; without a head
the cosine with the whole image's features) should fall soon. Insertion: they appear in that order, and it should rise
soon. What is not there is blurred, or has the mean colour; a figure is the mean of both. Each is the area under its
curve, against the fraction of patches: 0 to 1 for a probability.

Beside the map stand eight random ones and one that knows the centre alone. The eight are one random order, each begun
an eighth further on, so that every patch has its turn early and late once. Removing an order is adding the reverse
order backwards, so that random insertion has the distribution of random deletion.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from regard.explain.maps import grid_of
from regard.explain.sites import evaluating
from regard.explain.target import Target
from regard.layers import Grid

STEPS = 16
NUM_RANDOM = 8
BATCH = 16
# A map beats chance by so many deviations of the random maps below their mean, and the centre by a tenth of one.
BEYOND, BEYOND_CENTRE = 1.25, 0.1

BEATS_BOTH, NOT_CENTRE, NOT_RANDOM = "beats both", "no better than the centre", "no better than random"


@dataclass(frozen=True)
class Curve:
    """The measure after each fraction of the patches, with one way of filling in what is not there."""

    deletion: tuple[float, ...]
    insertion: tuple[float, ...]


@dataclass(frozen=True)
class Faithfulness:
    """The areas of a map, of random ones and of the centre, and the verdict in words."""

    deletion: float
    insertion: float
    random: float
    """The mean of `NUM_RANDOM` random maps' deletion areas; also of their insertion areas."""
    deviation: float
    """Their standard deviation."""
    centre_deletion: float
    centre_insertion: float
    measured: str
    fractions: tuple[float, ...]
    curves: Mapping[str, Curve]
    """Of the map, by the way of filling in: "blur" and "mean"."""
    passes: int
    """Images that the model was shown for this map; what random maps and the centre took once is in `shared_passes`."""
    shared_passes: int

    @property
    def verdict(self) -> str:
        """ "beats both", "no better than the centre" or "no better than random", by deletion."""
        if not self.deletion < self.random - BEYOND * self.deviation:
            return NOT_RANDOM
        beats_centre = self.deletion < self.centre_deletion - BEYOND_CENTRE * self.deviation
        return BEATS_BOTH if beats_centre else NOT_CENTRE

    @property
    def line(self) -> str:
        """ "deletion 0.28; random 0.38 ± 0.01; centre 0.31: beats both"."""
        return (
            f"deletion {self.deletion:.2f}; random {self.random:.2f} ± {self.deviation:.2f}; "
            f"centre {self.centre_deletion:.2f}: {self.verdict}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        values = {**vars(self), "verdict": self.verdict, "line": self.line}
        values["curves"] = {name: vars(curve) for name, curve in self.curves.items()}
        return values


class Judge:
    """Judges maps of one image. What is the same for all maps, the random ones and the centre, is measured once."""

    def __init__(
        self, model: nn.Module, image: Float[Tensor, "channels height width"], target: Target, *, seed: int = 0
    ) -> None:
        """image: preprocessed, of the size at which the model is shown its parts. A target of the whole image."""
        self.model, self.image, self.target = model, image, target
        self.grid = grid_of(model, image[None])
        self.counts = _counts(self.grid.num_patches)
        self.fills = {"blur": blurred(image), "mean": image.mean((1, 2), keepdim=True).expand_as(image)}
        self.passes = 0
        self._ends: dict[str, tuple[float, float]] = {}
        generator = torch.Generator().manual_seed(seed)
        self._tie_breaker = torch.randperm(self.grid.num_patches, generator=generator)
        base = torch.randperm(self.grid.num_patches, generator=generator)
        shifts = [number * self.grid.num_patches // NUM_RANDOM for number in range(NUM_RANDOM)]
        orders = [base.roll(-shift) for shift in shifts]
        random = [self._curves(order, insertion=False) for order in orders]
        self.random = torch.tensor([self._areas(curves)[0] for curves in random], dtype=torch.float64)
        centre = self._curves(self.order(centre_map(self.grid)))
        self.centre = self._areas(centre)
        # What a map's own curve of deletion is drawn beside.
        self.random_deletion = mean_deletion(*random)
        self.centre_deletion = mean_deletion(centre)
        self.shared_passes = self.passes

    def __call__(self, found: Float[Tensor, "rows columns"]) -> Faithfulness:
        """The verdict on a map, whose grid may be another."""
        before = self.passes
        curves = self._curves(self.order(found))
        deletion, insertion = self._areas(curves)
        return Faithfulness(
            deletion,
            insertion,
            random=self.random.mean().item(),
            deviation=self.random.std(correction=0).item(),
            centre_deletion=self.centre[0],
            centre_insertion=self.centre[1],
            measured=self.target.measured,
            fractions=tuple(count / self.grid.num_patches for count in self.counts),
            curves=curves,
            passes=self.passes - before,
            shared_passes=self.shared_passes,
        )

    def order(self, found: Float[Tensor, "rows columns"]) -> Int64[Tensor, " patches"]:
        """The patches of the judge's grid by their value, the largest first; equal ones in a random order."""
        values = resized_map(found.detach().cpu().double(), self.grid).flatten()
        mixed = self._tie_breaker
        return mixed[values[mixed].argsort(descending=True, stable=True)]

    def _curves(self, order: Tensor, *, insertion: bool = True) -> dict[str, Curve]:
        there = torch.ones(len(self.counts), self.grid.num_patches)
        for step, count in enumerate(self.counts):
            there[step, order[:count]] = 0
        curves = {}
        for fill in self.fills:
            whole, blank = self._end_values(fill)
            deletion = (whole, *self._measured(there[1:-1], fill), blank)
            inserted = (blank, *self._measured(1 - there[1:-1], fill), whole) if insertion else ()
            curves[fill] = Curve(deletion, inserted)
        return curves

    def _end_values(self, fill: str) -> tuple[float, float]:
        """Of the whole image, and of nothing but filling."""
        if fill not in self._ends:
            ends = torch.ones(2, self.grid.num_patches)
            ends[1] = 0
            whole, blank = self._measured(ends, fill)
            self._ends[fill] = (whole, blank)
        return self._ends[fill]

    @torch.no_grad()
    def _measured(self, there: Float[Tensor, "images patches"], fill: str) -> tuple[float, ...]:
        """The measure of the image with some patches filled in; `there` is 1 where a patch is left as it is."""
        self.passes += len(there)
        values: list[float] = []
        with evaluating(self.model):
            for some in there.split(BATCH):
                cells = some.to(self.image).unflatten(1, (1, self.grid.height, self.grid.width))
                kept = F.interpolate(cells, size=self.image.shape[1:], mode="nearest")
                images = torch.where(kept > 0, self.image, self.fills[fill])
                values += self.target.measure(self.model(images)).double().tolist()
        return tuple(values)

    def _areas(self, curves: Mapping[str, Curve]) -> tuple[float, float]:
        """The areas under the curves of deletion and insertion, as the mean over ways of filling in."""
        widths = torch.tensor(self.counts).double().diff() / self.grid.num_patches

        def area(kind: str) -> float:
            heights = torch.tensor([getattr(curve, kind) for curve in curves.values()], dtype=torch.float64)
            if not heights.numel():
                return float("nan")
            return ((heights[:, 1:] + heights[:, :-1]) / 2 @ widths).mean().item()

        return area("deletion"), area("insertion")


def mean_deletion(*curves: Mapping[str, Curve]) -> list[float]:
    """The mean curve of deletion, over ways of filling in."""
    heights = torch.tensor([curve.deletion for each in curves for curve in each.values()], dtype=torch.float64)
    return heights.mean(0).tolist()


def blurred(image: Float[Tensor, "channels height width"]) -> Float[Tensor, "channels height width"]:
    """The image after a Gaussian blur whose deviation is an eighth of the shorter side."""
    from torchvision.transforms.v2 import functional

    side = min(image.shape[1:])
    sigma = max(side / 8, 1.0)
    size = 2 * min(int(1.5 * sigma), (side - 1) // 2) + 1
    return functional.gaussian_blur(image, [size, size], [sigma, sigma]) if size > 1 else image


def centre_map(grid: Grid) -> Float[Tensor, "rows columns"]:
    """A map that knows nothing but the centre: minus the distance from it, in patches."""
    rows = torch.arange(grid.height) - (grid.height - 1) / 2
    columns = torch.arange(grid.width) - (grid.width - 1) / 2
    return -(rows[:, None].square() + columns.square()).sqrt()


def resized_map(found: Float[Tensor, "rows columns"], grid: Grid) -> Float[Tensor, "new_rows new_columns"]:
    """A map on another grid: means where it is coarser, interpolated where it is finer."""
    size = (grid.height, grid.width)
    if tuple(found.shape) == size:
        return found
    if found.shape[0] >= size[0] and found.shape[1] >= size[1]:
        return F.adaptive_avg_pool2d(found[None, None], size)[0, 0]
    return F.interpolate(found[None, None], size=size, mode="bilinear", align_corners=False)[0, 0]


def _counts(patches: int) -> Sequence[int]:
    steps = min(STEPS, patches)
    return [round(step * patches / steps) for step in range(steps + 1)]
