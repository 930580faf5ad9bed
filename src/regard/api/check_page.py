"""`regard data check -o PAGE.html`: what a data set is like and what is wrong with it, with pictures, as one file."""

import re
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from regard import __version__
from regard.api.check import Examination
from regard.compare.page import render
from regard.data import BadImage, DetectionData, Issue, Suspect, classes_of
from regard.draw.boxes import draw_boxes
from regard.draw.png import small_uri
from regard.files import write_whole
from regard.tasks import Facts

PAIRS = 24  # of near-doubles that are shown
CLASSES = 100  # that are listed
EXAMPLES = 3  # of a class
ANNOTATED = 6  # images that are shown with their boxes
SIDE = 320  # pixels of a picture, at most
SMALL = 96  # of an example
# Edges of a histogram, in pixels of an object's side.
EDGES = (0, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)


def write_page(found: Examination, path: Path) -> None:
    """Writes the page, which needs no other file. RegardError where it cannot be written."""
    facts = list((found.facts or {}).items())
    html = render(
        "check.html.j2",
        script=False,
        version=__version__,
        written=f"{datetime.now():%-d %B %Y, %H:%M}",
        address=found.address,
        summary=str(found.summary),
        errors=found.errors,
        warnings=len(found.issues) - found.errors,
        rows=[_row(found, issue) for issue in (*found.issues, *found.advice)],
        facts=_facts(facts[0][1]) if facts else [],
        classes=_classes(found, facts[0][1]) if facts else [],
        things="boxes" if facts and facts[0][1].task == "detection" else "images",
        histograms=[_histogram(name, one) for name, one in facts if one.object_sides],
        annotated=list(_annotated(found)),
        pairs=list(_pairs(found)),
        num_pairs=0 if found.alike is None else len(found.alike.between) + len(found.alike.within),
        placeholders=list(_placeholders(found)),
        suspects=[_suspect(found, suspect) for suspect in found.suspects],
    )
    write_whole(path, lambda beside: beside.write_text(html, encoding="utf-8"))


def _row(found: Examination, issue: Issue) -> dict[str, Any]:
    """An issue, its sentence cut into text and code."""
    parts = re.split(r"(--set \S+[^\s;,.)]|`[^`]+`)", found.short(issue.sentence))
    return {
        "severity": issue.severity,
        "count": issue.count,
        "where": "" if issue.where == found.address else found.short(issue.where),
        "parts": [(part.strip("`"), number % 2 == 1) for number, part in enumerate(parts) if part],
    }


def _facts(facts: Facts) -> list[tuple[str, str]]:
    split = "the data's own split" if facts.has_val else "drawn by seed"
    rows = [("Images", f"{facts.num_train} to train on, {facts.num_val} held out ({split})")]
    if facts.image_sizes:
        low, half, high = (f"{height} × {width}" for height, width in facts.image_sizes)
        rows.append(("Size", f"{half} pixels" if low == high else f"{half} pixels; quartiles {low} and {high}"))
    if facts.task == "detection":
        queries = f"model.num_queries = {facts.suggested_queries} would do"
        rows.append(("Objects", f"{facts.num_boxes} to train on, at most {facts.most_objects} in an image; {queries}"))
    if len(facts.class_counts) > 1:
        rows.append(("Balance", f"the largest class has {facts.imbalance:.1f} times as many as the smallest"))
    return rows


def _classes(found: Examination, facts: Facts) -> list[dict[str, Any]]:
    largest = max(facts.class_counts.values(), default=0) or 1
    counts = sorted(facts.class_counts.items(), key=lambda item: (-item[1], item[0]))[:CLASSES]
    labels = {name: label for label, name in enumerate(facts.class_counts)}
    return [
        {
            "name": name,
            "count": count,
            "share": f"{count / largest:.3f}",
            "examples": list(_examples(found, labels[name])) if len(counts) <= 30 else [],
        }
        for name, count in counts
    ]


