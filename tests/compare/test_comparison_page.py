"""The page of a comparison, its Markdown and its JSON, from records that are drawn and not measured."""

import base64
import json
import math
import re
import xml.etree.ElementTree as ET
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

import pytest
from pydantic import ValidationError

from regard.compare import SecondPart, contender, ladder_svg, markdown
from regard.compare.axes import AXES, axes_of, costs
from regard.compare.classification import ClassificationView
from regard.compare.comparison_table import table_of
from regard.compare.cost_plot import front, placed_on
from regard.compare.learning_plot import bands
from regard.compare.lighter import lighter
from regard.compare.report import NotShown, Report, _at_most
from regard.compare.schema import CellPart, PairPart, Record, json_schema
from regard.compare.wording import best_of_all, failures, pair_between, progress_words, ranked, seen_from
from regard.draw.chart import Scale, log_ticks, tick_words, ticks
from regard.recipes import load_recipe
from regard.tasks import create_task
from regard.training import Run, load_classifier, train

DOCS = Path(__file__).parents[2] / "docs"
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def page(tmp_path):
    def write(record):
        assert Report(tmp_path / "page.html", title="").write_comparison(record) == []
        return (tmp_path / "page.html").read_text(encoding="utf-8")

    return write


def without_tags(html):
    html = re.sub(r"<(script|style|svg).*?</\1>", "", html, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]*>", "", html).split())


def embedded(html):
    return re.search(r'<script type="application/json" id="record">(.*?)</script>', html, re.DOTALL)[1]


def test_the_published_schema_is_that_of_the_models():
    assert (DOCS / "compare.schema.json").read_text(encoding="utf-8") == json_schema()
    schema = json.loads(json_schema())
    assert schema["properties"]["schema"]["const"] == "regard-compare-1"
    assert {"plan", "data", "machine", "versions", "commit", "cells", "contenders", "pairs", "recommendation"} <= set(
        schema["required"]
    )
    assert set(schema["$defs"]["CellPart"]["properties"]["status"]["enum"]) == {
        "done",
        "diverged",
        "cannot_run",
        "missing",
    }


def test_a_record_is_read_back_as_it_was(record):
    found = record()
    assert Record.model_validate_json(found.to_json()) == found
    assert json.loads(found.to_json())["schema"] == "regard-compare-1"


def faults(value, schema, defs, at="record"):
    """Where a value breaks a JSON schema, by the keywords that ours uses."""
    known = {"$ref", "anyOf", "const", "enum", "type", "properties", "required", "additionalProperties", "items"}
    known |= {"prefixItems", "minItems", "maxItems", "exclusiveMinimum", "exclusiveMaximum", "minimum"}
    assert schema.keys() <= known | {"title", "description", "default", "$defs", "$schema", "$comment"}, schema
    if "$ref" in schema:
        return faults(value, defs[schema["$ref"].rpartition("/")[2]], defs, at)
    if "anyOf" in schema:
        found = [faults(value, one, defs, at) for one in schema["anyOf"]]
        return [] if [] in found else found[0]
    kinds = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}
    kinds |= {"number": (int, float), "integer": int}
    if "type" in schema and (
        not isinstance(value, kinds[schema["type"]])
        or (isinstance(value, bool) and schema["type"] in ("number", "integer"))
    ):
        return [f"{at} is no {schema['type']}"]
    wrong = [at] if "enum" in schema and value not in schema["enum"] else []
    wrong += [at] if "const" in schema and value != schema["const"] else []
    if isinstance(value, dict):
        own, rest = schema.get("properties", {}), schema.get("additionalProperties", True)
        wrong += [f"{at}.{key} is missing" for key in set(schema.get("required", ())) - value.keys()]
        for key, one in value.items():
            if key not in own and rest is not True:
                wrong += [f"{at}.{key}"] if rest is False else faults(one, rest, defs, f"{at}.{key}")
            elif key in own:
                wrong += faults(one, own[key], defs, f"{at}.{key}")
    if isinstance(value, list):
        first = schema.get("prefixItems", [])
        if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
            wrong.append(f"{at} has {len(value)} items")
        for place, one in enumerate(value):
            part = first[place] if place < len(first) else schema.get("items", {})
            wrong += faults(one, part, defs, f"{at}[{place}]")
    return wrong


