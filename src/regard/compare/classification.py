"""Classification in the report: what a contender took for what, its mistakes, what it mixes."""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Int
from torch import Tensor

from regard.compare.contender import Contender
from regard.compare.task_view import device_of, short_name, split_words
from regard.data import ImageSource
from regard.data.images.transforms import ResizeAndCrop
from regard.draw.png import image_uri
from regard.draw.svg import inline_svg
from regard.errors import RegardError
from regard.explain import mixing, mixing_figure, representative_tokens
from regard.models import ViT
from regard.recipes import Recipe
from regard.tasks import ClassificationTask, Classifier
from regard.training import Run, load_classifier

NUM_MISTAKES = 12
# A table of more classes than this cannot be read; the commonest confusions are listed in its place.
LARGEST_TABLE = 30
NUM_CONFUSIONS = 20


@dataclass(frozen=True)
class Picture:
    """A held-out image as the model saw it, and how it was read."""

    name: str
    short_name: str
    """Without the folders."""
    address: str
    """A data: address, which holds the picture."""
    read_as: str
    score: float
    truth: str


@dataclass(frozen=True)
class ConfusionRow:
    """Of one class: (how many were read as class j, their share) for every j, and the share read right, in words."""

    cells: list[tuple[int, float]]
    right: str


@dataclass(frozen=True)
class Section:
    name: str
    seed: int
    seeds: int
    num_images: int
    num_mistakes: int
    class_names: tuple[str, ...]
    table: list[ConfusionRow] | None
    """None where there are more than `LARGEST_TABLE` classes."""
    confusions: list[tuple[str, str, int]]
    """(what it is, what it was taken for, how often), the commonest first."""
    mistakes: list[Picture]
    shown: Picture
    mixing: str
    """SVG; empty where the model has no token mixers."""


class ClassificationView:
    """Images and their classes."""

    template = "classification.html.j2"
    unit = "images"
    part = "held-out"
    loss = "training loss (nats)"
    timed = "an image"
    counted = "an image"
    about = "Accuracy is that of the final weights on the held-out images."

    def __init__(self, task: ClassificationTask) -> None:
        self.task = task
        self.data = task.data

    @property
    def num_held_out(self) -> int:
        return len(self.data.val)

    @property
    def trained_on(self) -> str:
        return f"{len(self.data.train)} images of {self.data.address}"

    @property
    def tested_on(self) -> str:
        return f"{len(self.data.val)} images that it had not seen"

    def facts(self) -> list[tuple[str, str]]:
        data = self.data
        split = split_words(self.task.recipe, own=data.has_val)
        return [
            ("Data", data.address),
            ("Images", f"{len(data.train)} for training, {len(data.val)} held out; {split}"),
            ("Classes", str(len(data.class_names))),
        ]

    def section(self, contender: Contender) -> Section:
        return _section_of(contender, self.data.val, self.task.recipe)


def _section_of(contender: Contender, source: ImageSource, recipe: Recipe) -> Section:
    run = Run.open(contender.runs[0])
    classifier = load_classifier(run.path, device=device_of(recipe))
    options = recipe.data
    found = classifier.evaluate(source, num_workers=options.num_workers, on_bad_image=options.on_bad_image)
    if not found.names:
        raise RegardError(f"{run.path}: none of the held-out images can be read")
    # What cannot be read is left out of an evaluation, so that its numbers are not the source's.
    numbers = {source.name(number): number for number in range(len(source))}
    confusion = found.confusion()

    def picture(index: int) -> Picture:
        probability, label = found.logits[index].softmax(0).max(0)
        seen = ResizeAndCrop(classifier.preprocessing)(source.read(numbers[found.names[index]]))
        truth = found.class_names[int(found.labels[index])]
        name = found.names[index]
        read_as = found.class_names[int(label)]
        return Picture(name, short_name(name), image_uri(seen), read_as, probability.item(), truth)

    mistakes = found.mistakes()
    return Section(
        name=contender.name,
        seed=run.recipe().seed,
        seeds=len(contender.runs),
        num_images=len(found.names),
        num_mistakes=len(mistakes),
        class_names=found.class_names,
        table=_confusion_table(confusion) if len(found.class_names) <= LARGEST_TABLE else None,
        confusions=commonest(confusion, found.class_names),
        mistakes=[picture(index) for index in mistakes[:NUM_MISTAKES]],
        shown=picture(0),
        mixing=_mixing_svg(classifier, source.read(numbers[found.names[0]])),
    )


def _confusion_table(confusion: Int[Tensor, "num_classes num_classes"]) -> list[ConfusionRow]:
    rows = []
    for label, row in enumerate(confusion.tolist()):
        total = sum(row)
        shares = [count / total if total else 0.0 for count in row]
        rows.append(ConfusionRow(list(zip(row, shares, strict=True)), f"{shares[label]:.0%}" if total else "–"))
    return rows


def commonest(confusion: Int[Tensor, "num_classes num_classes"], names: Sequence[str]) -> list[tuple[str, str, int]]:
    """(what it is, what it was taken for, how often)"""
    wrong = confusion.clone().fill_diagonal_(0)
    pairs = [(names[i], names[j], int(wrong[i, j])) for i, j in wrong.nonzero().tolist()]
    return sorted(pairs, key=lambda pair: -pair[2])[:NUM_CONFUSIONS]


def _mixing_svg(classifier: Classifier, image: Tensor) -> str:
    model = classifier.model
    if not isinstance(model, ViT):
        return ""
    prepared = classifier.prepare(image).to(classifier.device)
    seen = ResizeAndCrop(classifier.preprocessing)(image)
    tokens = representative_tokens(seen, model.grid)
    found = [mixing(model, prepared, layer=layer, tokens=tokens) for layer in range(len(model.blocks))]
    return inline_svg(mixing_figure(seen, found))
