"""Writes docs/how-many-images.md and its chart from what `detection_small.py` measured so far.

Run: .venv/bin/python benchmarks/detection_small.py images ablation; .venv/bin/python benchmarks/how_many_images.py
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from matplotlib.figure import Figure

from peer import result_path

DOCS = Path(__file__).parents[1] / "docs"
NAMES = {
    "dn_detr": "`detr-small`",
    "dn_detr without denoising": "the same without denoising",
    "dn_detr pretrained": "`detr-small-pretrained`",
    "rt_detr": "RT-DETR (transformers)",
    "detr": "plain DETR",
}
COLOURS = {"dn_detr": "#2080c3", "dn_detr pretrained": "#009e73", "rt_detr": "#d55e00", "detr": "#8f8f96"}
LONG = ("curves", "few", "pretrained")  # parts whose runs have all cores and the most minutes
WHOLE = "all parts"
ABLATIONS = ("ablation_few", "ablation")
Runs = list[dict[str, Any]]
Scores = dict[str, dict[int, list[float]]]


def main() -> None:
    path = result_path("detection_small")
    record = json.loads(path.read_text(encoding="utf-8"))
    text = text_of(record)  # first, since nothing is written where a part is missing
    chart(scores_of(list(record["results"]["images"].values()))).savefig(
        DOCS / "how-many-images.svg", bbox_inches="tight"
    )
    (DOCS / "how-many-images.md").write_text(text, encoding="utf-8")
    print(f"wrote {DOCS / 'how-many-images.md'}")


def text_of(record: dict[str, Any]) -> str:
    """The page. SystemExit where a part is not measured."""
    parts: dict[str, dict[str, Any]] = {part: record["results"].get(part, {}) for part in ("images", *LONG, *ABLATIONS)}
    missing = [part for part in ("images", "curves", *ABLATIONS) if not parts[part]]
    if missing:
        raise SystemExit(f"{missing[0]} is missing; measure it first: detection_small.py {missing[0]}")
    by_images, long = list(parts["images"].values()), [run for part in LONG for run in parts[part].values()]
    scores = scores_of(by_images)
    return TEXT.format(
        by_images=table(scores),
        budget=budget(by_images),
        seeds=seeds(by_images),
        long=table(scores_of(long)),
        long50=table(scores_of(long, "ap50")),
        long_budget=budget(long),
        minutes=by_minute([*parts["curves"].values(), *parts["pretrained"].values()]),
        ablation=ablation(*(parts[part] for part in ABLATIONS)),
        ablation_budget=budget(run for part in ABLATIONS for run in parts[part].values()),
        processor=f"an {record['machine']['processor']} with {record['machine']['cores']} cores",
        date=record["date"],
    )


def budget(runs: Iterable[dict[str, Any]]) -> str:
    """The one time that all runs had; whoever mixed several is told."""
    found = {(run["minutes"], run.get("threads", 2)) for run in runs}
    if len(found) != 1:
        raise SystemExit(f"runs of several (minutes, threads) are no table: {sorted(found)}")
    minutes, threads = found.pop()
    return f"{minutes:g} minutes of {'one core' if threads == 1 else f'{threads} cores'}"


def seeds(runs: Runs) -> str:
    """How many runs, which seeds and how many steps its slowest and its fastest run made."""
    by_model: dict[str, Runs] = defaultdict(list)
    for run in runs:
        by_model[run["model"]].append(run)
    told = []
    for name, found in by_model.items():
        drawn, steps = sorted({run["seed"] for run in found}), [run["steps"] for run in found]
        which = f"seed{'s' * (len(drawn) > 1)} {', '.join(map(str, drawn))}"
        told.append(f"- {NAMES[name]}: {len(found)} runs, {which}, {min(steps)} to {max(steps)} steps")
    return "\n".join(told)


def scores_of(runs: Runs, figure: str = "ap") -> Scores:
    """A figure of each model, number of scenes and seed; a run that diverged counts as nothing found."""
    found: Scores = {name: defaultdict(list) for name in NAMES}
    for run in runs:
        found[run["model"]][run["scenes"]].append(run[figure])
    return {name: of_model for name, of_model in found.items() if of_model}


def table(scores: Scores) -> str:
    sizes = sorted({size for of_model in scores.values() for size in of_model})
    rows = [[f"{size:,}", *(cell(of_model.get(size, [])) for of_model in scores.values())] for size in sizes]
    return markdown(["training scenes", *(NAMES[name] for name in scores)], rows)


def by_minute(runs: Iterable[dict[str, Any]]) -> str:
    """The median AP over the seeds, minute by minute."""
    curves: dict[str, list[list[float]]] = defaultdict(list)
    for run in runs:
        curves[run["model"]].append([point["ap"] for point in run["curve"]])
    rows = [
        [NAMES[name], str(len(of_model)), *(f"{median(aps):.2f}" for aps in zip(*of_model, strict=True))]
        for name, of_model in curves.items()
    ]
    return markdown(["minute", "seeds", *map(str, range(1, len(rows[0]) - 1))], rows)


def ablation(*parts: dict[str, dict[str, Any]]) -> str:
    """What differs, and the AP that is left with so many scenes and what that is more or less; all parts first."""
    by_what: list[dict[str, Runs]] = [defaultdict(list) for _ in parts]
    for part, found in zip(parts, by_what, strict=True):
        for key, run in part.items():
            found[key.split(" seed ")[0]].append(run)
    rows = {what: [what] for found in by_what for what in found}
    heads = [""]
    for found in by_what:
        if WHOLE not in found:
            parts_named = " ".join(ABLATIONS)
            raise SystemExit(
                f"an ablation has no run with {WHOLE} to compare with; run detection_small.py {parts_named}"
            )
        whole = median(run["ap"] for run in found[WHOLE])
        heads += [f"AP, {found[WHOLE][0]['scenes']:,} scenes", "difference"]
        for what, cells in rows.items():
            aps = [run["ap"] for run in found.get(what, [])]
            cells += [cell(aps), f"{median(aps) - whole:+.2f}" if aps and what != WHOLE else ""]
    return markdown(heads, list(rows.values()))


def cell(found: Sequence[float]) -> str:
    """The median, and where there are several seeds the least and the most."""
    if not found:
        return "–"
    several = f" ({min(found):.2f} to {max(found):.2f})" if len(found) > 1 else ""
    return f"{median(found):.2f}{several}"


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def chart(scores: Scores) -> Figure:
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.add_subplot()
    for name, of_model in scores.items():
        sizes, colour = sorted(of_model), COLOURS[name]
        middle, least, most = ([end(of_model[size]) for size in sizes] for end in (median, min, max))
        axes.plot(sizes, middle, "o-", ms=4, color=colour, label=NAMES[name].strip("`"))
        axes.fill_between(sizes, least, most, color=colour, alpha=0.15, lw=0)
    axes.set(xscale="log", xlabel="training scenes", ylabel="AP on 300 held-out scenes", ylim=(-0.02, 1))
    ticks = sorted({size for of_model in scores.values() for size in of_model})
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.minorticks_off()
    axes.grid(alpha=0.2)
    axes.legend(frameon=False, fontsize=8)
    return figure


TEXT = """# How many images do I need?

