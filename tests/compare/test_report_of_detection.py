"""The report of detectors, and their comparison."""

import json
import re
from pathlib import Path

import pytest

from regard.compare import compare, contender, whole_field, write_report
from regard.recipes import Recipe, load_recipe
from regard.tasks import FIGURES
from regard.training import train

SMALL = (
    *("model.embed_dim=32", "model.num_heads=4", "model.depth=1", "model.num_queries=7", "data.first=8"),
    *("data.shortest=64", "data.longest=64", "train.max_steps=2", "train.batch_size=4", "train.device=cpu"),
    *("data.validate_on=train",),
)


def recipe(*settings: str) -> Recipe:
    return load_recipe("detr-digit-scenes", [*SMALL, *settings])


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("report")
    train(recipe(), folder / "run")
    path = folder / "report.html"
    write_report(path, title="Scenes", contenders=[contender("run", [folder / "run"], with_cost=False)])
    return path.read_text(encoding="utf-8")


def test_it_has_cocos_figures_and_every_class(page):
    for name in FIGURES:
        assert f"<code>{name}</code>" in page
    for digit in range(10):
        assert f"<tr><td>{digit}</td>" in page
    assert "Boxes" in page
    assert "the same images" in page
    assert "AP" in page


def test_it_shows_images_queries_and_curves(page):
    scenes = re.findall(r'<img src="data:image/jpeg;base64,[^"]+" alt="[^"]+"', page)
    assert len(scenes) >= 16
    assert "query 6" in page
    assert "found as" in page
    assert "precision, at IoU 0.5" in page
    assert not re.findall(r'(?:src|href)="http', page)


@pytest.mark.slow
def test_mixers_of_the_encoder_are_compared(tmp_path):
    contenders = compare(recipe("train.max_steps=1"), ["attention", "performer"], 1, tmp_path / "out")
    assert [one.name for one in contenders] == ["attention", "performer"]
    for one in contenders:
        assert one.metric.words == "AP"
        assert one.cost is not None
        assert one.cost.seconds_per_sample > 0
        assert one.flops > 1e6
    write_report(tmp_path / "out" / "report.html", title="x", contenders=contenders)
    summary = json.loads(Path(contenders[0].runs[0] / "summary.json").read_text(encoding="utf-8"))
    assert contenders[0].scores == (summary["ap"],)


def test_who_can_serve_a_detector():
    names, left_out = whole_field(recipe())
    assert {"attention", "performer", "local"} <= set(names)
    assert {"fourier", "conv", "lstm", "mlp"} <= left_out.keys()
    assert "positions" in left_out["fourier"] or "mask" in left_out["fourier"]
