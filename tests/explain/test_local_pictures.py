import pytest
import torch
from torch import nn

from regard.draw.png import png_bytes
from regard.errors import RegardError
from regard.explain import embeddings_figure, local_layers, mixing, model_figure, windows_figure
from regard.explain.local_layers import offsets, pick_layer, positional_logits, window_at
from regard.explain.local_pictures import EMBEDDINGS, MOST_LAYERS, WINDOWS
from regard.layers import Grid, LocalAttention2d
from regard.models import build, configure

HEIGHT, WIDTH, PATCH, WINDOW = 8, 14, 2, 3
GRID = Grid(4, 7)


@pytest.fixture
def image():
    """Dark, with one light patch at (1, 5)."""
    pixels = torch.randint(0, 40, (3, HEIGHT, WIDTH), dtype=torch.uint8)
    pixels[:, 2:4, 10:12] = 250
    return pixels


def vit(*mixers, pool="avg"):
    config = {"img_size": (HEIGHT, WIDTH), "patch_size": PATCH, "in_chans": 3, "num_classes": 5, "embed_dim": 18}
    config |= {"num_heads": 3, "depth": len(mixers), "mixer": mixers, "pool": pool}
    return build(configure("vit_pico_patch2_8", config | {"mixer_options": {"local": {"window": WINDOW}}})).eval()


def convnet(**options):
    """Two layers of local attention, the second on a grid of half the size."""
    first = LocalAttention2d(3, 12, num_heads=2, window=5, **options)
    return nn.Sequential(first, nn.AvgPool2d(2), nn.Sequential(LocalAttention2d(12, 12, num_heads=3, window=3))).eval()


def unchecked(function):
    """Without the run-time check of types, which users do not have."""
    return getattr(function, "__wrapped__", function)


def texts(figure):
    return [text.get_text() for text in figure.texts]


def panel(figure, label):
    (found,) = [axes for axes in figure.axes if axes.get_label() == label]
    return found


def heat(panel):
    return torch.tensor(panel.images[0].get_array().filled(torch.nan)).float()


def frames(panel):
    """(left, top, width, height) of each frame; each is drawn twice, dark under light."""
    drawn = [(*patch.get_xy(), patch.get_width(), patch.get_height()) for patch in panel.patches if not patch.fill]
    return drawn[::2]


@pytest.mark.parametrize("pool", ["avg", "token"])
def test_the_weights_in_a_window_are_those_of_the_mixing_matrix(image, pool):
    model, x = vit("local", "local", pool=pool), image / 255
    for number, layer in enumerate(local_layers(model, x)):
        found = mixing(model, x, layer=number)
        prefix = found.grid.prefix
        for row in range(GRID.height):
            for col in range(GRID.width):
                window = window_at(layer, row, col)
                rebuilt = torch.zeros(3, GRID.height, GRID.width)
                for i, y in enumerate(window.rows.tolist()):
                    for j, x_ in enumerate(window.cols.tolist()):
                        assert window.there[i, j] == (0 <= y < GRID.height and 0 <= x_ < GRID.width)
                        if window.there[i, j]:
                            rebuilt[:, y, x_] = window.weights[:, i, j]
                expected = found.heads[:, prefix + row * GRID.width + col]
                torch.testing.assert_close(rebuilt.flatten(1), expected[:, prefix:])
                torch.testing.assert_close(window.prefix, expected[:, :prefix])


@pytest.mark.parametrize(
    "options", [{}, {"dilation": 2}, {"border": "shift"}, {"border": "shift", "dilation": 2}], ids=str
)
def test_the_weights_and_the_values_in_a_window_give_a_feature_maps_pixel(options):
    model, x = convnet(**options), torch.rand(3, 11, 13)
    layer = local_layers(model, x)[0]
    with torch.no_grad():
        expected = model[0](x[None])[0]
        values = model[0].heads(x[None])[2][0]
    for row, col in [(0, 0), (5, 6), (10, 12), (3, 11)]:
        window = window_at(layer, row, col)
        seen = values[:, window.rows.clamp(0, 10)][:, :, window.cols.clamp(0, 12)]
        mixed = torch.einsum("hrc,hrcd->hd", window.weights, seen)
        torch.testing.assert_close(mixed.flatten(), expected[:, row, col])
        assert (window.weights[:, ~window.there] == 0).all()


