"""The figures of docs/pretrain.md, from the results of pretraining.py; figures.py writes them there."""

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from how_many_images import markdown as table
from regard.compare.inference import verdicts
from regard.compare.wording import counted
from regard.mixers import MIXERS

Cells = Sequence[Mapping[str, Any]]
FEW_SECONDS = 10.0  # in which no features are computed
WORDS = {"distill": "DINOv2 as its teacher", "masked": "hidden patches (MAE)", "scratch": "nothing, from scratch"}
OF_DINOV2 = {"dinov2": "DINOv2 itself, all of it fine-tuned", "frozen": "a linear head on DINOv2 at 224 pixels"}


def blocks(results: Mapping[str, Any], prose: Callable[[str], str]) -> str:
    """Paragraphs and tables of what was measured so far."""
    cells = [cell for cell in results.values() if "part" in cell]
    prepared = max((cell.get("prepared_seconds", 0.0) for cell in cells), default=0.0)
    found = [prose(ABOUT.format(INCLUDED if prepared > FEW_SECONDS else STORED)), _ways(cells)]
    if told := _differences(cells):
        found.append(prose(told))
    if any(cell["part"] == "distill" and cell["mixer"] != "attention" for cell in cells):
        found += [prose(MIXED), _mixers(cells)]
    for part, words in TEACHERS.items():
        if runs := _of(cells, part):
            seeds = counted(len(runs), "seed")
            found.append(prose(words.format(_percent(runs, "teacher"), _percent(runs, "accuracy"), seeds)))
    if curves := _of(cells, "labels"):
        found += [prose(LABELS), _labels(curves[0])]
    sentences = ""
    if speed := results.get("speed"):
        sentences += _speed(speed)
    if step := results.get("step"):
        sentences += f" Of a training step {100 * step['student_share']:.0f}% is the student."
    return "\n\n".join([*found, prose(sentences)] if sentences else found)


ABOUT = """The student of `pretrain-photos` had ten minutes of two cores{} on 1,649 photographs of hands that sign
digits, without their labels; accuracy in percent on 413 others (the median, where there are several seeds). The last
two columns are `small-photos` from there: 200 steps with ten labels a class, one minute with all."""
STORED, INCLUDED = " (its teacher's features were in the store already)", ", with its teacher's features,"


TEACHERS = {
    "run": """All of DINOv2 was fine-tuned on all labels ({}%), and taught the student in ten minutes: the student's own
        head finds {}% ({}).""",
    "few": """All of DINOv2 was fine-tuned on ten labels a class ({}%), and taught the student on all the images without
        their labels: the student's own head finds {}% ({}).""",
}


def _differences(cells: Cells) -> str:
    """The gain over from scratch, where there are several seeds: of each number of labels."""
    sentences = []
    for key, words in (("ten", "ten labels a class"), ("all", "all labels")):
        gains = [f"{WORDS[part]} {gain}" for part in ("distill", "masked") if (gain := _gain(cells, part, key))]
        if gains:
            sentences.append(f"with {words}, {' and '.join(gains)}")
    return f"{GAIN}{'; '.join(sentences)}." if sentences else ""


GAIN = """The gain over from scratch, in points, with the 95% interval of `regard compare` on new seeds and new
images: """


def _gain(cells: Cells, part: str, key: str, mixer: str = "attention") -> str:
    """Points over from scratch and their interval, for which several seeds are needed."""
    own, scratch = (_right(_of(cells, one, mixer), key) for one in (part, "scratch"))
    if min(len(own), len(scratch)) < 2:
        return ""
    pair = verdicts([own, scratch], margin=0.01).pairs[0]
    gain, low, high = (f"{100 * value:+.1f}" for value in (pair.difference, pair.low, pair.high))
    return f"{gain} ({low} to {high})"


def _right(cells: Cells, key: str) -> NDArray[np.float64]:
    """1 where an image is named rightly, else 0: (seeds, images)."""
    rows = [
        np.unpackbits(np.frombuffer(bytes.fromhex(cell[f"{key}_right"]), np.uint8), count=cell["held_out"])
        for cell in cells
        if f"{key}_right" in cell
    ]
    return np.array(rows, dtype=float)


LABELS = """Accuracy with so many labels a class, the median of three draws; the linear head is on the features that
taught the student (the sixth block, 56 pixels):"""


def _labels(found: Mapping[str, Any]) -> str:
    head = ["", *(str(number) for number in found["labels"])]
    return table(head, [[name, *(f"{100 * one:.1f}" for one in curve)] for name, curve in found["curves"].items()])


def _ways(cells: Cells) -> str:
    head = ["it learned from", "nearest neighbours", "linear head", "ten labels a class", "all labels", "seeds"]
    keys = ("knn", "linear", "ten", "all")
    rows = []
    for part, words in {**WORDS, **OF_DINOV2}.items():
        if own := _of(cells, part):
            rows.append([words, *(_percent(own, key) for key in keys), str(len(own))])
    return table(head, rows)


MIXED = """Which mixers can be taught what DINOv2 knows? The same processor time, and in brackets the same mixer from
scratch; the gain with its interval, as above:"""


def _mixers(cells: Cells) -> str:
    head = ["mixer", "nearest neighbours", "linear head", "ten labels a class", "gain", "all labels", "gain", "seeds"]
    rows = []
    for mixer in MIXERS:
        if taught := _of(cells, "distill", mixer):
            alone = _of(cells, "scratch", mixer)
            row = [mixer, _percent(taught, "knn"), _percent(taught, "linear")]
            for key in ("ten", "all"):
                row += [f"{_percent(taught, key)} ({_percent(alone, key)})", _gain(cells, "distill", key, mixer)]
            rows.append([*row, str(len(taught))])
    return table(head, rows)


def _speed(speed: Mapping[str, Any]) -> str:
    ratio = {key: f"{value['ratio']:.0f}" for key, value in speed.items() if isinstance(value, Mapping)}
    words = f"The student ({speed['parameters'] / 1e6:.1f} M parameters) looks at an image"
    return (
        f"{words} {ratio['fp32, batch 32']} times as fast as DINOv2 ViT-S/14 at 224 pixels in batches of 32, and "
        f"{ratio['fp32, batch 1']} times one at a time; in bf16 {ratio['bf16, batch 32']} and "
        f"{ratio['bf16, batch 1']} times."
    )


def _of(cells: Cells, part: str, mixer: str = "attention") -> Cells:
    return [cell for cell in cells if (cell["part"], cell["mixer"]) == (part, mixer)]


def _percent(cells: Cells, key: str) -> str:
    values = [100 * cell[key] for cell in cells if key in cell]
    return f"{median(values):.1f}" if values else ""
