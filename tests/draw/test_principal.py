"""Maps as colours: their first three principal components, the same each time."""

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from regard.draw.png import SMALL, thumbnail_uri
from regard.draw.principal import principal_colours, principal_components


def test_components_are_the_covariances_eigenvectors():
    torch.manual_seed(0)
    vectors = torch.randn(40, 7) * torch.tensor([5.0, 3.0, 2.0, 1.0, 1.0, 0.5, 0.1]) + 9
    found = principal_components(vectors)
    assert found.shape == (40, 3)
    assert found.dtype == torch.float64
    centred = vectors.double() - vectors.double().mean(0)
    values, directions = torch.linalg.eigh(centred.T @ centred / 39)
    torch.testing.assert_close(found.var(0), values.flip(0)[:3])
    expected = centred @ directions.flip(1)[:, :3]
    torch.testing.assert_close(found.abs(), expected.abs())


def test_the_sign_depends_on_the_direction_alone():
    torch.manual_seed(1)
    vectors = torch.randn(30, 5)
    found = principal_components(vectors)
    for column in range(3):
        # The direction, out of the scores: the channel of largest weight grows with the component.
        direction = torch.linalg.lstsq(found, vectors.double() - vectors.double().mean(0)).solution[column]
        assert direction[direction.abs().argmax()] > 0
    order = torch.randperm(30)
    torch.testing.assert_close(principal_components(vectors[order]), found[order])


def test_components_that_there_are_not_are_zero():
    vectors = torch.tensor([[0.0, 1.0], [2.0, 5.0], [4.0, 0.0]])
    found = principal_components(vectors)
    assert found.shape == (3, 3)
    assert (found[:, 2] == 0).all()
    assert (principal_components(torch.ones(1, 8)) == 0).all()


def test_colours_are_of_all_maps_together():
    torch.manual_seed(2)
    maps = [torch.randn(6, 3, 4), torch.randn(6, 3, 4), torch.randn(6, 2, 5)]
    pictures = principal_colours(maps)
    assert [tuple(one.shape) for one in pictures] == [(3, 3, 4), (3, 3, 4), (3, 2, 5)]
    pixels = torch.cat([one.flatten(1) for one in pictures], dim=1)
    assert pixels.dtype == torch.uint8
    assert pixels.amin(1).tolist() == [0, 0, 0]
    assert pixels.amax(1).tolist() == [255, 255, 255]
    scores = principal_components(torch.cat([one.flatten(1).T for one in maps]))
    shares = (scores - scores.amin(0)) / (scores.amax(0) - scores.amin(0))
    assert torch.equal(pixels.T, (255 * shares).round().byte())
    # Row by row: the place of a pixel is that of its features.
    alone = torch.zeros(6, 3, 4)
    alone[:, 1, 2] = 1
    red = principal_colours([alone])[0][0]
    assert red[1, 2] == 255
    assert red.sum() == 255


def test_maps_that_never_vary_are_black_and_not_noise():
    for value in (0.0, 0.1, 1e6):
        assert principal_colours([torch.full((4, 2, 2), value)])[0].sum() == 0


@pytest.mark.parametrize("channels", [1, 3])
def test_a_small_image_keeps_its_pixels_and_a_large_one_is_shrunk(channels):
    def picture(image):
        kind, _, contents = thumbnail_uri(image, 96).partition(";base64,")
        return kind, Image.open(io.BytesIO(base64.b64decode(contents)))

    small = torch.randint(0, 256, (channels, SMALL, 8), dtype=torch.uint8)
    kind, found = picture(small)
    assert kind == "data:image/png"
    assert np.array_equal(np.asarray(found), small.expand(3, -1, -1).permute(1, 2, 0).numpy())
    kind, found = picture(torch.zeros(channels, 200, 100, dtype=torch.uint8))
    assert kind == "data:image/jpeg"
    assert found.size == (48, 96)