def test_layers_are_found_where_they_are(image):
    layers = local_layers(vit("attention", "local", "fourier", "local"), image / 255)
    assert [(layer.name, layer.number, layer.grid) for layer in layers] == [
        ("layer 1", 1, GRID),
        ("layer 3", 3, GRID),
    ]
    assert [pick_layer(layers, number).number for number in (1, 3, -1, -2)] == [1, 3, 3, 1]
    for number in (0, 4, -3):
        with pytest.raises(RegardError, match=f"layer {number} is no layer of local attention; those are: 1, 3"):
            pick_layer(layers, number)

    model = convnet()
    layers = local_layers(model, torch.rand(3, 10, 12))
    assert [(layer.name, layer.number, layer.grid) for layer in layers] == [
        ("layer 0: 0", 0, Grid(10, 12)),
        ("layer 1: 2.0", 1, Grid(5, 6)),
    ]
    assert not any(module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("model", [vit("attention"), nn.Sequential(nn.Conv2d(3, 5, 1))], ids=["ViT", "Sequential"])
def test_a_model_without_local_attention_is_an_error(image, model):
    with pytest.raises(RegardError, match=f"^{type(model).__name__} has no local attention to show$"):
        local_layers(model, image / 255)


def test_the_positional_logits_are_the_mean_over_all_pixels(image):
    (layer,) = local_layers(vit("local"), image / 255)
    found = positional_logits(layer)
    assert found.shape == (3, WINDOW, WINDOW)
    for row in range(WINDOW):
        for col in range(WINDOW):
            r = torch.cat([layer.rel_rows[row], layer.rel_cols[col]])
            torch.testing.assert_close(found[:, row, col], (layer.q @ r).mean((1, 2)) * 6**-0.5)


def test_offsets_are_in_pixels():
    x = torch.rand(3, 10, 12)
    assert offsets(local_layers(convnet(), x)[0]) == ([-2, -1, 0, 1, 2],) * 2
    assert offsets(local_layers(convnet(dilation=2), x)[0])[0] == [-4, -2, 0, 2, 4]
    assert offsets(local_layers(convnet(border="shift"), x)[0])[0] == list(range(-4, 5))


def test_a_line_has_the_image_the_window_and_a_heat_map_a_layer(image):
    layers = local_layers(vit("local", "local"), image / 255)
    figure = windows_figure(image, layers, queries=[(1, 5), (0, 0)], title="flower.jpg")
    assert texts(figure)[0] == "flower.jpg"
    assert " ".join(texts(figure)[1:]) == WINDOWS
    assert len(figure.axes) == 2 * (2 + 2)
    for number in (0, 1):
        shown = panel(figure, f"layer {number}, pixel (1, 5)")
        weights = window_at(layers[number], 1, 5).weights.mean(0)
        torch.testing.assert_close(heat(shown), weights)
        assert shown.images[0].get_clim() == (0, pytest.approx(weights.max().item()))
        scale = shown.texts[1].get_text()
        assert abs(float(scale.removesuffix("%")) - 100 * weights.max().item()) <= 0.5
        assert frames(shown) == [(5, 1, 1, 1)]
    corner = heat(panel(figure, "layer 0, pixel (0, 0)"))
    assert corner[0].isnan().all()
    assert corner[:, 0].isnan().all()
    assert not corner[1:, 1:].isnan().any()


def test_the_window_is_outlined_as_far_as_it_lies_on_the_image(image):
    layers = local_layers(vit("local"), image / 255)
    figure = windows_figure(image, layers, queries=[(1, 5), (0, 0)])
    assert frames(panel(figure, "image, layer 0, pixel (1, 5)")) == [(4, 0, 3, 3), (5, 1, 1, 1)]
    assert frames(panel(figure, "image, layer 0, pixel (0, 0)")) == [(0, 0, 2, 2), (0, 0, 1, 1)]
    part = panel(figure, "window, layer 0, pixel (0, 0)")
    assert (part.get_xlim(), part.get_ylim()) == ((-1, 2), (2, -1))
    assert [text.get_text() for text in part.texts] == ["window 3 × 3"]


def test_what_the_class_token_gives_is_told(image):
    (layer,) = local_layers(vit("local", pool="token"), image / 255)
    shown = panel(windows_figure(image, [layer], queries=[(2, 2)]), "layer 0, pixel (2, 2)")
    told = shown.texts[-1].get_text().removeprefix("class token: ").removesuffix("%")
    assert abs(float(told) - 100 * window_at(layer, 2, 2).prefix.mean().item()) <= 0.5


def test_the_representative_pixels_are_light_patch_centre_and_corner(image):
    figure = windows_figure(image, local_layers(vit("local"), image / 255))
    assert [axes.get_label() for axes in figure.axes if axes.get_label().startswith("image")] == [
        f"image, layer 0, pixel {pixel}" for pixel in [(1, 5), (2, 3), (0, 0)]
    ]


def test_another_grid_begins_another_line_with_the_pixel_at_the_same_point():
    image = torch.randint(0, 255, (3, 10, 12), dtype=torch.uint8)
    figure = windows_figure(image, local_layers(convnet(dilation=2), image / 255), queries=[(7, 2)])
    assert [axes.get_label() for axes in figure.axes] == [
        "image, layer 0: 0, pixel (7, 2)",
        "window, layer 0: 0, pixel (7, 2)",
        "layer 0: 0, pixel (7, 2)",
        "image, layer 1: 2.0, pixel (3, 1)",
        "window, layer 1: 2.0, pixel (3, 1)",
        "layer 1: 2.0, pixel (3, 1)",
    ]
    dilated = heat(panel(figure, "layer 0: 0, pixel (7, 2)"))
    assert dilated.shape == (9, 9)
    assert dilated[1::2].isnan().all()
    assert panel(figure, "window, layer 0: 0, pixel (7, 2)").texts[0].get_text() == "window 5 × 5, 2 apart"


def test_a_deep_model_goes_on_in_the_next_line(image):
    layers = local_layers(vit(*["local"] * (MOST_LAYERS + 1)), image / 255)
    figure = windows_figure(image, layers, queries=[(1, 1)])
    assert len(figure.axes) == 2 + MOST_LAYERS + 2 + 1


def test_embeddings_have_a_panel_a_head_and_two_of_similarity(image):
    layers = local_layers(vit("local", "local"), image / 255)
    figure = embeddings_figure(layers, title="flower.jpg")
    assert " ".join(texts(figure)) == f"flower.jpg {EMBEDDINGS}"
    assert len(figure.axes) == 2 * (3 + 2)
    for layer in layers:
        expected = positional_logits(layer)
        expected = expected - expected.mean((1, 2), keepdim=True)
        for head in range(3):
            shown = panel(figure, f"{layer.name}, head {head}")
            torch.testing.assert_close(heat(shown), expected[head])
            highest = expected.abs().max().item()
            assert shown.images[0].get_clim() == (pytest.approx(-highest), pytest.approx(highest))
        alike = heat(panel(figure, f"{layer.name}, row offsets"))
        torch.testing.assert_close(alike.diagonal(), torch.ones(WINDOW))
        expected = torch.cosine_similarity(layer.rel_rows[0], layer.rel_rows[2], dim=0)
        torch.testing.assert_close(alike[0, 2], expected)


def test_no_layer_and_a_pixel_that_is_not_there_are_errors(image):
    layers = local_layers(vit("local"), image / 255)
    with pytest.raises(RegardError, match=r"pixel \(4, 0\) is not there: the grid of layer 0 is 4 × 7"):
        windows_figure(image, layers, queries=[(4, 0)])
    for figure in (lambda: windows_figure(image, []), lambda: embeddings_figure([])):
        with pytest.raises(RegardError, match="at least one layer, got none"):
            figure()


def test_a_model_without_mixers_shows_its_windows():
    model = build(configure("sasa_resnet14_small", {})).eval()
    seen = torch.randint(0, 255, (1, 8, 8), dtype=torch.uint8)
    figure = model_figure(model, seen / 255, seen, layer=-1, tokens=["1,0"])
    assert [axes.get_label() for axes in figure.axes][-1].endswith("pixel (1, 0)")
    assert len(figure.axes) == 3
    with pytest.raises(RegardError, match="SASAResNet has no token mixers; `influence` shows those of a ViT"):
        model_figure(model, seen / 255, seen, kind="influence")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"kind": "window", "tokens": ["class"]}, "a class token has no window, it sees all tokens"),
        ({"kind": "window", "tokens": ["0,9"]}, r"patch \(0, 9\) is not there: the grid is 4 × 7"),
        ({"kind": "window", "layer": 1}, "layer 1 is no layer of local attention; those are: 0"),
        ({"kind": "embeddings", "tokens": ["0,1"]}, "not to single tokens"),
    ],
)
def test_what_cannot_be_shown_is_an_error(image, options, told):
    with pytest.raises(RegardError, match=told):
        model_figure(vit("local", pool="token"), image / 255, image, **options)


def test_an_unknown_kind_is_an_error_that_offers_the_nearest(image):
    with pytest.raises(RegardError, match="unknown kind 'windows'; did you mean 'window'"):
        unchecked(model_figure)(vit("local"), image / 255, image, kind="windows")


@pytest.mark.parametrize("pool", ["avg", "token"])
def test_panels_and_words_lie_inside_the_picture(image, pool):
    layers = local_layers(vit("local", "local", pool=pool), image / 255)
    for figure in (windows_figure(image, layers, title="a long name " * 9), embeddings_figure(layers)):
        png_bytes(figure, dpi=int(figure.dpi))
        whole = figure.bbox
        words = [*figure.texts, *(text for axes in figure.axes for text in (*axes.texts, axes.title))]
        for artist in (*words, *figure.axes):
            box = artist.get_window_extent()
            assert whole.x0 <= box.x0
            assert box.x1 <= whole.x1
            assert whole.y0 <= box.y0
            assert box.y1 <= whole.y1
