"""The picture of what a decoder looked at."""

import io

import pytest
import torch
from PIL import Image

from regard.draw.png import png_bytes
from regard.errors import RegardError
from regard.explain import alignment_figure

SOURCE, TARGET = tuple("een $ twee"), ("1", "2", "end")


@pytest.fixture
def weights():
    """Of two layers and five heads."""
    return torch.rand(2, 5, len(TARGET), len(SOURCE)).softmax(-1)


def test_a_panel_a_layer_with_the_mean_over_heads(weights):
    figure = alignment_figure(SOURCE, TARGET, weights, title="een twee → 12")
    assert [panel.get_title(loc="left") for panel in figure.axes] == ["layer 0", "layer 1"]
    assert "een twee → 12" in [text.get_text() for text in figure.texts]
    for layer, panel in enumerate(figure.axes):
        (picture,) = panel.images
        torch.testing.assert_close(torch.as_tensor(picture.get_array().data), weights[layer].mean(0))
        assert picture.get_clim() == (0, pytest.approx(weights.mean(1).max().item()))
        assert [label.get_text() for label in panel.get_yticklabels()] == list(TARGET)


def test_spaces_are_seen_and_nothing_is_a_formula(weights):
    panel = alignment_figure(SOURCE, TARGET, weights).axes[0]
    assert [label.get_text() for label in panel.get_xticklabels()] == [*"een", "␣", "$", "␣", *"twee"]
    assert png_bytes(alignment_figure(("$", "x", "$"), ("$$", "\n"), torch.ones(1, 1, 2, 3)), dpi=40)


def test_the_picture_grows_with_its_texts(weights):
    small, large = (
        Image.open(io.BytesIO(png_bytes(alignment_figure(source, TARGET, given), dpi=50)))
        for source, given in ((SOURCE, weights), (SOURCE * 6, weights.repeat(1, 1, 1, 6)))
    )
    assert large.width > 1.5 * small.width
    assert large.height == small.height


def test_words_lie_inside_the_picture(weights):
    figure = alignment_figure(SOURCE, TARGET, weights, title="een twee")
    png_bytes(figure, dpi=int(figure.dpi))
    for text in (*figure.texts, *(label for panel in figure.axes for label in panel.get_yticklabels())):
        box = text.get_window_extent()
        assert figure.bbox.x0 <= box.x0
        assert box.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= box.y0
        assert box.y1 <= figure.bbox.y1


@pytest.mark.parametrize("shape", [(2, 5, 3, 9), (2, 5, 4, 10), (2, 5, 10, 3), (0, 5, 3, 10)])
def test_names_and_weights_that_do_not_meet_are_one_line(shape):
    with pytest.raises(RegardError, match=r"alignment: weights \(\d, 5, \d+, \d+\) are not \(layers, heads, 3, 10\)"):
        alignment_figure(SOURCE, TARGET, torch.zeros(shape))


def test_weights_of_zero_and_one_token_are_drawn():
    assert png_bytes(alignment_figure(("x",), ("end",), torch.zeros(1, 1, 1, 1)), dpi=40)