@pytest.mark.parametrize("kind", ["eight", "failed"])
def test_a_record_keeps_to_the_published_schema(record, kind):
    found = record() if kind == "eight" else all_failed(record)
    schema = json.loads((DOCS / "compare.schema.json").read_text(encoding="utf-8"))
    values = json.loads(found.to_json())
    assert faults(values, schema, schema["$defs"]) == []
    del values["plan"]["hash"]
    values["cells"][0]["status"] = "lost"
    values["contenders"][1]["mean"] = "high"
    assert sorted(faults(values, schema, schema["$defs"])) == [
        "record.cells[0].status",
        "record.contenders[1].mean is no number",
        "record.plan.hash is missing",
    ]


def test_json_has_neither_nan_nor_what_is_not_utf_8(record):
    found = record(("a\udcff", "b"), 1, title="</script><script>alert(1)</script>", machine={"load": math.inf})
    changed = found.model_copy(update={"cells": [CellPart(contender="b", seed=0, status="diverged", score=math.nan)]})
    values = json.loads(changed.to_json())
    assert values["cells"][0]["score"] is None
    assert values["machine"]["load"] is None
    assert values["contenders"][0]["name"] == "a\\udcff"
    assert "<" not in changed.to_json()
    changed.to_json().encode()


def test_a_record_says_which_key_it_does_not_know(record):
    with pytest.raises(ValidationError, match="conteders"):
        Record.model_validate({**record(("a", "b"), 1).model_dump(by_alias=True), "conteders": []})


@pytest.mark.parametrize("kind", ["eight", "failed"])
def test_the_pages_json_is_that_of_the_record(record, page, kind):
    found = record() if kind == "eight" else all_failed(record)
    assert embedded(page(found)) == found.to_json()


def test_the_page_and_the_markdown_say_the_rules_sentence(record, page):
    for found in (record(), record(("mlp", "conv"), 3, picked=None)):
        sentence = found.recommendation.sentence
        assert f'<p class="answer" id="answer">{sentence}</p>' in page(found)
        assert markdown(found).startswith(sentence + "\n")


def test_the_button_copies_what_markdown_writes(record, page):
    found = record()
    shown = re.search(r'<pre id="markdown" tabindex="0"><code>(.*?)</code></pre>', page(found), re.DOTALL)[1]
    assert shown == markdown(found)  # nothing in it needs escaping
    head, line, *rows = [one for one in markdown(found).splitlines() if one.startswith("|")]
    assert len(rows) == 8
    assert {row.count("|") for row in (head, line, *rows)} == {head.count("|")}
    assert rows[0].startswith("| **conv** | 98.")
    assert "recommended" in rows[0]
    assert re.search(r"\| worse −2\.\d \(−3\.\d to −1\.\d\) \|", rows[4])


def test_nothing_is_bold_that_no_verdict_carries(record, page):
    """Two aliases of one mixer: no recommendation, no verdict."""
    twins = record(("attention", "attention@copy"), 3, step=0.001, picked=None)
    html, text = page(twins), markdown(twins)
    assert "**" not in text
    assert not re.search(r'<(b|strong)\b|class="(best|picked)"', html)
    assert "Bold is" not in without_tags(html)
    assert table_of(twins).picked is None
    assert best_of_all(twins) is None


def test_bold_are_the_recommended_and_a_mean_that_is_better_than_each_other(record, page):
    html = page(record(("conv", "mlp", "none"), 5, step=0.03, picked="mlp"))
    assert re.findall(r'class="picked">([^<]*)<', html) == ["mlp"]
    assert re.findall(r'class="best"><span>([^<]*)<', html) == ["98.2"]
    assert best_of_all(record()) is None  # the first is not known to be better than the second
    text = markdown(record(("conv", "mlp", "none"), 5, step=0.03, picked="mlp"))
    assert re.findall(r"\*\*(.*?)\*\*", text) == ["98.2", "mlp"]


def test_pairs_are_the_same_from_either_side(record):
    pair = PairPart(a="a", b="b", difference=0.02, low=0.01, high=0.03, verdict="better", p_outperform=0.9)
    turned = seen_from(pair, "b")
    assert (turned.difference, turned.low, turned.high, turned.verdict) == (-0.02, -0.03, -0.01, "worse")
    assert turned.p_outperform == pytest.approx(0.1)
    assert seen_from(turned, "a") == pair
    assert seen_from(pair.model_copy(update={"verdict": "as good"}), "b").verdict == "as good"
    found = record()
    assert pair_between(found, "none", "conv").verdict == "worse"
    assert pair_between(found, "none", "nobody") is None


