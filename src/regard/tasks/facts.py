"""What opened data are like, without decoding an image, and which settings suit them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from regard.data import (
    DetectionData,
    DetectionPreprocessing,
    DetectionSource,
    ImageClasses,
    ImageSource,
    Issue,
    classes_of,
    enlarged,
    group,
    queries_for,
    sides_of,
    too_small,
)
from regard.models import vit_stride
from regard.recipes import SELF, ClassificationRecipe, DetectionRecipe, PretrainingRecipe
from regard.tasks.classification.task import training_images
from regard.tasks.detection.task import sides_of_images
from regard.tasks.task import Task

# An object's side in pixels as a detector sees it: half of the objects should have so many. docs/how-many-images.md
SEEN_WELL = 20
# Tokens of a ViT across such an object.
TOKENS = 2
# Images, or boxes, of the largest class for each one of the smallest. From the first number on rare classes count more
# in the loss. From the second on a batch holds so few of them that they are drawn more often instead.
UNEQUAL, VERY_UNEQUAL = 3, 10
# From this fraction of all images on, one class is a background: most of its images are easy, and focal loss passes
# over those.
MOST = 0.9
SAMPLED = 100  # images whose size is read where no header says it


@dataclass(frozen=True)
class Facts:
    """Counts, sizes and balance of opened data, as a recipe sees them."""

    address: str
    task: Literal["classification", "detection"]
    num_train: int
    num_val: int
    has_val: bool
    """Whether the data bring a held-out part; else it is drawn by seed."""
    class_counts: dict[str, int]
    """Images, or boxes, to train on of each class."""
    imbalance: float
    """The largest of these over the smallest that is not 0."""
    image_sizes: tuple[tuple[int, int], ...]
    """(height, width) of the training images: quartiles of the heights and of the widths; () where none is known."""
    seen_size: tuple[int, int]
    """The recipe's shortest and longest sides of detection; (height, width) of classification."""
    object_sides: tuple[float, ...] = ()
    """Quartiles of the objects' sides (the root of a box's area) in pixels of the image as the recipe sees it."""
    suggested_size: tuple[int, int] | None = None
    """`data.shortest` and `data.longest` that would do, where half of the objects are too small."""
    num_boxes: int = 0
    most_objects: int = 0
    """In one image of either part."""
    suggested_queries: int = 0
    """`model.num_queries` for that many."""
    unlabelled: tuple[str, ...] = ()
    """Names of the images without an object."""
    advice: tuple[Issue, ...] = ()
    sides: tuple[float, ...] = field(default=(), repr=False)
    """Of all objects, as in `object_sides`."""

    @property
    def lines(self) -> tuple[str, ...]:
        """What is said before a training: the counts, and each advice."""
        return (self.counts, *(issue.what for issue in self.advice))

    @property
    def counts(self) -> str:
        of = "the data's own part" if self.has_val else "drawn by seed"
        counts = f"{self.num_train} images to train on, {self.num_val} held out ({of})"
        sizes = ""
        if self.image_sizes:
            (low, narrow), (height, width), (high, wide) = self.image_sizes
            spread = "of" if (low, narrow) == (high, wide) else "typically of"
            sizes = f", {spread} {height} × {width} pixels"
        names = f"{len(self.class_counts)} class{'es' * (len(self.class_counts) != 1)}"
        if self.task == "classification":
            return f"{counts}{sizes}; {names}, {_range(self.class_counts)} images each"
        objects = f"{self.num_boxes} objects of {names}, at most {self.most_objects} in an image"
        if self.object_sides:
            lower, median, upper = self.object_sides
            at = f"an image of at most {self.seen_size[0]} × {self.seen_size[1]}"
            objects += f", half of them {lower:.0f} to {upper:.0f} pixels (median {median:.0f}) in {at}"
        return f"{counts}{sizes}; {objects}"


def quick_facts(data: ImageClasses | DetectionData, recipe: ClassificationRecipe | DetectionRecipe) -> Facts:
    """The facts of data that were opened as the recipe says. Reads headers at most."""
    if isinstance(data, DetectionData):
        assert isinstance(recipe, DetectionRecipe)
        return _of_boxes(data, recipe)
    assert isinstance(recipe, ClassificationRecipe)
    return _of_classes(data, recipe)