<!-- Written by benchmarks/how_many_images.py from what was measured; change it there. -->

A hundred are a beginning. Below is COCO's AP on 300 held-out scenes against the number of scenes that were trained on.
A scene has one to six objects, so that 100 scenes are some 350 boxes of ten classes. Each run had {budget},
whatever the number of scenes: with few, they are seen more often.

![AP against the number of training scenes](how-many-images.svg)

{by_images}

With several seeds, the median, and the least and the most in brackets. The machine was not always as fast, so that runs
came further or less far in the same time:

{seeds}

The data are `digit-scenes`: handwritten digits of 20 to 56 pixels on photographs, 128 × 128 pixels. All models were
trained by one loop, from random weights but for `detr-small-pretrained`. RT-DETR is transformers', with 4.8 M
parameters, 30 queries, 3 decoder layers and 30 denoising queries. It has batches of 16 and images as they are, where
`detr-small` has batches of 8, scale jitter and mosaics, and its norms begin with gains of one (as transformers draws
them, around zero, nothing is learned for minutes).

What to take from it:

- **Label a hundred images first**, train for ten minutes, and look at the report: where the detector is wrong says more
  about which images to label next than any table does.
- **More images help most while they are few.** Past some hundreds, minutes are what is missing: the same time sees each
  image less often, and what differs there differs by chance and by how fast the machine happened to be.
- **The plain DETR is not for this.** It finds nothing in this time, whatever the number of images; its paper trains it
  for 300 to 500 epochs on 118,000.

Your own data: `regard data check coco:PATH` first, then `regard train detr-small --data coco:PATH`. Images are brought
to 192 × 256 pixels; where your objects have less than twenty pixels then, raise `data.shortest` and `data.longest`.
`--set data.first=100` trains on the first hundred alone, so that you can draw this curve for your images.

## With more time

AP after {long_budget}:

{long}

AP50:

{long50}

Minute by minute, 1,500 scenes (the median of the seeds):

{minutes}

## What each part brings

Each part of `detr-small` taken out or put in another's place, the rest as it is; {ablation_budget} each, so that
what costs time pays for it:

{ablation}

One seed each; another seed, or a slower minute of the machine, moves such a row by 0.05 and more, so that small
differences say nothing. Boxes as queries, their choice among the tokens, several scales, deformable attention and a
loss whose target follows the overlap are far beyond that. Denoising costs a sixth of the steps, and in so short a run
does not pay for them; over ten minutes it ends ahead by 0.01 (above). Jitter and mosaics come in over the first twenty
epochs, and 1,500 scenes are seen twice here: their rows tell of something with 100 scenes alone.

Measured on {processor}, by {date}, with `benchmarks/detection_small.py`, whose results are in
`benchmarks/results`.
"""


if __name__ == "__main__":
    main()