def test_where_smaller_is_better(record, page):
    found = record(("attention", "lstm"), 3, best=1.9, step=0.05, larger_is_better=False, metric="bits_per_byte")
    assert [one.name for one in ranked(found)] == ["attention", "lstm"]
    assert pair_between(found, "attention", "lstm").verdict == "better"
    html = page(found)
    assert "← better" in html
    assert ">1.90" in html
    assert "1 point (0.01 of bits per byte)" in without_tags(html)
    placed = placed_on(found, axes_of(found)[0])
    assert [one.name for one, _ in front(found, placed)] == ["attention"]


def test_one_seed_has_no_verdict_on_mixers(record, page):
    words = without_tags(page(record(("conv", "mlp"), 1, picked=None)))
    assert "One seed each yields no verdict on mixers" in words
    assert "cannot tell" in words
    assert "2 trainings are done, 1 seed each." in words
    assert "One seed" not in without_tags(page(record(("conv", "mlp"), 3)))


def test_a_comparison_that_is_not_over_says_so(record, page):
    found = record(("conv", "mlp"), 3, over=False, stopped="")
    changed = found.model_copy(
        update={
            "cells": [
                *found.cells[:2],
                CellPart(contender="mlp", seed=0, status="missing"),
                CellPart(contender="mlp", seed=1, status="missing", reason="its file was damaged"),
            ]
        }
    )
    words = without_tags(page(changed))
    assert "The comparison is not over" in words
    assert "2 of at most 6 trainings are done, 2 seeds each." in words
    assert failures(changed) == [("mlp, seed 1", "no result: its file was damaged")]


def all_failed(record):
    found = record(("conv", "mlp"), 1, picked=None)
    cells = [
        {"contender": "conv", "seed": 0, "status": "diverged", "step": 7, "reason": "the loss is nan"},
        {"contender": "mlp", "seed": 0, "status": "cannot_run", "reason": "mlp: needs 64 tokens"},
    ]
    values = {**found.model_dump(by_alias=True), "cells": cells, "pairs": [], "learning": []}
    values["contenders"] = [{"name": "conv"}, {"name": "mlp"}]
    values["recommendation"] = {"name": None, "sentence": "No training ended well.", "rule": "none"}
    return Record.model_validate(values)


def test_what_failed_is_listed_with_step_and_reason(record, page):
    found = all_failed(record)
    html = page(found)
    words = without_tags(html)
    assert "conv, seed 0: diverged at step 7: the loss is nan" in words
    assert "mlp, seed 0: cannot run: mlp: needs 64 tokens" in words
    assert "No training ended well." in words
    assert "diverged at step 7" in html[html.index("<svg") : html.index("</svg>")]
    assert progress_words(found) == "0 of at most 2 trainings are done."
    assert "diverged at step 7" in markdown(found)
    ET.fromstring(ladder_svg(found))


def test_a_busy_machine_leaves_ratios(record, page):
    found = record(("conv", "mlp"), 3, measurement={"load": 1.7, "busy": True})
    words = without_tags(page(found))
    assert "Measured on a busy machine (load 1.7): in the place of times stand ratios to those of conv." in words
    speed = next(column for column in table_of(found).columns if column.group == "inference" and column.head == "speed")
    assert [cell.text for cell in speed.cells] == ["1.00×", "0.71×"]
    assert not re.search(r"\d (µs|ms)\b", words.replace(found.recommendation.sentence, ""))
    spans = costs(AXES[0], found)
    assert spans["conv"][0] == 1
    assert spans["mlp"][0] == pytest.approx(1.4)


def test_what_nobody_has_is_not_there(record, page):
    found = record(("conv", "mlp"), 3)
    bare = found.model_dump(by_alias=True)
    bare["contenders"] = [{"name": one.name, "mean": one.mean} for one in found.contenders]
    bare["learning"] = []
    html = page(Record.model_validate(bare))
    assert next(axis.name for axis in axes_of(found)) == "throughput"
    for part in ("cost", "learning", "robustness", "contenders", "failures"):
        assert f'<section id="{part}">' not in html
    assert "lr 0.003" not in html
    changes = {"contender": "conv", "change": "noise 0.1", "score": 0.9, "drop": 0.08}
    bare["robustness"] = [changes, {"contender": "mlp", "change": "size 1.5", "reason": "takes one size alone"}]
    bare["contenders"][0]["tuned"] = {"lr": 0.003}
    words = without_tags(page(Record.model_validate(bare)))
    assert "noise 0.1" in words
    assert "takes one size alone" in words
    assert "lr 0.003" in words