def first_words(task: Task, issues: Sequence[Issue]) -> tuple[str, ...]:
    """What a training says of its images before it begins; `issues` were said already."""
    data, recipe = task.data, task.recipe
    if not (isinstance(data, ImageClasses | DetectionData) and len(data.train)):
        return ()
    if isinstance(recipe, PretrainingRecipe):
        assert isinstance(data, ImageClasses)
        return (_unlabelled(data, recipe),)
    assert isinstance(recipe, ClassificationRecipe | DetectionRecipe)
    said = {issue.what for issue in issues}
    return tuple(line for line in quick_facts(data, recipe).lines if line not in said)


def _unlabelled(data: ImageClasses, recipe: PretrainingRecipe) -> str:
    """What a pre-training says of its images, and of what it learns from them."""
    options, views = recipe.pretrain, recipe.features.within(recipe.train.max_minutes).views_of_each(len(data.train))
    method = {"mae": "what hidden patches hold (MAE)", "simmim": "what hidden patches hold (SimMIM)"}
    learned = method.get(options.method, f"what {options.teacher} sees in them")
    if options.teacher == SELF:
        learned = "what its own moving average sees behind hidden patches"
    elif options.has_teacher:
        learned += f", in {views} view{'s' * (views != 1)} of each"
    labels = len(data.class_names) > 1
    known = f"the labels of {len(data.class_names)} classes are for measuring alone" if labels else "without labels"
    return f"{len(data.train):,} images to learn from, {len(data.val):,} held out, {known}; the model learns {learned}"


def _of_classes(data: ImageClasses, recipe: ClassificationRecipe) -> Facts:
    train = training_images(data, recipe.data)
    counts = Counter(index for label in train.labels for index in classes_of(label))
    of_class = {name: counts[label] for label, name in enumerate(data.class_names)}
    size = recipe.model.config(num_classes=1).img_size
    advice: list[Issue] = []
    if (ratio := _imbalance(of_class)) >= UNEQUAL:
        advice.append(_balance(of_class, ratio, data.address, solved=recipe.train.solve_head))
    return Facts(
        address=data.address,
        task="classification",
        num_train=len(train),
        num_val=len(data.val),
        has_val=data.has_val,
        class_counts=of_class,
        imbalance=ratio,
        image_sizes=_quartiles_of_sizes(sizes_of(train)),
        seen_size=(size, size) if isinstance(size, int) else size,
        advice=tuple(advice),
    )


def _balance(of_class: dict[str, int], ratio: float, address: str, *, solved: bool) -> Issue:
    least, most = _extremes(of_class)
    what = (
        f"the largest class, {most} ({of_class[most]}), has {ratio:.1f} times the images of the smallest, {least} "
        f"({of_class[least]}): "
    )
    fraction = of_class[most] / max(sum(of_class.values()), 1)
    if fraction >= MOST and not solved:
        what += (
            f"{fraction:.0%} of all images are of one class, and most of these are easy: --set train.loss=focal counts "
            "easy images less (advised from 90% on)"
        )
    elif ratio >= VERY_UNEQUAL and not solved:
        what += (
            f"--set data.sampling=balanced shows each class as often (advised from {VERY_UNEQUAL} times on; from "
            f"{UNEQUAL} times on --set train.class_weights=balanced)"
        )
    else:
        what += f"--set train.class_weights=balanced counts rare classes more (advised from {UNEQUAL} times on)"
    return group("advice", what, address, [least, most], 1)