def _examples(found: Examination, label: int) -> Iterator[str]:
    """Pictures of a class, evenly spaced: whole images, or what lies in their boxes."""
    data = found.data
    assert data is not None
    if isinstance(data, DetectionData):
        boxes = [
            (index, objects.boxes_xyxy[number].tolist())
            for index, objects in enumerate(data.train.objects)
            for number in (objects.labels == label).nonzero().flatten().tolist()
        ]
        for index, (left, top, right, bottom) in _spaced(boxes):
            image = _picture(data.train.read, index)
            if image is not None:
                yield small_uri(image.crop((int(left), int(top), int(right) + 1, int(bottom) + 1)), SMALL)
        return
    chosen = [index for index, own in enumerate(data.train.labels) if label in classes_of(own)]
    for index in _spaced(chosen):
        image = _picture(data.train.read, index)
        if image is not None:
            yield small_uri(image, SMALL)


def _spaced(values: Sequence[Any], number: int = EXAMPLES) -> list[Any]:
    number = min(number, len(values))
    return [values[(2 * place + 1) * len(values) // (2 * number)] for place in range(number)]


def _histogram(name: str, facts: Facts) -> dict[str, Any]:
    counts = np.histogram(facts.sides, [*EDGES, np.inf])[0]
    last = int(np.flatnonzero(counts)[-1]) if counts.any() else 0
    first = int(np.flatnonzero(counts)[0]) if counts.any() else 0
    most, ends = max(int(counts.max()), 1), [*(f"to {edge}" for edge in EDGES[1:]), f"above {EDGES[-1]}"]
    return {
        "name": name,
        "size": "{} × {}".format(*facts.seen_size),
        "quartiles": " · ".join(f"{side:.0f}" for side in facts.object_sides),
        "suggested": None if facts.suggested_size is None else "{} and {}".format(*facts.suggested_size),
        "bins": [
            {"label": ends[place], "count": int(counts[place]), "share": f"{counts[place] / most:.3f}"}
            for place in range(first, last + 1)
        ],
    }


def _annotated(found: Examination) -> Iterator[dict[str, str]]:
    """Images with their boxes: the fullest one, and some others."""
    data = found.data
    if not isinstance(data, DetectionData) or not len(data.train):
        return
    fullest = max(range(len(data.train)), key=lambda index: len(data.train.objects[index]))
    for index in dict.fromkeys([fullest, *_spaced(range(len(data.train)), ANNOTATED - 1)]):
        objects = data.train.objects[index]
        try:
            image = data.train.read(index)
        except BadImage:
            continue
        names = [data.class_names[label] for label in objects.labels.tolist()]
        drawn = draw_boxes(image.expand(3, -1, -1), objects.boxes_xyxy, objects.labels.tolist(), names)
        yield {"uri": small_uri(drawn, SIDE), "name": found.short(data.train.name(index))}


def _pairs(found: Examination) -> Iterator[dict[str, Any]]:
    alike = found.alike
    for pair in () if alike is None else [*alike.between, *alike.within][:PAIRS]:
        pictures = [found_picture for place in (pair.first, pair.second) if (found_picture := _at(found, place))]
        if len(pictures) == 2:
            names = [f"{found.short(found.name(place))} ({_part(place)})" for place in (pair.first, pair.second)]
            yield {"uris": pictures, "names": names}


def _placeholders(found: Examination) -> Iterator[dict[str, Any]]:
    for same in () if found.alike is None else found.alike.placeholders[:PAIRS]:
        if picture := _at(found, same[0]):
            yield {"uri": picture, "names": [found.short(found.name(place)) for place in same[:4]], "count": len(same)}


def _part(place: tuple[str, int]) -> str:
    return "trained on" if place[0] == "train" else "held out"


def _at(found: Examination, place: tuple[str, int]) -> str:
    """The picture at (part, index); "" where it cannot be read."""
    assert found.data is not None
    picture = _picture((found.data.train if place[0] == "train" else found.data.val).read, place[1])
    return "" if picture is None else small_uri(picture, SIDE)


def _picture(read: Callable[[int], Any], index: int) -> Image.Image | None:
    try:
        return Image.fromarray(read(index).expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy())
    except BadImage:
        return None


def _suspect(found: Examination, suspect: Suspect) -> dict[str, str]:
    return {"uri": small_uri(suspect.draw(), SIDE), "name": found.short(suspect.name), "why": suspect.why}