def test_a_page_is_one_file_that_runs_its_own_script_alone(record, page):
    html = page(record())
    assert len(html.encode()) < 2_000_000
    assert not re.search(r'(?:src|href|srcset|action)="(?!#|data:image/)', html)
    assert "http" not in re.sub(r'xmlns(:xlink)?="[^"]*"|http-equiv', "", html)
    policy = re.search(r'Content-Security-Policy"\s+content="([^"]*)"', html)[1].replace("&#39;", "'")
    style, script = (re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL) for tag in ("style", "script"))
    assert len(style) == len(script) == 1
    for text in (style[0], script[0]):
        assert f"'sha256-{base64.b64encode(sha256(text.encode()).digest()).decode()}'" in policy
    assert "default-src 'none'" in policy
    assert len(re.findall(r"<script", html)) == 2  # and the JSON, which is no script
    ids = re.findall(r'\bid="([^"]*)"', html)
    assert len(ids) == len(set(ids))
    levels = [int(level) for level in re.findall(r"<h([1-6])", html)]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_each_drawing_has_a_title_words_and_its_data_as_a_table(record, page):
    html = page(record())
    figures = re.findall(r'<figure class="chart">.*?</figure>', html, re.DOTALL)
    assert len(figures) == 1 + 6 + 2
    for figure in figures:
        drawings = re.findall(r"<svg.*?</svg>", figure, re.DOTALL)
        assert len(drawings) == 2
        for drawing in drawings:
            tree = ET.fromstring(drawing)
            assert tree.get("role") == "img"
            title, about = tree.get("aria-labelledby").split()
            assert tree.find(f"{SVG}title").get("id") == title
            assert tree.find(f"{SVG}title").text
            assert tree.find(f"{SVG}desc").get("id") == about
            assert "conv" in tree.find(f"{SVG}desc").text
        rows = re.findall(r'<th scope="row">([^<]*)</th>', figure)
        assert sorted(rows) == sorted(one.name for one in record().contenders)


@pytest.mark.parametrize("seeds", [1, 5, 12])
def test_the_ladder_of_a_readme(record, seeds):
    names = ("conv", "resnet18_narrow_of_a_very_long_name", "none")
    drawn = ladder_svg(record(names, seeds))
    assert len(drawn.encode()) < 300_000
    tree = ET.fromstring(drawn)
    width = float(tree.get("width"))
    sizes = [float(text.get("font-size")) for text in tree.iter(f"{SVG}text")]
    assert min(sizes) * 358 / width >= 11  # on a telephone of 390 pixels
    style = tree.find(f"{SVG}style").text
    assert "sans-serif" in style
    assert "prefers-color-scheme: dark" in style
    paper = tree.find(f"{SVG}rect")
    assert (paper.get("class"), paper.get("width"), paper.get("height")) == (
        "paper",
        tree.get("width"),
        tree.get("height"),
    )
    circles = [circle.get("class") for circle in tree.iter(f"{SVG}circle")]
    assert circles.count("seed") == 3 * seeds
    assert sorted(kind for kind in circles if kind != "seed") == ["dot", "dot", "dot pick"]
    for text in tree.iter(f"{SVG}text"):
        at, length = float(text.get("x")), 0.6 * float(text.get("font-size")) * len(text.text)
        ends = {"start": at + length, "end": at, "middle": at + length / 2}[text.get("text-anchor")]
        assert ends <= width


def test_the_ladder_puts_values_where_they_belong(record):
    found = record(("conv", "none"), 5, step=0.04)
    tree = ET.fromstring(ladder_svg(found))
    best, last = (float(dot.get("cx")) for dot in tree.iter(f"{SVG}circle") if dot.get("class").startswith("dot"))
    band = next(rect for rect in tree.iter(f"{SVG}rect") if rect.get("class") == "band")
    left, right = float(band.get("x")), float(band.get("x")) + float(band.get("width"))
    assert right == pytest.approx(best, abs=0.2)
    means = [one.mean for one in found.contenders]
    assert (right - left) / (best - last) == pytest.approx(0.01 / (means[0] - means[1]), rel=0.01)
    words = tree.find(f"{SVG}desc").text
    assert "conv: 98." in words
    assert "The band is 1 point below the best mean." in words


