"""Detection in the report: COCO's figures, what is taken for what, images with what was found, and how it is found."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from regard.compare.classification import commonest
from regard.compare.contender import Contender
from regard.compare.task_view import device_of, short_name, split_words
from regard.data import DetectionSource
from regard.draw.boxes import draw_boxes
from regard.draw.png import picture_uri
from regard.draw.svg import inline_svg
from regard.errors import RegardError
from regard.explain import box_refinement_figure, confident_queries, confusion_figure, pr_figure, queries_figure
from regard.models import DETR
from regard.recipes import Recipe
from regard.tasks import FIGURES, ClassAP, DetectionEvaluation, DetectionTask, Detector, splits_of
from regard.tasks.detection.metrics import BACKGROUND
from regard.training import Run, load_predictor

NUM_IMAGES = 8
NUM_QUERIES = 24
# Film strips, of images with at least so many objects.
NUM_STRIPS = 3
SEVERAL = 4
# Of a detection that is drawn and counted in the confusion; AP counts all.
THRESHOLD = 0.5
# Pixels of a picture's longer side, and the share of it that letters take: the page shows it at half of its size.
LARGEST = 420
LETTERS = 1 / 17
# A matrix of more classes than this cannot be read; the commonest confusions are listed beside it.
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
    """A held-out image with what is there and what was found."""

    short_name: str
    truth: str
    """A data: address of the picture with the true boxes."""
    found: str
    objects: int
    detections: int
    errors: int


@dataclass(frozen=True)
class Strip:
    """How the boxes settle in one image, layer by layer."""

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
    part: str
    num_images: int
    threshold: float
    highest: float
    """The score of the most certain detection of all; what is below `threshold` is not drawn."""
    figures: list[tuple[str, str, str]]
    """(COCO's name, what it is, its value)."""
    classes: list[tuple[ClassAP, str, str]]
    """(the class, its AP, its AP at IoU 0.5, in words)."""
    confusion: str
    confusions: list[tuple[str, str, int]]
    """(what it is, what it was found as, how often), the commonest first; empty where the matrix can be read."""
    curves: str
    queries: str
    """SVG, as the two above; empty for a model whose queries are not its own, but chosen in each image."""
    begins: str
    """What the first panel of a film strip shows: "proposal", "start", or "" for none."""
    strips: list[Strip]
    """Empty where there is no more than one step to show."""
    worst: list[Picture]
    usual: list[Picture]
    """Some of the others."""


class DetectionView:
    """Images with boxes."""

    template = "detection.html.j2"
    unit = "images"
    timed = "an image"
    counted = "an image"
    loss = "training loss"
    num_held_out = None  # AP is no share of the images
    about = (
        "AP is COCO’s: the mean over the classes and over IoU from 0.5 to 0.95 of the average precision of the final "
        "weights. All that the queries of an image say counts, up to COCO’s hundred; nothing is suppressed."
    )

    def __init__(self, task: DetectionTask) -> None:
        self.task = task
        self.data = task.data
        self.train, self.val = splits_of(task.data, task.recipe.data)

    @property
    def part(self) -> str:
        return "training" if self.task.recipe.data.validate_on == "train" else "held-out"

    @property
    def trained_on(self) -> str:
        return f"{len(self.train)} images of {self.data.address}"

    @property
    def tested_on(self) -> str:
        if self.part == "training":
            return "the same images"
        return f"{len(self.val)} images that it had not seen"

    def facts(self) -> list[tuple[str, str]]:
        data, size = self.data, self.task.preprocessing
        images = [len(part) for part in (self.train, self.val)]
        boxes = [sum(len(objects) for objects in part.objects) for part in (self.train, self.val)]
        split = "; " + split_words(self.task.recipe, own=data.has_val)
        told = "{0} for training, {1} held out"
        if self.part == "training":
            told, split = "{0}, for training and for testing", ""
        return [
            ("Data", data.address),
            ("Images", told.format(*images) + split),
            ("Boxes", told.format(*boxes)),
            ("Classes", str(len(data.class_names))),
            ("Image size", f"shorter side {size.shortest} pixels, longer side {size.longest} at most"),
        ]

    def section(self, contender: Contender) -> Section:
        run = Run.open(contender.runs[0])
        detector = load_predictor(run.path, device=device_of(self.task.recipe))
        if not isinstance(detector, Detector):
            raise RegardError(f"{run.path}: is not a run of detection")
        found = _evaluated(detector, self.val, self.task.recipe)
        metrics, errors, confusion = found.metrics(), found.errors(THRESHOLD), found.confusion(THRESHOLD)
        order = sorted(range(len(found)), key=lambda index: -errors[index])
        worst = [index for index in order[:NUM_IMAGES] if errors[index]]
        others = sorted(set(order) - set(worst))
        usual = others[:: max(len(others) // NUM_IMAGES, 1)][:NUM_IMAGES]
        # What cannot be read is left out of an evaluation, so that its numbers are not the source's.
        numbers = {self.val.name(index): index for index in range(len(self.val))}
        read = [numbers[one.name] for one in found.found]

        def pictures(indices: Sequence[int]) -> list[Picture]:
            return [self._picture(found, index, read[index], errors[index]) for index in indices]

        strips, begins = self._strips(detector, found, read)
        return Section(
            name=contender.name,
            seed=run.recipe().seed,
            seeds=len(contender.runs),
            part=self.part,
            num_images=len(found),
            threshold=THRESHOLD,
            highest=max((float(one.scores.max()) for one in found.found if len(one)), default=0.0),
            figures=[(name, WORDS[name], told(metrics[name])) for name in FIGURES],
            classes=[(row, told(row.ap), told(row.ap50)) for row in found.per_class()],
            confusion=inline_svg(confusion_figure(confusion, found.class_names)),
            confusions=commonest(confusion, [*found.class_names, BACKGROUND])
            if len(found.class_names) > LARGEST_TABLE
            else [],
            curves=inline_svg(pr_figure(found.precision_recall())),
            queries=_queries_svg(detector, self.val, read),
            begins=begins,
            strips=strips,
            worst=pictures(worst),
            usual=pictures(usual),
        )

    def _strips(self, detector: Detector, found: DetectionEvaluation, read: Sequence[int]) -> tuple[list[Strip], str]:
        """Of the first images that have several objects, or the most of all; and what they begin with."""
        counts = [int((~objects.crowd).sum()) for objects in found.objects]
        strips, begins = [], ""
        for index in sorted(range(len(counts)), key=lambda index: -min(counts[index], SEVERAL))[:NUM_STRIPS]:
            image = self.val.read(read[index])
            refinement = detector.box_refinement(image)
            if len(refinement.steps) < 2:
                break
            begins = refinement.steps[0] if refinement.start_xyxy is not None else ""
            svg = inline_svg(box_refinement_figure(image, refinement, threshold=THRESHOLD))
            shown = len(confident_queries(refinement, THRESHOLD))
            strips.append(Strip(short_name(found.found[index].name), svg, counts[index], shown))
        return strips, begins

    def _picture(self, found: DetectionEvaluation, index: int, number: int, errors: int) -> Picture:
        one, objects = found.found[index].above(THRESHOLD), found.objects[index]
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


def told(value: float) -> str:
    """A figure of COCO's; it is -1 where there is nothing to measure it on."""
    return "–" if value < 0 else f"{value:.3f}"


def _evaluated(detector: Detector, source: DetectionSource, recipe: Recipe) -> DetectionEvaluation:
    options = recipe.data
    return detector.evaluate(source, num_workers=options.num_workers, on_bad_image=options.on_bad_image)


def _queries_svg(detector: Detector, source: DetectionSource, indices: Sequence[int]) -> str:
    """Where the first queries put their boxes over some hundred of the images."""
    model = detector.model
    if not isinstance(model, DETR):
        return ""
    boxes: list[Tensor] = []

    def note(_: torch.nn.Module, __: object, output: Tensor) -> None:
        boxes.append(output[-1].detach().cpu())

    handle = model.box_head.register_forward_hook(note)
    try:
        few = [source.read(index) for index in indices[:: max(len(indices) // 100, 1)][:100]]
        detector.predict(few, threshold=1.0)
    finally:
        handle.remove()
    every = torch.cat(boxes).transpose(0, 1)[:NUM_QUERIES]  # (queries, images, 4)
    return inline_svg(queries_figure(list(every[..., :2]), list(every[..., 2:].prod(-1).clamp(min=0).sqrt())), dpi=150)


def _drawn(image: Tensor, boxes_xyxy: Tensor, labels: Tensor, captions: Sequence[str]) -> str:
    picture = draw_boxes(image, boxes_xyxy, labels.tolist(), captions, text=LETTERS)
    picture.thumbnail((LARGEST, LARGEST))
    return picture_uri(picture, "jpeg")