def _of_boxes(data: DetectionData, recipe: DetectionRecipe) -> Facts:
    train, val = data.train, data.val
    alive = [objects.labels[~objects.crowd] for objects in train.objects]
    counts = Counter(label for labels in alive for label in labels.tolist())
    of_class = {name: counts[label] for label, name in enumerate(data.class_names)}
    most = max((int((~objects.crowd).sum()) for source in (train, val) for objects in source.objects), default=0)
    config = recipe.model.config(num_classes=1)
    shortest, longest = sides_of_images(recipe.data, train)
    ones = (1.0,) * config.in_chans
    seen = DetectionPreprocessing(shortest, longest, config.in_chans, ones, ones, divisor=recipe.data.divisor)
    sides = sides_of(train, seen).numpy()
    advice: list[Issue] = []
    suggested, token = None, vit_stride(config.backbone)
    wanted = SEEN_WELL if token is None else max(TOKENS * token, SEEN_WELL)
    half = float(np.median(sides)) if len(sides) else float(wanted)
    if half < wanted:
        suggested = _size_that_does(train, seen, float(wanted), half)
        stored = max(max(size) for size in train.sizes)
        tokens = "" if token is None else f" ({TOKENS} tokens of {token})"
        what = (
            f"half of the objects are smaller than {half:.0f} pixels in an image of at most {shortest} × {longest}, "
            f"and {wanted}{tokens} are seen well: --set data.shortest={suggested[0]} --set data.longest={suggested[1]}"
        )
        what += " would do" if recipe.data.enlarge or suggested[1] <= stored else " --set data.enlarge=true would do"
        if stored < suggested[1]:
            what += f"; no photograph has more than {stored} pixels a side, so that larger ones would help more"
        advice.append(group("advice", what, data.address, [], int((sides < wanted).sum())))
    if token is not None and (small := too_small(train, seen, token)):
        advice.append(group("advice", small, data.address, [], int((sides < token).sum())))
    if (ratio := _imbalance(of_class)) >= VERY_UNEQUAL:
        least, largest = _extremes(of_class)
        what = (
            f"class {largest} has {of_class[largest]} boxes, {ratio:.0f} times those of {least} ({of_class[least]}): "
            f"more images with {least} help most"
        )
        advice.append(group("advice", what, data.address, [least, largest], 1))
    unlabelled = tuple(train.name(index) for index, labels in enumerate(alive) if not len(labels))
    return Facts(
        address=data.address,
        task="detection",
        num_train=len(train),
        num_val=len(val),
        has_val=data.has_val,
        class_counts=of_class,
        imbalance=ratio,
        image_sizes=_quartiles_of_sizes(train.sizes),
        seen_size=(shortest, longest),
        object_sides=tuple(np.quantile(sides, (0.25, 0.5, 0.75)).tolist()) if len(sides) else (),
        suggested_size=suggested,
        num_boxes=sum(counts.values()),
        most_objects=most,
        suggested_queries=queries_for(most),
        unlabelled=unlabelled,
        advice=tuple(advice),
        sides=tuple(sides.tolist()),
    )


def _size_that_does(
    source: DetectionSource, seen: DetectionPreprocessing, wanted: float, half: float
) -> tuple[int, int]:
    """`shortest` and `longest` at which half of the objects have `wanted` pixels, of which `half` is the median now."""
    factor = wanted / max(half, 1e-3)
    while True:
        shortest, longest = enlarged(seen, factor)
        larger = replace(seen, shortest=shortest, longest=longest)
        if float(sides_of(source, larger).median()) >= wanted or factor > 1e3:
            return shortest, longest
        factor *= 1.03  # sides were rounded down


def _imbalance(of_class: dict[str, int]) -> float:
    present = [count for count in of_class.values() if count]
    return max(present) / min(present) if present else 1.0


def _extremes(of_class: dict[str, int]) -> tuple[str, str]:
    """The smallest class that has something, and the largest."""
    present = sorted((name for name, count in of_class.items() if count), key=of_class.__getitem__)
    return present[0], present[-1]


def _range(of_class: dict[str, int]) -> str:
    low, high = min(of_class.values(), default=0), max(of_class.values(), default=0)
    return f"{low}" if low == high else f"{low} to {high}"


def sizes_of(source: ImageSource) -> Sequence[tuple[int, int]]:
    """(height, width) of the images, or of some where they have no headers."""
    if source.sizes is not None:
        return source.sizes
    number = min(len(source), SAMPLED)
    shapes = (source.read(index * len(source) // number).shape for index in range(number))
    return [(shape[1], shape[2]) for shape in shapes]


def _quartiles_of_sizes(sizes: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    if not len(sizes):
        return ()
    low, half, high = np.quantile(np.array(sizes), (0.25, 0.5, 0.75), axis=0).round().astype(int).tolist()
    return (low[0], low[1]), (half[0], half[1]), (high[0], high[1])