def test_the_front_holds_those_that_no_cheaper_one_reaches(record):
    found = record(("a", "b", "c"), 3)
    cheap = found.model_dump(by_alias=True)
    for one, mean, peak in zip(cheap["contenders"], (0.9, 0.8, 0.95), (10.0, 20.0, 30.0), strict=True):
        one["mean"], one["cost"]["peak_mb"] = mean, peak
    found = Record.model_validate(cheap)
    memory = next(axis for axis in AXES if axis.name == "memory")
    assert [one.name for one, _ in front(found, placed_on(found, memory))] == ["a", "c"]


def test_learning_is_the_mean_and_the_band_of_seeds(record):
    found = record(("a", "b"), 2).model_dump(by_alias=True)
    found["learning"] = [
        {"contender": "a", "seed": 0, "loss": [(0.0, 1.0), (10.0, 0.0)]},
        {"contender": "a", "seed": 1, "loss": [(0.0, 3.0), (5.0, math.nan), (8.0, 1.4), (10.0, 1.0)]},
        {"contender": "b", "seed": 0, "loss": [(0.0, 3.0)]},
    ]
    (band,) = bands(Record.model_validate(found), "loss")
    assert band.at(0) == (0.0, 2.0, 1.0, 3.0)
    assert band.at(1) == (10.0, 0.5, 0.0, 1.0)
    assert bands(Record.model_validate(found), "score") == []


# Letters of less than 11 pixels, as they are drawn.
SMALL = """[...document.querySelectorAll('body *')].filter(one =>
  [...one.childNodes].some(child => child.nodeType === 3 && child.data.trim()) && one.checkVisibility() &&
  !['SCRIPT', 'STYLE', 'title', 'desc'].includes(one.tagName)
).map(one => [one.textContent.trim().slice(0, 30), parseFloat(getComputedStyle(one).fontSize) *
  (one instanceof SVGElement ? one.getScreenCTM().a : 1)]).filter(found => found[1] < 11)"""


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """Two contenders on digits, after three steps."""
    folder, found = tmp_path_factory.mktemp("digits"), []
    for mixer in ("attention", "conv"):
        settings = [f"model.mixer={mixer}", "model.depth=1", "train.max_steps=3", "train.batch_size=32"]
        train(load_recipe("vit-digits", settings), folder / mixer)
        found.append(contender(mixer, [folder / mixer], with_cost=False))
    return found


@pytest.mark.slow
def test_a_folded_section_for_each_contender_with_runs_and_a_second_part(record, digits, pairs_run, tmp_path, browser):
    found = record(("attention", "conv", "mlp"), 1, picked=None)
    second = SecondPart("Words", contender("pairs", [pairs_run], with_cost=False), "regard train pairs")
    file = tmp_path / "page.html"
    assert Report(file, title="", whole=False).write_comparison(found, digits, second=second) == []
    html = file.read_text(encoding="utf-8")
    assert len(html.encode()) < 2_000_000
    assert re.findall(r'<details class="folded" id="contender-\d">\s*<summary>([^<]*)<', html) == ["attention", "conv"]
    assert html.count("<h3>Confusion matrix</h3>") == 2
    assert "What each token takes from the others" in html
    assert embedded(html) == found.to_json()
    words = without_tags(html)
    assert "The second part of this page: Words." in words
    assert "regard train pairs" in words
    assert "exact match" in words
    ids = re.findall(r'\bid="([^"]*)"', html)
    assert len(ids) == len(set(ids))
    # Of each, the images that it alone classified correctly.
    source = create_task(Run(digits[0].runs[0]).recipe()).data.val
    rights = []
    for one in digits:
        evaluation = load_classifier(one.runs[0]).evaluate(source)
        predicted = evaluation.logits.argmax(1)
        rights.append(
            {name for name, right in zip(evaluation.names, predicted == evaluation.labels, strict=True) if right}
        )
    for one, right, other in zip(digits, rights, rights[::-1], strict=True):
        part = html.partition(f"<h3>Only {one.name} classified these correctly</h3>")[2].partition("</ul>")[0]
        shown = set(re.findall(r"<figcaption>([^<]*)<", part))
        assert shown <= right - other
        assert len(shown) == min(6, len(right - other))
    with browser(tmp_path / "profile") as tab:
        tab.screen(390)
        assert tab.open(file) == []
        assert [url[:40] for url in tab.requests if not url.startswith("data:image/")] == [file.as_uri()[:40]]
        tab.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
        assert tab.evaluate("document.documentElement.scrollWidth") <= 390
        assert tab.evaluate(SMALL) == []


