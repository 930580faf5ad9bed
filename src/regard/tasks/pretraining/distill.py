"""Distillation: a student learns a frozen teacher's features of views of the images, which are computed once."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from regard.data import (
    BadImage,
    ByEpoch,
    ImageSource,
    ImageViews,
    PixelCache,
    Preprocessing,
    Skipped,
    TrainingOrder,
    colour_factors,
    drawing_from,
    endless_batches,
    no_room,
    normalised,
    seed_for,
    with_colours,
)
from regard.data.memory import available_memory
from regard.errors import RegardError
from regard.losses import feature_loss, soft_target_loss
from regard.models import Features, ImageModel, Student, ViT, features_of
from regard.recipes import FeaturesSection, PretrainingRecipe
from regard.tasks.features.extract import FrozenFeatures, Job, ShowsProgress, open_store, reserve, weights_hash
from regard.tasks.pretraining.batches import Lesson, PretrainingBatch, joined
from regard.tasks.pretraining.teacher import Teacher

FEATURES_FRACTION = 0.25  # of the free memory that features may take which were read once
MEASURED = 500  # images whose features give the teacher's mean and deviation


class Distillation:
    """The teacher's features of all views, and the loss of a student that is held to them.

    L = a · h(pooled) + b · h(pixels) + c · T² KL(teacher ‖ student), with `feature_loss` h on standardised features,
    and `soft_target_loss` where the teacher has classes; a, b, c are `pretrain.pooled_weight` and its neighbours.

    stored: the images ("train" and "val") as they are, which the teacher sees: its features are the same whatever the
    student's size. prepared: the same images, brought near the size that the student sees.
    RegardError where student and teacher would see other parts of an image.
    """

    def __init__(
        self,
        recipe: PretrainingRecipe,
        teacher: Teacher,
        stored: Mapping[str, ImageSource],
        prepared: Mapping[str, ImageSource],
        pre: Preprocessing,
    ) -> None:
        self.options, self.teacher, self.pre = recipe.pretrain, teacher, pre
        _require_block(self.options.teacher_block, teacher)
        _require_same_part(pre, teacher)
        self.stored, self.prepared = stored, prepared
        self.features_options: FeaturesSection = recipe.features.within(recipe.train.max_minutes)
        augment = recipe.augment
        self.views = ImageViews(augment.crop_scale, augment.rotation, augment.flip)
        self.colour, self.on_bad_image = augment.colour, recipe.data.on_bad_image
        self.num_workers = recipe.data.num_workers
        self.num_views = self.features_options.views_of_each(len(stored["train"]))
        self.progress: ShowsProgress | None = None
        self._drawn: PixelCache | None = None
        self._read: dict[tuple[str, int, int], list[Tensor]] = {}
        self._room = 0  # bytes of memory that features may still take
        self._learner: Student | None = None
        self._frozen: FrozenFeatures | None = None
        self._digests: dict[str, list[str | None]] = {}

    def __len__(self) -> int:
        return len(self.stored["train"])

    def build(self, model: ImageModel) -> Student:
        """The student with maps to the teacher's features, whose sizes a black image tells."""
        teacher, (height, width) = self.teacher, self.teacher.preprocessing.img_size
        channels, pre = self.teacher.preprocessing.channels, self.pre
        with torch.no_grad():  # no inference mode: what the student keeps of it would not take part in training
            theirs = features_of(
                teacher.model, torch.zeros(1, channels, height, width), block=self.options.teacher_block
            )
            was_training = model.training
            mine = features_of(model.eval(), torch.zeros(1, pre.channels, *pre.img_size))
            model.train(was_training)
        rows, columns = (min(a, b) for a, b in zip(theirs.pixels.shape[2:], mine.pixels.shape[2:], strict=True))
        self._learner = Student(model, theirs.pooled.shape[1], theirs.pixels.shape[1], (rows, columns))
        return self._learner

    def model_of(self, learner: nn.Module) -> ImageModel:
        assert isinstance(learner, Student)
        return learner.model

    @property
    def frozen(self) -> FrozenFeatures:
        """The teacher, whose features are kept as `[features]` says."""
        assert self._learner is not None
        if self._frozen is None:
            options, model, grid = self.features_options, self.teacher.model, self._learner.grid
            self._frozen = FrozenFeatures(
                model,
                partial(_seen_by, model, grid, self.options.teacher_block),
                weights=weights_hash(model, asdict(model.config)),
                preprocessing={
                    "features": "teacher",
                    "grid": list(grid),
                    "block": self.options.teacher_block,
                    "aspect": self.pre.resize,
                    **replace(self.teacher.preprocessing, decoding=self.pre.decoding).to_dict(),
                },
                dtype=options.dtype,
                precision=options.precision,
                store=open_store(options.folder, options.max_gb, self.progress),
            )
        return self._frozen

    def prepare(self, *, standardise: bool) -> list[str]:
        """Computes the features that the store lacks. Returns why images were left out.

        standardise: whether the student takes the mean and deviation of the teacher's features: not where it resumes.
        """
        of_train = [job for number in range(self.num_views) for job in self._jobs("train", number)]
        whole = self._jobs("val", 0)
        reserve([(self.frozen, [*of_train, *whole])])
        skipped = [
            why
            for jobs, name in (
                (of_train, f"{self.teacher.name}'s features of the training images"),
                (whole, f"{self.teacher.name}'s features of the held-out images"),
            )
            for why in self.frozen.fill(jobs, name, on_bad_image=self.on_bad_image, progress=self.progress)
        ]
        if standardise:
            self._standardise(of_train)
        return skipped

    def _standardise(self, jobs: Sequence[Job]) -> None:
        assert self._learner is not None
        pooled, pixels = [], []
        for job in jobs[:: max(len(jobs) // MEASURED, 1)]:
            try:
                found = Features(*self.frozen.levels(job))
            except BadImage:  # it is left out
                continue
            pooled.append(found.pooled)
            pixels.append(found.pixels.flatten(1).T)
        if pooled:
            self._learner.standardise(torch.stack(pooled), torch.cat(pixels))

    def batches(self, order: TrainingOrder) -> Iterable[PretrainingBatch]:
        """Endless batches. In as many epochs as there are views, each image shows each of them once."""
        areas = [math.prod(self.pre.img_size)] * (len(self) * self.num_views)
        if not no_room(areas, self.pre.channels, self.num_workers):
            self._drawn = PixelCache(areas, self.pre.channels, shared=self.num_workers > 0)
        self._room = 0 if self.num_workers else int(FEATURES_FRACTION * available_memory())
        return endless_batches(Views(self, order.seed), order, self.num_workers, partial(joined, pre=self.pre))

    def lesson(self, part: str, index: int, number: int, *, colour: bool = False) -> Lesson | Skipped:
        """A view of an image as the student sees it, and the teacher's features of it."""
        source = self.prepared[part]
        try:
            digest = self._digest(part, index)
            seen = self._pixels(part, index, number, digest)
            features = self._features(part, index, number, digest)
        except BadImage as error:
            if self.on_bad_image == "stop":
                raise
            return Skipped(str(error))
        colours = colour_factors(self.colour) if colour and self.colour else None
        if self.pre.resize == "letterbox":  # whose images have several sizes before the bars are there
            seen = normalised(seen, self.pre) if colours is None else _barred(seen, colours, self.pre)
            colours = None
        return Lesson(seen, source.name(index), features, colours=colours)

    def _pixels(self, part: str, index: int, number: int, digest: str) -> UInt8[Tensor, "channels height width"]:
        """A view as the student sees it, from memory where it was drawn before."""
        place = index * self.num_views + number
        known = self._drawn.get(place) if self._drawn is not None and part == "train" else None
        if known is None:
            known = self.views.part(self.prepared[part].read(index), number, digest, self.pre)
            if self._drawn is not None and part == "train":
                self._drawn.put(place, known)
        return known

    def _features(self, part: str, index: int, number: int, digest: str) -> list[Tensor]:
        """What the teacher sees, as it is stored; from memory where it was read before, and there is room."""
        key = (part, index, number)
        known = self._read.get(key)
        if known is None:
            known = self.frozen.levels(self._job(part, index, number, digest))
            self._room -= sum(level.nbytes for level in known)
            if self._room > 0:
                self._read[key] = known
        return known

    def held_out(self, indices: Sequence[int], batch_size: int) -> Iterator[PretrainingBatch]:
        """Whole held-out images."""
        for first in range(0, len(indices), batch_size):
            lessons = [self.lesson("val", index, 0) for index in indices[first : first + batch_size]]
            yield joined(lessons, self.pre)

    def loss(self, learner: nn.Module, batch: PretrainingBatch) -> Tensor:
        assert batch.features is not None
        assert self._learner is not None  # whose mean and deviation hold for its average, too
        found, wanted, options = learner(batch.images), self._learner.standardised(batch.features), self.options
        loss = options.pooled_weight * feature_loss(found.pooled, wanted.pooled)
        loss = loss + options.pixels_weight * feature_loss(found.pixels, wanted.pixels)
        if wanted.logits is not None:
            classes = soft_target_loss(found.logits, wanted.logits, temperature=options.temperature)
            loss = loss + options.logits_weight * classes
        return loss

    def _jobs(self, part: str, number: int) -> list[Job]:
        found = ((index, self._digest_or_none(part, index)) for index in range(len(self.stored[part])))
        return [self._job(part, index, number, digest) for index, digest in found if digest is not None]

    def _job(self, part: str, index: int, number: int, digest: str) -> Job:
        source = self.stored[part]
        prepare = partial(_prepared, source, index, number, digest, self.views, self.teacher.preprocessing)
        return Job(digest, self.views.name(number), source.name(index), prepare)

    def _digest_or_none(self, part: str, index: int) -> str | None:
        try:
            return self._digest(part, index)
        except BadImage:
            if self.on_bad_image == "stop":
                raise
            return None

    def _digest(self, part: str, index: int) -> str:
        known = self._digests.setdefault(part, [None] * len(self.stored[part]))
        found = known[index]
        if found is None:
            found = known[index] = self.stored[part].digest(index)
        return found


class Views(ByEpoch):
    """Lessons by (epoch, index): in a cycle of epochs each image shows its views in an order of its own."""

    def __init__(self, distillation: Distillation, seed: int) -> None:
        self.distillation, self.seed = distillation, seed

    def __len__(self) -> int:
        return len(self.distillation)

    def __getitem__(self, key: tuple[int, int]) -> Lesson | Skipped:
        epoch, index = key
        cycle, position = divmod(epoch, self.distillation.num_views)
        generator = torch.Generator().manual_seed(seed_for(self.seed, cycle, index))
        number = int(torch.randperm(self.distillation.num_views, generator=generator)[position])
        with drawing_from(seed_for(self.seed, epoch, index)):
            return self.distillation.lesson("train", index, number, colour=True)


def _barred(
    seen: UInt8[Tensor, "channels _ _"], colours: Float[Tensor, "3"], pre: Preprocessing
) -> Float[Tensor, "channels height width"]:
    changed = with_colours(seen[None].float() / 255, colours[None])[0]
    return normalised((changed * 255).byte(), pre)


def _require_block(block: int | None, teacher: Teacher) -> None:
    """RegardError for a block that the teacher has not."""
    depth = teacher.model.config.depth if isinstance(teacher.model, ViT) else 0
    if block is not None and block > depth:
        told = f"it has {depth} blocks" if depth else "it is no ViT"
        raise RegardError(f"pretrain.teacher_block is {block}, of {teacher.name}: {told}")


def _require_same_part(pre: Preprocessing, teacher: Teacher) -> None:
    """RegardError where the two sizes have another aspect, so that cuts or bars are not the same."""
    (height, width), (their_height, their_width) = pre.img_size, teacher.preprocessing.img_size
    if pre.resize != "squash" and height * their_width != width * their_height:
        raise RegardError(
            f"model.img_size: {height} × {width} has another aspect than {their_height} × {their_width}, which "
            f"{teacher.name} sees: with data.resize = {pre.resize} they would see other parts of an image; "
            "--set data.resize=squash shows both all of it"
        )


def _seen_by(model: ImageModel, grid: tuple[int, int], block: int | None, images: Tensor) -> list[Tensor]:
    return [kind for kind in features_of(model, images, grid, block) if kind is not None]


def _prepared(
    source: ImageSource, index: int, number: int, digest: str, views: ImageViews, pre: Preprocessing
) -> Tensor:
    return views.pixels(source.read(index), number, digest, pre)
