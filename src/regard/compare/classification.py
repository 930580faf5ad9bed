"""Classification in the report: confusion matrix, errors, and the mixing matrix or influence of each layer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Int
from torch import Tensor

from regard.compare.contender import Contender
from regard.compare.task_view import device_of, short_name, split_words
from regard.data import ImageSource
from regard.draw.png import image_uri
from regard.draw.svg import inline_svg
from regard.errors import RegardError
from regard.explain import mixing, mixing_figure, representative_tokens
from regard.models import ViT
from regard.recipes import Recipe
from regard.tasks import ClassificationTask, Classifier, Evaluation
from regard.training import Run, load_classifier

NUM_MISTAKES = 12
NUM_ONLY_RIGHT = 6
# With more classes than this a confusion matrix cannot be read; the most frequent confusions are listed instead.
LARGEST_TABLE = 30
NUM_CONFUSIONS = 20
HEADS = {"ap": "AP", "f1": "F1"}


@dataclass(frozen=True)
class Picture:
    """A held-out image as the model saw it, and what it was classified as."""

    name: str
    short_name: str
    """Without the folders."""
    address: str
    """A data: address that holds the image."""
    predicted: str
    score: float
    truth: str


@dataclass(frozen=True)
class ConfusionRow:
    """The images of one class."""

    cells: list[tuple[int, float]]
    """(how many were classified as class j, their fraction) for each class j."""
    recall: str
    """The fraction that was classified correctly, as a percentage."""


@dataclass(frozen=True)
class PerClass:
    """A table of the figures of each class."""

    caption: str
    heads: tuple[str, ...]
    rows: list[tuple[str, list[str]]]
    """(class, its figures)."""


@dataclass(frozen=True)
class Section:
    name: str
    seed: int
    seeds: int
    num_images: int
    num_mistakes: int
    class_names: tuple[str, ...]
    table: list[ConfusionRow] | None
    """None if there are more than `LARGEST_TABLE` classes."""
    confusions: list[tuple[str, str, int]]
    """(true class, predicted class, how often), the most frequent first."""
    balanced_accuracy: float
    per_class: PerClass
    mistakes: list[Picture]
    shown: Picture
    mixing: str
    """SVG; empty if the model has no token mixers."""
    right: frozenset[str]
    """The names of the images that it classified correctly."""


class ClassificationView:
    """Images and their classes."""

    template = "classification.html.j2"
    unit = "images"
    split = "held-out"
    loss = "training loss (nats)"
    timed = "an image"
    counted = "an image"
    about = "Accuracy is that of the final weights on the held-out images."

    def __init__(self, task: ClassificationTask) -> None:
        self.task = task
        self.data = task.data

    @property
    def num_held_out(self) -> int | None:
        return len(self.data.val)

    @property
    def trained_on(self) -> str:
        return f"{len(self.task.drawn)} images of {self.data.address}"

    @property
    def tested_on(self) -> str:
        return f"{len(self.data.val)} images that it had not seen"

    def facts(self) -> list[tuple[str, str]]:
        data = self.data
        split = split_words(self.task.recipe, own=data.has_val)
        return [
            ("Data", data.address),
            ("Images", f"{len(self.task.drawn)} for training, {len(data.val)} held out; {split}"),
            ("Classes", str(len(data.class_names))),
            *self._balance(),
        ]

    def _balance(self) -> list[tuple[str, str]]:
        """How the recipe deals with classes of unequal size, where it does."""
        train, data = self.task.recipe.train, self.task.recipe.data
        found = [
            "class weights in the loss" if train.class_weights == "balanced" else "",
            "images of rare classes drawn more often" if data.sampling == "balanced" else "",
            f"focal loss, γ = {train.focal_gamma:g}" if train.loss == "focal" else "",
        ]
        said = ", ".join(one for one in found if one)
        return [("Balance", said)] if said else []

    def section(self, contender: Contender) -> Any:
        return _section_of(contender, self.data.val, self.task.recipe)


@dataclass(frozen=True)
class Evaluated:
    """The first run of a contender, and what it makes of the images that can be read."""

    run: Run
    classifier: Classifier
    found: Evaluation
    source: ImageSource

    @classmethod
    def of(cls, contender: Contender, source: ImageSource, recipe: Recipe) -> "Evaluated":
        run = Run.open(contender.runs[0])
        classifier = load_classifier(run.path, device=device_of(recipe))
        options = recipe.data
        found = classifier.evaluate(source, num_workers=options.num_workers, on_bad_image=options.on_bad_image)
        if not found.names:
            raise RegardError(f"{run.path}: none of the held-out images can be read")
        return cls(run, classifier, found, source)

    def image(self, index: int) -> Tensor:
        """Image `index` of the evaluation, which leaves out those that cannot be read."""
        numbers = {self.source.name(number): number for number in range(len(self.source))}
        return self.source.read(numbers[self.found.names[index]])

    def picture(self, index: int, predicted: str, score: float, truth: str) -> Picture:
        seen = self.classifier.preprocessing.seen(self.classifier.prepare(self.image(index)))
        name = self.found.names[index]
        return Picture(name, short_name(name), image_uri(seen), predicted, score, truth)


def per_class_table(rows: Sequence[dict[str, Any]]) -> PerClass:
    """The figures of all classes, or of the worst where there are more than a page can show."""
    heads = tuple(HEADS.get(name, name) for name in rows[0] if name != "name")
    caption = "The figures of each class; precision, recall and F1 are fractions."
    if len(rows) > LARGEST_TABLE:
        caption = f"The {NUM_CONFUSIONS} classes of the lowest F1, of {len(rows)}."
        rows = sorted((row for row in rows if row["images"]), key=lambda row: row["f1"])[:NUM_CONFUSIONS]
    return PerClass(
        caption, heads, [(row["name"], [_cell(row[name]) for name in row if name != "name"]) for row in rows]
    )


def _cell(value: Any) -> str:
    return "–" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)


def _section_of(contender: Contender, source: ImageSource, recipe: Recipe) -> Section:
    one = Evaluated.of(contender, source, recipe)
    found, details = one.found, one.found.details()
    confusion = found.confusion()

    def picture(index: int) -> Picture:
        probability, label = found.logits[index].softmax(0).max(0)
        truth = found.class_names[int(found.labels[index])]
        return one.picture(index, found.class_names[int(label)], probability.item(), truth)

    mistakes = found.mistakes()
    return Section(
        name=contender.name,
        seed=one.run.recipe().seed,
        seeds=len(contender.runs),
        num_images=len(found.names),
        num_mistakes=len(mistakes),
        class_names=found.class_names,
        table=_confusion_table(confusion) if len(found.class_names) <= LARGEST_TABLE else None,
        confusions=most_frequent(confusion, found.class_names),
        balanced_accuracy=details["balanced_accuracy"],
        per_class=per_class_table(details["per_class"]),
        mistakes=[picture(index) for index in mistakes[:NUM_MISTAKES]],
        shown=picture(0),
        mixing=_mixing_svg(one.classifier, one.image(0)),
        right=frozenset(found.names) - {found.names[index] for index in mistakes},
    )


def only_right(
    contenders: Sequence[Contender], sections: Sequence[Any], source: ImageSource
) -> list[list[tuple[str, str]]]:
    """(name, a data: address) of images that a contender's first run alone classified correctly; at most a row each."""
    rights = [section.right if isinstance(section, Section) else frozenset() for section in sections]
    numbers = {source.name(number): number for number in range(len(source))}
    found = []
    for place, (contender, right) in enumerate(zip(contenders, rights, strict=True)):
        others: frozenset[str] = frozenset().union(*rights[:place], *rights[place + 1 :])
        names = sorted(right - others, key=numbers.__getitem__)[:NUM_ONLY_RIGHT] if len(rights) > 1 else []
        pictures = []
        if names:
            classifier = load_classifier(contender.runs[0], device="cpu")
            for name in names:
                prepared = classifier.prepare(source.read(numbers[name]))
                pictures.append((short_name(name), image_uri(classifier.preprocessing.seen(prepared))))
        found.append(pictures)
    return found


