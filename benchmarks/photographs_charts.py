"""The records of `photographs.py`, and the two charts of docs/your-own-photographs.md."""

from collections.abc import Sequence
from statistics import median
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from photographs import DETECTORS, MINUTES, NUMBERS, PEERS, WAYS

Record = dict[str, Any]
COLOURS = {
    "detr-photos": "#2080c3",
    "detr-small-pretrained": "#009e73",
    "detr-small": "#56b4e9",
    "faster-rcnn-dinov2": "#d55e00",
    "faster-rcnn-lite0": "#e69f00",
    "rt-detr-lite0": "#cc79a7",
    "rt-detr": "#8f8f96",
    "faster-rcnn": "#b8a37a",
    "ssdlite": "#555555",
    "yolo": "#000000",
}


class Cells(NamedTuple):
    """The records of the results file."""

    records: Sequence[Record]

    def of(self, data: str, way: str, minutes: int) -> list[Record]:
        """One for each seed."""
        wanted = (data, way, minutes)
        return [one for one in self.measured() if (one["data"], one["way"], one["minutes"]) == wanted]

    def measured(self) -> list[Record]:
        """All but those that a peer's settings were chosen from."""
        return [one for one in self.records if not one.get("tried")]

    def values(self, data: str, way: str, minutes: int, figure: str) -> list[float]:
        return [one[figure] for one in self.of(data, way, minutes) if one.get(figure) is not None]


def curves(cells: Cells) -> Figure:
    chart = Figure(figsize=(9.0, 3.8), layout="constrained")
    axes = chart.subplots(1, 2, sharey=True)
    for data, one in zip(("raccoon", "bccd"), axes, strict=True):
        for way in (*DETECTORS, *PEERS):
            known = {minutes: cells.values(data, way, minutes, "ap") for minutes in sorted(MINUTES)}
            band(one, {minutes: found for minutes, found in known.items() if found}, way, WAYS[way].label.strip("`"))
        one.set(title=data, xlabel="minutes of wall time", xticks=sorted(MINUTES), ylim=(-0.02, 1))
        one.grid(alpha=0.2)
    axes[0].set_ylabel("AP on the held-out images")
    handles = {label: handle for one in axes for handle, label in zip(*one.get_legend_handles_labels(), strict=True)}
    if handles:
        chart.legend(handles.values(), handles.keys(), loc="outside right upper", frameon=False, fontsize=7)
    return chart


def numbers(cells: Cells, digits: dict[int, list[float]]) -> Figure:
    chart = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = chart.add_subplot()
    sets = {number: f"raccoon-{number}" for number in NUMBERS} | {160: "raccoon"}
    known = {number: cells.values(data, "detr-photos", 10, "ap") for number, data in sets.items()}
    band(axes, {number: found for number, found in known.items() if found}, "detr-photos", "raccoons, detr-photos")
    band(axes, dict(sorted(digits.items())), "detr-small", "digits in scenes, detr-small")
    ticks = sorted({*sets, *digits})
    axes.set(xscale="log", xlabel="training images", ylabel="AP on the held-out images", ylim=(-0.02, 1))
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks], fontsize=7)
    axes.minorticks_off()
    axes.grid(alpha=0.2)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=8)
    return chart


def band(axes: Any, known: dict[int, list[float]], way: str, label: str) -> None:
    """The median over the seeds as a line, the least to the most as a band; nothing where nothing is known."""
    if not known:
        return
    style = "-" if way in DETECTORS else "--"
    middle, least, most = ([end(found) for found in known.values()] for end in (median, min, max))
    axes.plot(list(known), middle, f"o{style}", ms=4, color=COLOURS[way], label=label)
    axes.fill_between(list(known), least, most, color=COLOURS[way], alpha=0.15, lw=0)
