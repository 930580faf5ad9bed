"""benchmarks/photographs_page.py: the page says what the results file holds, and what is missing."""

import re

import pytest

RECORD = {"began": "random weights", "wall_seconds": 594.0, "peak_memory_mb": 2048, "pixels": "9 × 9", "lr": 1e-3}


def detection(data, way, minutes, seed, ap, **more):
    own = {"data": data, "way": way, "minutes": minutes, "seed": seed, "ap": ap, "ap50": ap + 0.3}
    return RECORD | own | more


def page_of(scripts, tmp_path, records, digits=None):
    record = {"results": {str(number): one for number, one in enumerate(records)}}
    if records:
        record |= {
            "machine": {"processor": "A processor", "cores": 2},
            "date": "2026-01-02",
            "versions": {"torch": "9"},
        }
    scripts.photographs_page.write(record, digits or {}, tmp_path)
    return (tmp_path / "your-own-photographs.md").read_text(encoding="utf-8")


def row(text, *starts):
    """The cells of the first row that begins so, after the heading that the first start names."""
    heading, first = starts
    rows = text[text.index(heading) :].splitlines()
    return next([cell.strip() for cell in one.split("|")[1:-1]] for one in rows if one.startswith(f"| {first}"))


def test_without_results_the_page_says_what_is_missing(scripts, tmp_path):
    text = page_of(scripts, tmp_path, [])
    assert row(text, "`raccoon`: 160", "`detr-photos`")[2] == "not measured yet"
    assert row(text, "## Classes", "`finetune-photos-all`")[2:4] == ["not measured yet"] * 2
    assert "The aim was AP 0.55 and AP50 0.88: not measured yet." in text
    assert "Machine: not measured yet." in text
    assert "YOLO" not in text  # it is there only where somebody measured it
    for name in re.findall(r"\]\(([\w-]+\.svg)\)", text):
        assert "<svg" in (tmp_path / name).read_text(encoding="utf-8")
    figures = re.findall(r"\d\.\d{3}", text)
    assert figures == []


def test_figures_are_medians_and_the_best_comes_first(scripts, tmp_path):
    records = [detection("raccoon", "detr-photos", 10, seed, ap) for seed, ap in enumerate((0.5, 0.6, 0.56))]
    records += [
        detection("raccoon", "rt-detr", 10, 0, 0.7, ap_raw=0.65, change="lr=1e-3", tried="", batch_size=8),
        detection("raccoon", "rt-detr", 3, 0, 0.9, tried="lr=1e-3"),
        detection("raccoon", "rt-detr", 3, 0, 0.2, tried=""),
    ]
    text = page_of(scripts, tmp_path, records, {25: [0.1, 0.3, 0.2]})
    table = text[text.index("`raccoon`: 160") :]
    assert table.index("RT-DETR (transformers), small") < table.index("| `detr-photos`")
    assert row(text, "`raccoon`: 160", "`detr-photos`")[1:] == [
        *("random weights", "0.560 (0.500 to 0.600)", "0.860 (0.800 to 0.900)", "", "9.9", "2.0", "3"),
    ]
    assert row(text, "`raccoon`: 160", "RT-DETR (transformers), small")[2:5] == ["0.700", "1.000", "0.650"]
    assert "with 0.560 and 0.860, does not reach it." in text  # AP is reached, AP50 is not
    # A try is neither a point of the curve nor a row.
    assert row(text, "## After 3, 5", "raccoon | RT-DETR (transformers), small")[2:] == [
        "0.200",
        "not measured yet",
        "0.700",
    ]
    assert "Tried on each data set for three minutes: lr=1e-3." in text
    assert row(text, "## How many images", "25 ") == ["25", "not measured yet", "not measured yet", "0.200"]
    assert row(text, "## How many images", "160 ")[1] == "0.560 (0.500 to 0.600)"
    assert row(text, "## Memory", "`detr-photos`")[1] == "2.00"


@pytest.mark.parametrize(("ap", "reached"), [(0.54, "does not reach it"), (0.59, "reaches it")])
def test_what_was_aimed_at(scripts, tmp_path, ap, reached):
    text = page_of(scripts, tmp_path, [detection("raccoon", "detr-photos", 10, 0, ap)])
    assert f"`detr-photos`, with {ap:.3f} and {ap + 0.3:.3f}, {reached}." in text


def test_only_pictures_that_are_there_are_shown_with_their_origin(scripts, tmp_path):
    assert "not drawn yet" in page_of(scripts, tmp_path, [])
    (tmp_path / "your-own-photographs-bccd.jpg").touch()
    text = page_of(scripts, tmp_path, [])
    assert "](your-own-photographs-bccd.jpg)" in text
    assert "github.com/Shenggan/BCCD_Dataset, MIT licence" in text
    assert "signdigits.jpg" not in text
    assert "raccoon.jpg" not in text
