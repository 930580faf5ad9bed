import base64
import io
from dataclasses import replace

import pytest
import torch
from PIL import Image

from regard.draw.png import figure_uri, png_bytes, save_png
from regard.errors import RegardError
from regard.explain import Mixing, heads_figure, mixing, mixing_figure, representative_tokens, token_at, token_name
from regard.explain.mixing_pictures import HEADS, KINDS, matrix_figure
from regard.layers import Grid
from regard.models import build, configure

HEIGHT, WIDTH, PATCH = 6, 10, 2
GRID = Grid(3, 5, prefix=1)


@pytest.fixture
def image():
    """Dark, with one light patch at (1, 3)."""
    pixels = torch.randint(0, 40, (3, HEIGHT, WIDTH), dtype=torch.uint8)
    pixels[:, 2:4, 6:8] = 250
    return pixels


@pytest.fixture
def mixings(image):
    """mixings(mixers) -> one a layer, of a model with random weights and a class token."""

    def build_and_mix(*mixers, pool="token"):
        config = {"img_size": (HEIGHT, WIDTH), "patch_size": PATCH, "in_chans": 3, "num_classes": 7, "embed_dim": 12}
        config |= {"num_heads": 3, "depth": len(mixers), "mixer": mixers, "pool": pool}
        model = build(configure("vit_pico_patch2_8", config)).eval()
        return [mixing(model, image / 255, layer=layer) for layer in range(len(mixers))]

    return build_and_mix


def texts(figure):
    return [text.get_text() for text in figure.texts]


def below(panel):
    return [text.get_text() for text in panel.texts]


def panel(figure, label):
    (found,) = [axes for axes in figure.axes if axes.get_label() == label]
    return found


def heat(panel):
    return torch.tensor(panel.images[0].get_array())


def test_tokens_have_numbers_and_names():
    assert token_at(GRID, 1, 3) == 1 + 5 + 3
    assert token_name(GRID, 9) == "patch (1, 3)"
    assert token_name(GRID, 0) == "class token"
    assert token_name(Grid(3, 5, prefix=2), 1) == "register 1"
    assert token_name(Grid(3, 5), 0) == "patch (0, 0)"


@pytest.mark.parametrize(("row", "col"), [(3, 0), (0, 5), (-1, 0)])
def test_a_patch_that_is_not_there_is_an_error(row, col):
    with pytest.raises(RegardError, match=rf"patch \({row}, {col}\) is not there: the grid is 3 × 5"):
        token_at(GRID, row, col)


def test_a_token_that_is_not_there_is_an_error():
    with pytest.raises(RegardError, match="token 16 is not there: the grid has tokens 0 to 15"):
        token_name(GRID, 16)


def test_the_representative_tokens_are_class_token_light_patch_centre_and_corner(image):
    assert representative_tokens(image, GRID) == [0, token_at(GRID, 1, 3), token_at(GRID, 1, 2), token_at(GRID, 0, 0)]
    assert representative_tokens(255 - image, Grid(3, 5)) == [
        8,
        7,
        0,
    ]  # as well a dark patch in a light image
    assert representative_tokens(image, Grid(1, 1)) == [0]  # each once


def test_a_mixer_with_a_matrix_shows_the_matrix(image, mixings):
    found = mixings("attention", "attention")
    figure = mixing_figure(image, found, title="a $5 photograph_of a flower")
    assert texts(figure)[0] == "a $5 photograph_of a flower"
    assert " ".join(texts(figure)[1:]) == f"attention: {KINDS['matrix']}"
    for layer in (0, 1):
        for token in (0, 9, 8, 1):
            shown = panel(figure, f"attention, layer {layer}, {token_name(GRID, token)}")
            row = found[layer].weights[token]
            torch.testing.assert_close(heat(shown), row[1:].reshape(3, 5).double(), check_dtype=False)
            scale, prefix = below(shown)[1:]
            assert scale.endswith("%")
            assert abs(float(scale[:-1]) - 100 * row[1:].max().item()) <= 0.5
            assert prefix.startswith("class token: ")
            assert abs(float(prefix.removeprefix("class token: ")[:-1]) - 100 * row[0].item()) <= 0.5
            assert shown.images[0].get_clim() == (0, pytest.approx(row[1:].max().item()))


def test_a_mixer_without_a_matrix_shows_its_influence(image, mixings):
    found = mixings("fourier", pool="avg")
    figure = mixing_figure(image, found)
    assert " ".join(texts(figure)) == f"fourier: {KINDS['influence']}"
    shown = panel(figure, "fourier, layer 0, patch (1, 3)")
    torch.testing.assert_close(heat(shown), found[0].weights[8].reshape(3, 5).double(), check_dtype=False)
    assert below(shown) == ["0", f"{found[0].weights[8].max().item():.3g}"]  # no class token, and a norm is no fraction


def test_several_kinds_are_told_apart(image, mixings):
    figure = mixing_figure(image, mixings("attention", "conv", "local", pool="avg"), tokens=[4])
    said = " ".join(texts(figure))
    assert f"attention, local: {KINDS['matrix']}" in said
    assert f"conv: {KINDS['influence']}" in said
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["", "layer 0\nattention", "layer 1\nconv", "layer 2\nlocal"]


