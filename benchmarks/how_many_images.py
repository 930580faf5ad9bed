"""Writes docs/how-many-images.md and its chart from what `detection_small.py` measured so far.

Run: .venv/bin/python benchmarks/detection_small.py images; .venv/bin/python benchmarks/how_many_images.py
"""

import json
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any

from matplotlib.figure import Figure

from peer import result_path

DOCS = Path(__file__).parents[1] / "docs"
NAMES = {
    "dn_detr": "`detr-small`",
    "dn_detr pretrained": "`detr-small-pretrained`",
    "rt_detr": "RT-DETR (transformers)",
    "detr": "plain DETR",
}
COLOURS = {"dn_detr": "#2080c3", "dn_detr pretrained": "#009e73", "rt_detr": "#d55e00", "detr": "#8f8f96"}
Scores = dict[str, dict[int, list[float]]]


def main() -> None:
    path = result_path("detection_small")
    record = json.loads(path.read_text(encoding="utf-8"))
    # Whatever part of the benchmark a run was made for, it is of so many scenes.
    results = {part: record["results"].get(part, {}) for part in ("images", "curves", "few", "pretrained")}
    runs = [run for of_part in results.values() for run in of_part.values() if "ap" in run]
    if not runs:
        raise SystemExit(f"{path}: there are no runs yet; measure them first: detection_small.py images")
    scores = scores_of(runs)
    chart(scores).savefig(DOCS / "how-many-images.svg", bbox_inches="tight")
    text = TEXT.format(
        table=table(scores),
        minutes=" or ".join(f"{m:g}" for m in sorted({run["minutes"] for run in runs})),
        seeds=", ".join(map(str, sorted({run["seed"] for run in runs}))),
        processor=f"{record['machine']['cores']} cores of an {record['machine']['processor']}",
        date=record["date"],
    )
    (DOCS / "how-many-images.md").write_text(text, encoding="utf-8")
    print(f"wrote {DOCS / 'how-many-images.md'}")


def scores_of(runs: list[dict[str, Any]]) -> Scores:
    """AP of each model, number of scenes and seed."""
    found: Scores = {name: defaultdict(list) for name in NAMES}
    for run in runs:
        found[run["model"]][run["scenes"]].append(run["ap"])
    return {name: of_model for name, of_model in found.items() if of_model}


def table(scores: Scores) -> str:
    sizes = sorted({size for of_model in scores.values() for size in of_model})
    lines = ["| training scenes | " + " | ".join(NAMES[name] for name in scores) + " |"]
    lines.append("| ---: |" + " ---: |" * len(scores))
    for size in sizes:
        lines.append(
            f"| {size:,} | " + " | ".join(_cell(of_model.get(size, [])) for of_model in scores.values()) + " |"
        )
    return "\n".join(lines)


def _cell(found: list[float]) -> str:
    """The median, and where there are several seeds the least and the most."""
    if not found:
        return "–"
    several = f" ({min(found):.2f} to {max(found):.2f})" if len(found) > 1 else ""
    return f"{median(found):.2f}{several}"


def chart(scores: Scores) -> Figure:
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.add_subplot()
    for name, of_model in scores.items():
        sizes, colour = sorted(of_model), COLOURS[name]
        middle, least, most = ([end(of_model[size]) for size in sizes] for end in (median, min, max))
        axes.plot(sizes, middle, "o-", ms=4, color=colour, label=NAMES[name].strip("`"))
        axes.fill_between(sizes, least, most, color=colour, alpha=0.15, lw=0)
    axes.set(xscale="log", xlabel="training scenes", ylabel="AP on 300 held-out scenes", ylim=(0, 1))
    ticks = sorted({size for of_model in scores.values() for size in of_model})
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.minorticks_off()
    axes.grid(alpha=0.2)
    axes.legend(frameon=False, fontsize=8)
    return figure


TEXT = """# How many images do I need?

<!-- Written by benchmarks/how_many_images.py from what was measured; change it there. -->

Fewer than the papers made one think. Below is COCO's AP on 300 held-out scenes against the number of scenes that were
trained on; a scene has one to six objects, so that 100 scenes are some 330 boxes of ten classes. Each run had {minutes}
minutes of {processor}, whatever the number of scenes: with few, they are seen more often.

![AP against the number of training scenes](how-many-images.svg)

{table}

The data are `digit-scenes`: handwritten digits of 20 to 56 pixels on photographs, 128 × 128 pixels. Seeds {seeds}; with
several, the median, and the least and the most in brackets. All models were trained by one loop, from random weights
but for `detr-small-pretrained`; RT-DETR is transformers', with 4.8 M parameters, 30 queries, 3 decoder layers and 30
denoising queries. Measured on {date}.

What to take from it:

- **Label a hundred images first**, train for ten minutes, and look at the report: where the detector is wrong says
  more about which images to label next than any table does.
- **Doubling the images helps most while they are few.** Past some hundred of them, minutes are what is missing: the
  same budget sees each image less often.
- **Start from weights where you have them** (`detr-small-pretrained`), above all with photographs: digits on
  photographs are easier than most things that one wants to find.
- **The plain DETR is not for this.** It learns as well in the end, with a hundred times as many images and minutes.

Your own data: `regard data check coco:PATH` first, then `regard train detr-small --data coco:PATH`. Images are brought
to 192 × 256 pixels; where your objects have less than twenty pixels then, raise `data.shortest` and `data.longest`.
`--set data.first=100` trains on the first hundred alone, so that you can draw this curve for your images.
"""


if __name__ == "__main__":
    main()