@pytest.mark.slow
def test_a_contender_that_cannot_be_shown_says_why(record, digits, tmp_path, monkeypatch):
    monkeypatch.setattr(ClassificationView, "section", lambda view, one: 1 / 0)
    file = tmp_path / "page.html"
    failed = Report(file, title="", whole=False).write_comparison(record(("attention", "conv"), 1), digits)
    assert [str(one) for one in failed] == [
        f"{name}, report: ZeroDivisionError: division by zero" for name in ("attention", "conv")
    ]
    assert file.read_text(encoding="utf-8").count("What it does cannot be shown: ZeroDivisionError") == 2


def test_names_of_any_kind_stand_in_the_page(record, page):
    names = ("<script>alert(1)</script>", "a|b*c`d", "x\u202ey", "n" * 200, "caf\udce9", "日本")
    found = record(names, 2, picked=None, title='"><b>', notes=["<i>"])
    html = page(found)
    assert "<script>alert" not in html
    assert "<i>" not in html
    for drawing in re.findall(r"<svg.*?</svg>", html, re.DOTALL):
        ET.fromstring(drawing)
    assert json.loads(embedded(html))["contenders"][1]["name"] == "a|b*c`d"
    rows = [line for line in markdown(found).splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1


def test_a_page_that_would_be_too_large_leaves_sections_out(record, monkeypatch):
    sizes = []

    def rendered(template, *, script, sections, **values):
        html = "".join("y" if isinstance(one, NotShown) else "x" * 400 for one in sections)
        sizes.append(len(html))
        return html

    class Section:
        def __init__(self, name):
            self.name = name

    monkeypatch.setattr("regard.compare.report.render", rendered)
    assert _at_most(1000, {}, [Section(name) for name in "abc"]) == "x" * 800 + "y"
    assert _at_most(2000, {}, [Section(name) for name in "abc"]) == "x" * 1200
    assert len(_at_most(1, {}, [Section(name) for name in "abc"])) == 3
    assert sizes == [1200, 801, 1200, 1200, 801, 402, 3]


def test_pictures_become_lighter(tmp_path):
    import io

    import numpy as np
    from PIL import Image

    noise = np.random.default_rng(0).integers(0, 255, (480, 320, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "png")
    large = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    small = lighter(f'<img src="{large}"> <img src="data:image/png;base64,AAAA">')
    kind, letters = re.search(r"data:image/(\w+);base64,([^\"]*)", small).groups()
    picture = Image.open(io.BytesIO(base64.b64decode(letters)))
    assert (kind, picture.size) == ("jpeg", (160, 240))
    assert small.endswith('<img src="data:image/png;base64,AAAA">')


def test_axes_have_round_ticks_within():
    assert ticks(0.93, 0.99, 7) == pytest.approx([0.93, 0.94, 0.95, 0.96, 0.97, 0.98, 0.99])
    assert ticks(0, 20, 3) == [0, 10, 20]
    assert log_ticks(80, 3000, 5) == [100, 200, 500, 1000, 2000]
    assert log_ticks(80, 3000, 4) == [100, 300, 1000, 3000]
    assert log_ticks(110, 180, 4) == pytest.approx([120, 140, 160, 180])
    assert tick_words([0.5, 1.0]) == ["0.5", "1.0"]
    assert tick_words([100.0, 200.0]) == ["100", "200"]
    scale = Scale(1, 100, 0, 10, log=True)
    assert (scale(1), scale(10), scale(1e6), Scale(2, 2, 0, 10)(2)) == (0, 5, 10, 5)
    for low, high in ((0.1, 0.10001), (3e-9, 5e-9), (1, 1e9), (-3, 4)):
        found = ticks(low, high, 5)
        assert 1 <= len(found) <= 5
        assert all(low - 1e-12 <= tick <= high + 1e-12 for tick in found)