def test_the_query_is_outlined_in_the_image_and_in_the_heat_map(image, mixings):
    figure = mixing_figure(image, mixings("attention"), tokens=[9, 0])
    for label in ("image, patch (1, 3)", "attention, layer 0, patch (1, 3)"):
        assert {patch.get_xy() for patch in panel(figure, label).patches} == {(3, 1)}
    assert not panel(figure, "image, class token").patches
    assert below(panel(figure, "image, class token")) == ["i = class token"]


def test_a_token_that_takes_nothing_from_any_patch_has_an_empty_map(image, mixings):
    figure = mixing_figure(image, mixings("none"), tokens=[0])
    shown = panel(figure, "none, layer 0, class token")
    assert not heat(shown).any()
    assert below(shown) == ["0", "0", "class token: 100%"]


def test_every_head_has_a_panel(image, mixings):
    (found,) = mixings("attention")
    figure = heads_figure(image, found, 9, title="flower.jpg")
    assert texts(figure)[0] == "flower.jpg"
    assert " ".join(texts(figure)[1:]) == f"attention, layer 0: {HEADS}"
    assert [axes.get_title() for axes in figure.axes] == ["", "head 0", "head 1", "head 2"]
    for head in range(3):
        shown = panel(figure, f"attention, layer 0, head {head}, patch (1, 3)")
        torch.testing.assert_close(heat(shown), found.heads[head, 9, 1:].reshape(3, 5).double(), check_dtype=False)


def test_heads_take_several_rows(image):
    heads = torch.rand(6, 15, 15)
    figure = heads_figure(
        image, Mixing("matrix", tuple(range(15)), heads.mean(0), heads, Grid(3, 5), 2, "attention"), 0
    )
    boxes = [axes.get_position() for axes in figure.axes]
    assert len(boxes) == 7  # the image and six heads; the empty places of the last row are gone
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_influence_has_no_heads(image, mixings):
    with pytest.raises(RegardError, match="fourier: influence is of a mixer as a whole"):
        heads_figure(image, mixings("fourier")[0], 0)


def test_all_weights_are_one_heat_map(image, mixings):
    (found,) = mixings("attention")
    (shown,) = (axes for axes in matrix_figure(found, title="flower.jpg").axes if axes.images)
    assert shown.get_label() == "attention, layer 0"
    torch.testing.assert_close(heat(shown), found.weights.double(), check_dtype=False)
    assert below(shown)[1].endswith("%")


def test_a_notebook_shows_mixings_and_figures(image, mixings):
    (found,) = mixings("attention")
    few = mixing_of(found, [0, 9])
    for shown in (found, few, mixing_figure(image, [found])):
        with Image.open(io.BytesIO(shown._repr_png_())) as picture:
            assert picture.format == "PNG"
            assert len(picture.convert("L").getcolors()) > 10
    assert mixing_figure(image, [found])._repr_png_() == png_bytes(mixing_figure(image, [found]))


def mixing_of(found, tokens):
    """A mixing of some of the query tokens."""
    return replace(found, tokens=tuple(tokens), weights=found.weights[tokens], heads=found.heads[:, tokens])


def test_mixings_of_several_grids_and_none_are_errors(image):
    square, long = (
        Mixing("matrix", tuple(range(4)), torch.eye(4), None, g, 0, "none") for g in (Grid(2, 2), Grid(1, 4))
    )
    with pytest.raises(RegardError, match="one grid, got"):
        mixing_figure(image, [square, long])
    with pytest.raises(RegardError, match="no mixing"):
        mixing_figure(image, [])


def test_a_png_is_written_whole(image, mixings, tmp_path):
    figure = mixing_figure(image[:1], mixings("attention"))  # grey as well as colour
    path = tmp_path / "mixing.png"
    save_png(figure, path, dpi=70)
    assert list(tmp_path.iterdir()) == [path]
    with Image.open(path) as picture:
        width, height = figure.get_size_inches() * 70
        assert picture.size == (pytest.approx(width, abs=1), pytest.approx(height, abs=1))
        assert len(picture.convert("L").getcolors()) > 10
    assert path.read_bytes() == png_bytes(figure, dpi=70)
    assert base64.b64decode(figure_uri(figure, dpi=70).removeprefix("data:image/png;base64,")) == path.read_bytes()


def test_a_png_that_cannot_be_written_is_an_error(image, mixings, tmp_path):
    with pytest.raises(RegardError, match="could not be saved"):
        save_png(mixing_figure(image, mixings("attention"), tokens=[1]), tmp_path / "missing" / "mixing.png")


def test_letters_that_the_font_lacks_do_no_harm(image, mixings):
    assert png_bytes(mixing_figure(image, mixings("attention"), tokens=[1], title="花.jpg"), dpi=40)


def test_panels_and_words_lie_inside_the_picture(image, mixings):
    figure = mixing_figure(image, mixings("attention"), tokens=[0, 1], title="a rather long name of a file " * 4)
    png_bytes(figure, dpi=int(figure.dpi))
    whole = figure.bbox
    for artist in (*figure.texts, *(text for axes in figure.axes for text in axes.texts)):
        box = artist.get_window_extent()
        assert whole.x0 <= box.x0
        assert box.x1 <= whole.x1
        assert whole.y0 <= box.y0
        assert box.y1 <= whole.y1


def test_nothing_global_is_touched(image, mixings):
    import matplotlib

    before = dict(matplotlib.rcParams)
    png_bytes(mixing_figure(image, mixings("attention"), tokens=[1]))
    assert dict(matplotlib.rcParams) == before