def _confusion_table(confusion: Int[Tensor, "num_classes num_classes"]) -> list[ConfusionRow]:
    rows = []
    for label, row in enumerate(confusion.tolist()):
        total = sum(row)
        fractions = [count / total if total else 0.0 for count in row]
        recall = f"{fractions[label]:.0%}" if total else "–"
        rows.append(ConfusionRow(list(zip(row, fractions, strict=True)), recall))
    return rows


def most_frequent(
    confusion: Int[Tensor, "num_classes num_classes"], names: Sequence[str]
) -> list[tuple[str, str, int]]:
    """(true class, predicted class, how often) of the most frequent errors."""
    wrong = confusion.clone().fill_diagonal_(0)
    pairs = [(names[i], names[j], int(wrong[i, j])) for i, j in wrong.nonzero().tolist()]
    return sorted(pairs, key=lambda pair: -pair[2])[:NUM_CONFUSIONS]


def _mixing_svg(classifier: Classifier, image: Tensor) -> str:
    model = classifier.model
    if not isinstance(model, ViT):
        return ""
    prepared = classifier.prepare(image)
    seen, prepared = classifier.preprocessing.seen(prepared), prepared.to(classifier.device)
    tokens = representative_tokens(seen, model.grid)
    found = [mixing(model, prepared, layer=layer, tokens=tokens) for layer in range(len(model.blocks))]
    return inline_svg(mixing_figure(seen, found))
