"""Box refinement: a panel a step, a query in one colour throughout, and nothing that breaks where nothing is found."""

from dataclasses import replace

import pytest
import torch
from matplotlib.colors import to_hex

from regard.draw.colours import COLOURS
from regard.explain import box_refinement_figure, confident_queries, save_png
from regard.tasks import BoxRefinement

NAMES = ("ant", "bee", "a name that is far too long")
HEIGHT, WIDTH = 40, 60
IMAGE = torch.randint(0, 256, (3, HEIGHT, WIDTH), dtype=torch.uint8)


def refinement(scores: list[float], *, layers: int = 3, **fields: object) -> BoxRefinement:
    """Query i is of class i % 3, and its corner at (i, layer), where it begins at (i, 9)."""
    number = torch.arange(len(scores), dtype=torch.float32)
    boxes = torch.stack(
        [
            torch.stack([number, torch.full_like(number, layer), number + 7, number * 0 + 30.0], 1)
            for layer in range(layers)
        ]
    )
    start = torch.stack([number, torch.full_like(number, 9), number + 7, number * 0 + 30.0], 1)
    labels = (number.long() % 3).expand(layers, -1)
    given = {"start_xyxy": start, "proposed": True, **fields}
    return BoxRefinement(boxes, labels, torch.tensor(scores).expand(layers, -1), NAMES, **given)


def boxes_of(axes) -> dict[str, tuple[float, float]]:
    """Where the box of each colour has its left upper corner, but for halos and those that are not followed."""
    return {to_hex(patch.get_edgecolor()): patch.get_xy() for patch in axes.patches if patch.get_linewidth() == 1.5}


def test_a_panel_for_the_start_and_each_layer(tmp_path):
    figure = box_refinement_figure(IMAGE, refinement([0.9, 0.1, 0.7]))
    assert [axes.get_title() for axes in figure.axes] == ["proposal", "layer 1", "layer 2", "layer 3"]
    save_png(figure, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 3_000


@pytest.mark.parametrize(
    ("fields", "steps"), [({"start_xyxy": None}, []), ({"proposed": False}, ["start"]), ({}, ["proposal"])]
)
def test_what_it_begins_with(fields, steps):
    one = refinement([0.9], layers=6, **fields)
    expected = [*steps, *(f"layer {number}" for number in range(1, 7))]
    assert list(one.steps) == expected
    assert [axes.get_title() for axes in box_refinement_figure(IMAGE, one).axes] == expected


def test_a_query_keeps_its_colour_and_is_where_the_layer_puts_it():
    start, *layers = box_refinement_figure(IMAGE, refinement([0.6, 0.1, 0.9, 0.55])).axes
    for layer, axes in enumerate(layers):
        assert boxes_of(axes) == {COLOURS[0]: (2, layer), COLOURS[1]: (0, layer), COLOURS[2]: (3, layer)}
        captions = {to_hex(text.get_bbox_patch().get_facecolor()): text.get_text() for text in axes.texts}
        assert captions == {COLOURS[0]: "a name that i… 0.90", COLOURS[1]: "ant 0.60", COLOURS[2]: "ant 0.55"}
    assert boxes_of(start) == {COLOURS[0]: (2, 9), COLOURS[1]: (0, 9), COLOURS[2]: (3, 9)}
    others = [patch.get_xy() for patch in start.patches if to_hex(patch.get_edgecolor()) == "#ffffff"]
    assert others == [(1, 9)]
    assert not start.texts


def test_which_queries_are_followed():
    assert confident_queries(refinement([0.6, 0.1, 0.9])) == [2, 0]
    assert confident_queries(refinement([0.2, 0.1, 0.4, 0.3, 0.25])) == [2, 3, 4]  # sure of none: the surest three
    assert confident_queries(refinement([0.2, 0.1, 0.4]), 0.3) == [2]
    many = confident_queries(refinement([0.9 - number / 100 for number in range(30)]))
    assert many == list(range(10))
    assert len(many) == len(COLOURS)


def test_captions_stay_in_the_image():
    one = refinement([0.9, 0.9])
    boxes = torch.tensor([[0.0, 0.0, 20.0, 10.0], [50.0, 20.0, 60.0, 30.0]]).expand(3, -1, -1)
    lower, upper = box_refinement_figure(IMAGE, replace(one, boxes_xyxy=boxes)).axes[-1].texts
    assert (upper.get_va(), upper.get_ha(), upper.get_position()) == ("top", "left", (0, 0))
    assert (lower.get_va(), lower.get_ha(), lower.get_position()) == ("bottom", "right", (60, 20))


@pytest.mark.parametrize("scores", [[], [0.0, 0.0], [float("nan"), float("nan")]])
def test_nothing_is_found(scores, tmp_path):
    figure = box_refinement_figure(IMAGE, refinement(scores))
    assert len(figure.axes) == 4
    save_png(figure, tmp_path / "a.png")


def test_a_box_that_is_not_finite_is_left_out(tmp_path):
    one = refinement([0.9, 0.8])
    boxes = one.boxes_xyxy.clone()
    boxes[1, 0, 2] = float("nan")
    assert confident_queries(replace(one, boxes_xyxy=boxes)) == [1]
    start = torch.full_like(one.start_xyxy, float("nan"))
    save_png(box_refinement_figure(IMAGE, replace(one, boxes_xyxy=boxes, start_xyxy=start)), tmp_path / "a.png")


def test_grey_and_large_images(tmp_path):
    save_png(box_refinement_figure(IMAGE[:1], refinement([0.9])), tmp_path / "grey.png")
    large = box_refinement_figure(torch.zeros(3, 900, 1200, dtype=torch.uint8), refinement([0.9])).axes[0].images[0]
    assert large.get_array().shape == (384, 512, 3)
    assert large.get_extent() == [0, 1200, 900, 0]


def test_the_page_shows_through():
    figure = box_refinement_figure(IMAGE, refinement([0.9]))
    assert figure.patch.get_alpha() == 0
