"""Detection in the report: COCO's metrics, confusion matrix, images with true and predicted boxes, box refinement."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from regard.compare.classification import most_frequent
from regard.compare.contender import Contender
from regard.compare.task_view import device_of, short_name, split_words
from regard.data import DetectionSource
from regard.draw.boxes import draw_boxes
from regard.draw.png import picture_uri
from regard.draw.svg import inline_svg
from regard.errors import RegardError
from regard.explain import (
    box_refinement_figure,
    confident_queries,
    confusion_figure,
    pr_figure,
    queries_figure,
    query_boxes,
)
from regard.models import DETR
from regard.recipes import Recipe
from regard.tasks import FIGURES, ClassAP, DetectionEvaluation, DetectionTask, Detector, operating_points
from regard.tasks.detection.metrics import BACKGROUND
from regard.tasks.detection.suppression import TWIN_IOU, TWIN_SCORE
from regard.training import Run, load_predictor

NUM_IMAGES = 8
NUM_QUERIES = 24
# Box refinement is shown for so many images, of at least SEVERAL objects each if there are such images.
NUM_REFINEMENTS = 3
SEVERAL = 4
# Pixels of a picture's longer side, and the height of letters as a fraction of it; the page shows it at half this size.
LARGEST = 420
LETTERS = 1 / 17
# With more classes than this the matrix has no names; the most frequent confusions are listed beside it.
LARGEST_TABLE = 23

WORDS = {
    "ap": "AP, the mean over IoU from 0.5 to 0.95",
    "ap50": "AP at IoU 0.5",
    "ap75": "AP at IoU 0.75",
    "ap_small": "AP of objects below 32² pixels",
    "ap_medium": "AP of objects from 32² to 96² pixels",
    "ap_large": "AP of objects above 96² pixels",
    "ar1": "recall with one detection an image",
    "ar10": "recall with ten detections an image",
    "ar100": "recall with a hundred detections an image",
    "ar_small": "recall of objects below 32² pixels",
    "ar_medium": "recall of objects from 32² to 96² pixels",
    "ar_large": "recall of objects above 96² pixels",
}


@dataclass(frozen=True)
class Picture:
    """A held-out image with its true boxes and with the detected boxes."""

    short_name: str
    truth: str
    """A data: address of the picture with the true boxes."""
    detected: str
    """A data: address of the picture with the detected boxes."""
    objects: int
    detections: int
    errors: int


@dataclass(frozen=True)
class RefinementPicture:
    """Box refinement in one image, layer by layer."""

    short_name: str
    svg: str
    objects: int
    queries: int
    """How many are shown."""


@dataclass(frozen=True)
class Section:
    name: str
    seed: int
    seeds: int
    split: str
    num_images: int
    scores: str
    """In words, the scores of the detections that are drawn and counted in the confusion matrix; AP counts all."""
    highest: float
    """The highest score of all detections."""
    shown: int
    """How many detections have such scores."""
    boxes: list[str]
    """Sentences on suppression: how many boxes have a twin before and after, and how it was chosen."""
    figures: list[tuple[str, str, str]]
    """(COCO's name, its meaning, its value)."""
    classes: list[tuple[ClassAP, str, str]]
    """(the class, its AP, its AP at IoU 0.5, in words)."""
    points: list[tuple[str, list[str]]]
    """(the class, what `OperatingPoint` says of it, in words)."""
    confusion: str
    confusions: list[tuple[str, str, int]]
    """(true class, detected class, how often), the most frequent first; empty if the matrix has names."""
    curves: str
    queries: str
    """SVG, as `confusion` and `curves`; empty for a model that chooses its queries anew in each image."""
    begins: str
    """What the first panel of a box refinement shows: "proposal", "start", or "" if it shows the first layer."""
    refinements: list[RefinementPicture]
    """Empty if there is only one step to show."""
    worst: list[Picture]
    usual: list[Picture]
    """Some of the other images."""


class DetectionView:
    """Images with boxes."""

    template = "detection.html.j2"
    unit = "images"
    timed = "an image"
    counted = "an image"
    loss = "training loss"
    num_held_out = None  # AP is no proportion of the images
    about = (
        "AP is COCO’s: the mean over the classes and over IoU from 0.5 to 0.95 of the average precision of the final "
        "weights. The best hundred detections of an image count, as in COCO: no threshold, and suppression only where "
        "a run has chosen it."
    )

    def __init__(self, task: DetectionTask) -> None:
        self.task = task
        self.data = task.data
        self.train, self.val = task.train, task.val

    @property
    def split(self) -> str:
        return "training" if self.task.recipe.data.validate_on == "train" else "held-out"

    @property
    def trained_on(self) -> str:
        return f"{len(self.train)} images of {self.data.address}"

    @property
    def tested_on(self) -> str:
        if self.split == "training":
            return "the same images"
        return f"{len(self.val)} images that it had not seen"

    def facts(self) -> list[tuple[str, str]]:
        data, size = self.data, self.task.preprocessing
        images = [len(part) for part in (self.train, self.val)]
        boxes = [sum(len(objects) for objects in part.objects) for part in (self.train, self.val)]
        split = "; " + split_words(self.task.recipe, own=data.has_val)
        kept = self.task.calibration_images
        held = "" if kept is None else f"{len(kept)} images, to choose suppression and scores on them"
        counts = "{0} for training, {1} held out"
        if self.split == "training":
            counts, split = "{0}, for training and for testing", ""
        return [
            ("Data", data.address),
            ("Images", counts.format(*images) + split),
            ("Boxes", counts.format(*boxes)),
            *([("Held out of training", held)] if held else []),
            ("Classes", str(len(data.class_names))),
            ("Image size", f"shorter side {size.shortest} pixels, longer side {size.longest} at most"),
        ]

    def section(self, contender: Contender) -> Section:
        run = Run.open(contender.runs[0])
        detector = load_predictor(run.path, device=device_of(self.task.recipe))
        if not isinstance(detector, Detector):
            raise RegardError(f"{run.path}: its metadata.json and its recipe.toml are of different tasks")
        found = _evaluated(detector, self.val, self.task.recipe)
        metrics, errors, confusion = found.metrics(), found.errors(), found.confusion()
        least, points = detector.least_scores(), operating_points(found)
        order = sorted(range(len(found)), key=lambda index: -errors[index])
        worst = [index for index in order[:NUM_IMAGES] if errors[index]]
        others = sorted(set(order) - set(worst))
        usual = others[:: max(len(others) // NUM_IMAGES, 1)][:NUM_IMAGES]
        # An evaluation leaves out images that cannot be read, so its numbers differ from the source's.
        numbers = {self.val.name(index): index for index in range(len(self.val))}
        read = [numbers[one.name] for one in found.found]

        def pictures(indices: Sequence[int]) -> list[Picture]:
            return [self._picture(found, index, read[index], errors[index], least) for index in indices]

        refinements, begins = self._refinements(detector, found, read, least)
        return Section(
            name=contender.name,
            seed=run.recipe().seed,
            seeds=len(contender.runs),
            split=self.split,
            num_images=len(found),
            scores=_scores(least),
            boxes=_boxes(found, metrics, detector),
            shown=sum(len(one.above(least)) for one in found.found),
            highest=max((float(one.scores.max()) for one in found.found if len(one)), default=0.0),
            figures=[(name, WORDS[name], figure_text(metrics[name])) for name in FIGURES],
            classes=[(row, figure_text(row.ap), figure_text(row.ap50)) for row in found.per_class()],
            points=[(point.name, [figure_text(value) for value in list(vars(point).values())[1:]]) for point in points],
            confusion=inline_svg(confusion_figure(confusion, found.class_names)),
            confusions=most_frequent(confusion, [*found.class_names, BACKGROUND])
            if len(found.class_names) > LARGEST_TABLE
            else [],
            curves=inline_svg(pr_figure(found.precision_recall(), points)),
            queries=_queries_svg(detector, self.val, read),
            begins=begins,
            refinements=refinements,
            worst=pictures(worst),
            usual=pictures(usual),
        )

    def _refinements(
        self, detector: Detector, found: DetectionEvaluation, read: Sequence[int], least: Sequence[float]
    ) -> tuple[list[RefinementPicture], str]:
        """Box refinement of the first images with several objects, else of those with most; and what it begins with."""
        counts = [int((~objects.crowd).sum()) for objects in found.objects]
        refinements, begins = [], ""
        for index in sorted(range(len(counts)), key=lambda index: -min(counts[index], SEVERAL))[:NUM_REFINEMENTS]:
            image = self.val.read(read[index])
            refinement = detector.box_refinement(image)
            if len(refinement.steps) < 2:
                break
            begins = refinement.steps[0] if refinement.start_xyxy is not None else ""
            svg = inline_svg(box_refinement_figure(image, refinement, threshold=least))
            shown = len(confident_queries(refinement, least))
            refinements.append(RefinementPicture(short_name(found.found[index].name), svg, counts[index], shown))
        return refinements, begins

    def _picture(
        self, found: DetectionEvaluation, index: int, number: int, errors: int, least: Sequence[float]
    ) -> Picture:
        one, objects = found.found[index].above(least), found.objects[index]
        image = self.val.read(number).expand(3, -1, -1)
        captions = [f"{name} {score:.2f}" for name, score in zip(one.names, one.scores.tolist(), strict=True)]
        names = [found.class_names[label] for label in objects.labels.tolist()]
        return Picture(
            short_name(one.name),
            _drawn(image, objects.boxes_xyxy, objects.labels, names),
            _drawn(image, one.boxes_xyxy, one.labels, captions),
            int((~objects.crowd).sum()),
            len(one),
            errors,
        )


def figure_text(value: float) -> str:
    """One of COCO's metrics as text; -1 means that there is no object to measure it on."""
    return "–" if value < 0 else f"{value:.3f}"


def _scores(least: Sequence[float]) -> str:
    low, high = min(least), max(least)
    if low == high:
        return f"a score of {low:.3g} or more"
    return f"the score of their class ({low:.2f} to {high:.2f}) or more"


def _boxes(found: DetectionEvaluation, metrics: Mapping[str, float], detector: Detector) -> list[str]:
    """What was done with boxes around the same object, how it was chosen, and what it changed."""
    before, after = (f"{metrics[name]:.1%}" for name in ("twins_raw", "twins"))
    twins = (
        f"Of the boxes with a score of {TWIN_SCORE:g} or more, {before} have a twin: another box of their class at an "
    )
    twins += f"IoU above {TWIN_IOU:g}"
    if found.nms is not None:
        aps = " and ".join(figure_text(metrics[name]) for name in ("ap_raw", "ap50_raw"))
        twins += f". After suppression at IoU {found.nms:g} it is {after}; without it AP and AP50 were {aps}"
    chosen = [] if detector.calibration is None else [f"Chosen: {detector.calibration}."]
    return [f"{twins}.", *chosen]


def _evaluated(detector: Detector, source: DetectionSource, recipe: Recipe) -> DetectionEvaluation:
    options = recipe.data
    return detector.evaluate(source, num_workers=options.num_workers, on_bad_image=options.on_bad_image)


def _queries_svg(detector: Detector, source: DetectionSource, indices: Sequence[int]) -> str:
    """Where the first queries put their boxes over some hundred of the images."""
    model = detector.model
    if not isinstance(model, DETR):
        return ""
    few = [source.read(index) for index in indices[:: max(len(indices) // 100, 1)][:100]]
    found = query_boxes(model, (detector.prepare(image).to(detector.device) for image in few))
    return inline_svg(queries_figure(list(found.boxes_cxcywh[:NUM_QUERIES])), dpi=150)


def _drawn(image: Tensor, boxes_xyxy: Tensor, labels: Tensor, captions: Sequence[str]) -> str:
    picture = draw_boxes(image, boxes_xyxy, labels.tolist(), captions, text=LETTERS)
    picture.thumbnail((LARGEST, LARGEST))
    return picture_uri(picture, "jpeg")
