"""Pre-training in the report: what the features know of the classes, and pictures of what the model sees."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from regard.compare.contender import Contender
from regard.compare.efficiency_chart import EfficiencyPart, efficiency_of, efficiency_part
from regard.compare.newest_state import learner_of, minutes_at, progress_of
from regard.compare.pretraining_pictures import Drawing, Maps, Neighbours, Pictures
from regard.compare.table import listed
from regard.compare.task_view import device_of, split_words
from regard.draw.plots import Series, curves_figure, three_digits
from regard.draw.svg import inline_svg
from regard.errors import RegardError
from regard.models import MaskedAutoencoder, SimMIM
from regard.tasks import PretrainingTask, create_task
from regard.tasks.pretraining.paid import paid_words
from regard.training import Run, load_classifier

# Of the records of an evaluation, what is measured with labels, and what a chart calls it.
MEASURES = {"knn": "nearest neighbours", "linear": "linear head", "accuracy": "its own head"}
METHODS = {
    "distill": "distillation: the student learns what a frozen teacher sees in the images",
    "self": "self-distillation: the student sees a part of each image, and learns what its moving average sees in all "
    "of it (data2vec, Baevski et al. 2022)",
    "mae": "MAE: the model gets the visible patches alone, and a small decoder draws the hidden ones (He et al. 2022)",
    "simmim": "SimMIM: mask tokens stand for the hidden patches, which a linear head draws (Xie et al. 2022)",
}


@dataclass(frozen=True)
class KnownPart:
    """What the features know of the classes, as the training went on."""

    words: str
    svg: str
    heads: list[str]
    """"after 0.31 minutes", ...: the first evaluation, and the last."""
    rows: list[tuple[str, list[str]]]
    """(measure, its figures in percent)."""
    against: str
    """"minutes", or "epochs" where nobody knows the minutes."""


@dataclass(frozen=True)
class Section:
    name: str
    seed: int
    seeds: int
    paid: str
    """A sentence; empty where the run began from no weights."""
    teacher_has_classes: bool
    known: KnownPart | None
    """None where there are no labels to measure with, or none of the measures is finite."""
    efficiency: EfficiencyPart | None
    no_efficiency: str
    """Why there is none, or how to get it."""
    neighbours: list[Neighbours]
    num_searched: int
    same_class: tuple[int, int]
    """Of the neighbours that are shown, how many have the class of their image, and how many there are."""
    maps: list[Maps]
    grids: str
    drawings: list[Drawing]
    no_drawings: str
    """Why there are none, where the method draws; empty for others."""
    hidden: float
    normalised: bool


class PretrainingView:
    """Images that are learned from without labels; labels, where there are some, measure alone."""

    template = "pretraining.html.j2"
    unit = "images"
    split = "held-out"
    loss = "training loss"
    timed = "an image"
    counted = "an image"
    about = (
        "The loss is that of the final weights on the held-out images, as it is defined above: less is better, and "
        "losses of different methods or teachers cannot be compared. Labels teach nothing here: they only measure."
    )
    num_held_out = None

    def __init__(self, task: PretrainingTask) -> None:
        self.task = task
        self.data = task.data

    @property
    def trained_on(self) -> str:
        return f"{len(self.data.train)} images of {self.data.address}, without labels,"

    @property
    def tested_on(self) -> str:
        return f"{len(self.data.val)} images that it had not seen"

    def facts(self) -> list[tuple[str, str]]:
        data, options, task = self.data, self.task.recipe.pretrain, self.task
        split = split_words(task.recipe, own=data.has_val)
        found = [
            ("Data", data.address),
            ("Images", f"{len(data.train)} for training, {len(data.val)} held out; {split}"),
            ("Labels", self._labels()),
            ("Method", METHODS[self._method]),
        ]
        if task.teacher is not None:
            height, width = task.teacher.preprocessing.img_size
            views = task.lessons.num_views
            each = "each training image" if views == 1 else f"{views} views of each training image"
            classes = f", with {len(task.teacher.class_names)} classes" if task.teacher.class_names else ""
            found.append(("Teacher", f"{task.teacher.name}{classes}; it sees {each} at {height} × {width} pixels"))
        if options.start is not None:
            found.append(("Began from", options.start))
        return [*found, ("Loss", self._loss())]

    @property
    def _method(self) -> str:
        options = self.task.recipe.pretrain
        return "self" if options.method == "distill" and not options.has_teacher else options.method

    def _labels(self) -> str:
        if self.task.has_labels:
            return f"{len(self.data.class_names)} classes, which measure the features; nothing is learned from them"
        return "several an image, by which nothing is measured" if self.data.multi_label else "none"

    def _loss(self) -> str:
        options, hidden = self.task.recipe.pretrain, f"{100 * self.task.recipe.pretrain.fraction_hidden:.0f}%"
        match self._method:
            case "mae":
                drawn = ", each with a mean of 0 and a deviation of 1" if options.normalised_patches else ""
                return f"the mean square of the differences in the hidden patches ({hidden} of them{drawn})"
            case "simmim":
                return f"the mean absolute difference in the hidden patches ({hidden} of them)"
            case "self":
                return (
                    f"Huber’s function of the differences in the hidden patches ({hidden} of them), from the mean of "
                    "the last blocks’ normalised outputs"
                )
        parts = [
            f"{weight:g} × {what}"
            for weight, what in (
                (options.pooled_weight, "that of the pooled features"),
                (options.pixels_weight, "that of the patches"),
                (options.logits_weight if self.task.class_names else 0, _of_classes(options.temperature)),
            )
            if weight
        ]
        return (
            f"{' + '.join(parts)}; that of features is the mean of Huber’s function of the differences, with the "
            "teacher’s features at a mean of 0 and a deviation of 1 in each channel (Wei et al. 2022, section 3)"
        )

    def section(self, contender: Contender) -> Section:
        run = Run.open(contender.runs[0])
        return _section_of(contender, run, self._task_of(run))

    def _task_of(self, run: Run) -> PretrainingTask:
        """That of a run: contenders on the same data may have other models, methods and teachers."""
        recipe = run.recipe()
        if recipe == self.task.recipe:
            return self.task
        task = create_task(recipe)
        assert isinstance(task, PretrainingTask)
        return task


def _section_of(contender: Contender, run: Run, task: PretrainingTask) -> Section:
    pictures = Pictures(task, load_classifier(run.path, device=device_of(task.recipe)))
    neighbours, maps = pictures.neighbours(), pictures.maps()
    efficiency, no_efficiency = _efficiency(run, task)
    drawings, no_drawings = _drawings(run, task, pictures)
    pairs = [near.label == one.image.label for one in neighbours for near in one.nearest]
    options = task.recipe.pretrain
    return Section(
        name=contender.name,
        seed=run.recipe().seed,
        seeds=len(contender.runs),
        paid=paid_sentence(options.start, run.metadata().get("paid")),
        teacher_has_classes=bool(task.class_names),
        known=_known(run) if task.has_labels else None,
        efficiency=efficiency,
        no_efficiency=no_efficiency,
        neighbours=neighbours,
        num_searched=pictures.num_searched,
        same_class=(sum(pairs), len(pairs)),
        maps=maps,
        grids=pictures.grids,
        drawings=drawings,
        no_drawings=no_drawings,
        hidden=options.fraction_hidden,
        normalised=options.method == "mae" and options.normalised_patches,
    )


def paid_sentence(start: str | None, found: Any) -> str:
    """Whether a pre-training that began from weights made them better; "" for one that began from none."""
    if start is None:
        return ""
    if not isinstance(found, dict):
        return f"It began from {start}: without labels nobody can tell whether it paid."
    return f"It began {paid_words(start, found)}."


def _known(run: Run) -> KnownPart | None:
    progress, records = progress_of(run), [one for one in run.history() if one["kind"] == "val"]
    places = [one["epoch"] if progress is None else minutes_at(progress, one["step"]) for one in records]
    against = "epochs" if progress is None else "minutes"
    curves = {
        words: [(place, one[name]) for place, one in zip(places, records, strict=True) if name in one]
        for name, words in MEASURES.items()
    }
    curves = {words: curve for words, curve in curves.items() if curve}
    if not curves:
        return None
    series = [Series(words, (tuple(curve),)) for words, curve in curves.items()]
    figure = curves_figure(series, y_label="accuracy, held-out images", percent=True, x_label=against)
    ends = [0, -1] if len(places) > 1 else [-1]
    said = "; ".join(f"{words} {_percent(curve[-1][1])}%" for words, curve in curves.items())
    return KnownPart(
        words=f"Accuracy of {listed(list(curves))} against {against}. After {three_digits(places[-1])}: {said}.",
        svg=inline_svg(figure),
        heads=[f"after {three_digits(places[end])} {against}" for end in ends],
        rows=[(words, [_percent(curve[end][1]) for end in ends]) for words, curve in curves.items()],
        against=against,
    )


def _efficiency(run: Run, task: PretrainingTask) -> tuple[EfficiencyPart | None, str]:
    """What was measured, or why there is nothing; neither where there are no labels."""
    if not task.has_labels:
        return None, ""
    found = _or_reason(lambda: efficiency_of(run))
    if isinstance(found, str):
        return None, f"It cannot be shown: {found}."
    if found is None:
        return None, (
            "How much a pre-training saves in labels, against the same model from scratch, was not measured; "
            f"`regard pretrain --resume {run.path} --label-efficiency` does it."
        )
    return efficiency_part(found), ""


def _drawings(run: Run, task: PretrainingTask, pictures: Pictures) -> tuple[list[Drawing], str]:
    """What the model draws in hidden patches, or why that cannot be shown; neither for a method that draws nothing."""
    if task.recipe.pretrain.method == "distill":
        return [], ""
    learner = _or_reason(lambda: learner_of(run, task))
    if isinstance(learner, str):
        return [], f"What the model draws cannot be shown, since only a state holds its decoder: {learner}."
    assert isinstance(learner, MaskedAutoencoder | SimMIM)
    return pictures.drawings(learner), ""


def _or_reason(make: Callable[[], Any]) -> Any:
    """What it makes, or why it cannot: one part of a page shall not cost the others."""
    try:
        return make()
    except RegardError as error:
        return str(error)


def _of_classes(temperature: float) -> str:
    return f"T² KL(teacher ‖ student) of the classes with T = {temperature:g} (Hinton et al. 2015)"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"
