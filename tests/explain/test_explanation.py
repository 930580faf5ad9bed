"""An explanation shows itself: photograph first, the map over it, a line around half of the sum, and words."""

import io
import json
from dataclasses import replace

import pytest
import torch
from PIL import Image
from tests_of_explain import vit

from regard.draw.png import png_bytes
from regard.explain import Explanation, Thumbnail, explain
from regard.explain.faithfulness import Curve, Faithfulness
from regard.explain.methods import METHODS, NAMES, table
from regard.explain.overlay import half_level, scale_ends, strength
from regard.layers import Grid

GRID = Grid(3, 5, prefix=1)
TRUE = Faithfulness(
    0.28, 0.7, 0.38, 0.01, 0.31, 0.6, "probability of 7", (0.0, 1.0), {"blur": Curve((1.0, 0.0), (0.0, 1.0))}, 60, 300
)


@pytest.fixture
def found():
    values = torch.zeros(3, 5)
    values[1, 3], values[0, 0] = 0.4, 0.1
    image = torch.randint(0, 255, (3, 24, 40), dtype=torch.uint8)
    return Explanation(
        values,
        GRID,
        image,
        "relevance",
        "all",
        None,
        "class token",
        "7",
        0.21,
        faithfulness=TRUE,
        passes="1 forward pass and 1 backward pass",
        stored_size=(48, 100),
        title="a $5 photograph_of a flower",
        layers=[Thumbnail(f"layer {i}", values) for i in range(12)],
        heads=[Thumbnail(f"head {i}", values) for i in range(6)],
    )


def words(figure):
    return " ".join(text.get_text() for text in figure.texts)


def test_the_line_of_faithfulness(found):
    assert TRUE.line == "deletion 0.28; random 0.38 ± 0.01; centre 0.31: beats both"
    assert replace(TRUE, deletion=0.32).line.endswith(": no better than the centre")
    assert replace(TRUE, deletion=0.375).line.endswith(": no better than random")
    assert TRUE.line in words(found.figure)
    assert "360 images shown" in words(found.figure)


def test_words_say_what_the_map_is_of(found):
    said = words(found.figure)
    for part in (
        "a $5 photograph_of a flower",
        "relevance, of 7: what reaches the head",
        "21% of this row goes to the class token; the map shows the rest",
        "40 × 24 pixels seen, of 100 × 48: its edges are cut off",
        "1 forward pass and 1 backward pass",
    ):
        assert part in said
    rollout = replace(found, method="rollout", target=None, faithfulness=None, unjudged="it was left out")
    assert "of no class in particular" in words(rollout.figure)
    assert "not judged: it was left out" in words(rollout.figure)
    registers = replace(found, grid=Grid(3, 5, prefix=5))
    assert "21% of this row goes to the class token and 4 registers; the map shows the rest" in words(registers.figure)


def test_the_photograph_comes_first_and_layers_and_heads_small(found):
    labels = [axes.get_label() for axes in found.figure.axes]
    assert labels[:2] == ["overlay", "image"]
    assert [label for label in labels if label.startswith("layer")] == [f"layer {i}" for i in range(12)]
    assert [label for label in labels if label.startswith("head")] == [f"head {i}" for i in range(6)]
    boxes = [axes.get_position() for axes in found.figure.axes]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert all(0 <= box.x0 < box.x1 <= 1 and 0 <= box.y0 < box.y1 <= 1 for box in boxes)
    overlay = found.figure.axes[0]
    photograph, heat = overlay.images
    assert torch.equal(torch.tensor(photograph.get_array()), found.image.permute(1, 2, 0))
    alpha = heat.get_array()[..., 3]
    assert alpha[12, 28] > 0.4 or alpha.max() > 0.4
    assert alpha[-1, 0] == 0  # where nothing is, the photograph is as it is


def test_strength_is_a_square_root_between_the_smallest_and_the_largest():
    assert strength(torch.tensor([[1.0, 2.0, 5.0]]), signed=False).tolist() == [[0, 0.5, 1]]
    assert strength(torch.tensor([[-4.0, 0.0, 1.0]]), signed=True).tolist() == [[-1, 0, 0.5]]
    assert strength(torch.full((2, 2), 3.0), signed=False).tolist() == [[0, 0], [0, 0]]


def test_one_strong_patch_does_not_take_the_colours_from_the_others():
    values = torch.ones(10, 20)
    values[0, 0], values[5, 5], values[1, :3] = 100.0, 90.0, 4.0
    assert scale_ends(values, signed=False) == (1.0, 4.0)
    assert strength(values, signed=False)[1, :3].tolist() == [1.0] * 3
    assert scale_ends(-values, signed=True) == (-4.0, 4.0)


def test_the_line_holds_half_of_the_sum():
    assert half_level(torch.tensor([[4.0, 3.0, 2.0, 1.0]])) == 3.0
    assert half_level(torch.tensor([[6.0, 1.0, -9.0]])) == 6.0
    assert half_level(torch.zeros(2, 2)) is None


def test_a_notebook_a_file_and_json(found, tmp_path):
    found.save(tmp_path / "new" / "a.png")
    assert (tmp_path / "new" / "a.png").read_bytes() == found._repr_png_() == png_bytes(found.figure)
    assert found.overlay().size == (40, 24)
    plain = json.loads(found.json())
    assert plain["map"][1][3] == pytest.approx(0.4)
    assert plain["grid"] == {"height": 3, "width": 5, "prefix": 1}
    assert plain["faithfulness"]["line"] == TRUE.line
    assert plain["faithfulness"]["curves"]["blur"]["deletion"] == [1.0, 0.0]
    assert plain["stored_size"] == [48, 100]


def test_words_lie_inside_the_picture(found):
    figure = replace(found, title="a rather long name of a file " * 4).figure
    Image.open(io.BytesIO(png_bytes(figure, dpi=int(figure.dpi))))
    for text in figure.texts:
        box = text.get_window_extent()
        assert figure.bbox.x0 <= box.x0
        assert box.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= box.y0
        assert box.y1 <= figure.bbox.y1


@pytest.mark.parametrize("method", ["rows", "influence", "gradient-x-input", "occlusion"])
def test_maps_of_every_kind_are_drawn(method):
    model, image = vit("attention" if method != "influence" else "conv", pool="avg"), torch.randn(3, 12, 20)
    found = explain(model, image, method=method, judge=False, token="1,2" if method == "rows" else None)
    assert found.image.shape == (3, 12, 20)
    assert len(Image.open(io.BytesIO(found._repr_png_())).convert("L").getcolors()) > 10


def test_the_table_names_every_method_with_its_cost():
    assert set(METHODS) == set(NAMES)
    lines = table().splitlines()
    assert len(lines) == 2 + len(METHODS)
    assert all(line.count("|") == 5 for line in lines)
