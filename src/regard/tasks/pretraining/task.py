"""Pre-training: the data, the student and what teaches it."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from regard.data import (
    ImageClasses,
    ImageSource,
    Issue,
    Preprocessing,
    TrainingOrder,
    check_image_files,
    evaluation_loader,
    evaluation_transform,
    measure_mean_std,
    prepared_once,
)
from regard.errors import RegardError
from regard.models import ImageModel, SASAResNet, ViT, build, config_values
from regard.recipes import PretrainingRecipe
from regard.tasks.features.extract import ShowsProgress
from regard.tasks.image_predictor import most_images
from regard.tasks.opened_images import open_whole_images
from regard.tasks.pretraining.batches import PretrainingBatch
from regard.tasks.pretraining.distill import Distillation
from regard.tasks.pretraining.evaluation import Labelled, PretrainingEvaluation
from regard.tasks.pretraining.masked import Masking
from regard.tasks.pretraining.memory import require_memory
from regard.tasks.pretraining.paid import paid, paid_words
from regard.tasks.pretraining.teacher import load_teacher
from regard.tasks.task import training_order
from regard.weights import load_weights

MOST_KNOWN = 5000  # training images from which an evaluation learns classes


class PretrainingTask:
    """Everything in a run that is about images without labels. Labels, where there are some, are measured with alone.

    The constructor reads the images' headers, loads the teacher, and measures mean and deviation if nobody gives them.
    """

    unit = "images"
    main_metric = "loss"
    larger_is_better = False

    def __init__(self, recipe: PretrainingRecipe) -> None:
        self.recipe = recipe
        data, options = recipe.data, recipe.pretrain
        wanted = recipe.model.config(num_classes=0)
        require_memory(wanted, recipe.train, recipe.model.name)
        self.teacher = None
        if options.has_teacher:
            assert options.teacher is not None  # `auto` has been named
            self.teacher = load_teacher(
                options.teacher,
                options.teacher_size,
                channels=wanted.in_chans,
                resize=data.resize,
                crop_fraction=data.crop_fraction or 1.0,
            )
        self.class_names = () if self.teacher is None else self.teacher.class_names
        self.config = recipe.model.config(num_classes=len(self.class_names))
        self.data: ImageClasses = open_whole_images(data, channels=wanted.in_chans, unlabelled=True)
        self.preprocessing = self._preprocessing()
        self._train, self._val, self._not_cached = prepared_once(
            *(self.data.train, self.data.val, self.preprocessing),
            # Of several views with the whole height each shows another part of the width.
            random_crops=recipe.augment.crop_scale < 1 or recipe.augment.rotation > 0 or recipe.features.views > 1,
            cache=data.cache,
            num_workers=data.num_workers,
        )
        self.lessons: Distillation | Masking
        if self.teacher is not None:
            stored = {"train": self.data.train, "val": self.data.val}
            prepared = {"train": self._train, "val": self._val}
            self.lessons = Distillation(recipe, self.teacher, stored, prepared, self.preprocessing)
        else:
            self.lessons = Masking(recipe, self._train, self._val, self.preprocessing)

    def _preprocessing(self) -> Preprocessing:
        """How the student sees images: normalised as its teacher's, or as the images are, unless the recipe says."""
        data, size = self.recipe.data, self.config.img_size
        mean, std = data.mean, data.std
        if self.teacher is not None:
            mean, std = mean or self.teacher.preprocessing.mean, std or self.teacher.preprocessing.std
        if mean is None or std is None:
            measured = measure_mean_std(self.data.train)
            mean, std = mean or measured[0], std or measured[1]
        return Preprocessing(
            img_size=(size, size) if isinstance(size, int) else size,
            channels=self.config.in_chans,
            mean=mean,
            std=std,
            interpolation=data.interpolation or "bilinear",
            crop_fraction=data.crop_fraction or 1.0,
            decoding=self.data.decoding,
            resize=data.resize,
        )

    @property
    def progress(self) -> ShowsProgress | None:
        return self.lessons.progress

    @progress.setter
    def progress(self, shown: ShowsProgress | None) -> None:
        self.lessons.progress = shown

    @property
    def features_first(self) -> bool:
        return self.teacher is not None

    @property
    def skipped(self) -> tuple[str, ...]:
        return (*self.data.train.skipped, *self.data.val.skipped)

    @property
    def has_labels(self) -> bool:
        """Whether the images have one class each, by which features can be measured."""
        return len(self.data.class_names) > 1 and not self.data.multi_label

    def check(self) -> Sequence[Issue]:
        """Issues of the image files that can be found without decoding every image."""
        issues = list(check_image_files(self.data, strict=self.recipe.data.strict))
        if self._not_cached:
            issues.append(Issue("warning", self._not_cached, "data.cache"))
        patch = getattr(self.config, "patch_size", 1)
        sizes = [size for source in (self.data.train, self.data.val) for size in source.sizes or ()]
        tiny = sum(min(size) < patch for size in sizes)
        if tiny:
            what = f"{tiny:,} of {len(sizes):,} images are smaller than a patch of {patch} × {patch} pixels: enlarged"
            issues.append(Issue("warning", what, self.data.address))
        return issues

    def build_model(self) -> nn.Module:
        model = build(self.config)
        assert isinstance(model, ViT | SASAResNet)  # the recipe allows no other
        model.gradient_checkpointing = self.recipe.train.gradient_checkpointing
        if self.recipe.pretrain.start is not None:
            load_weights(model, self.recipe.pretrain.start)
        return self.lessons.build(model)

    def whole(self, model: nn.Module) -> ImageModel:
        return self.lessons.model_of(model)

    def order(self, *, rank: int, world_size: int) -> TrainingOrder:
        """The images of each step, from the first step on."""
        return training_order(self.recipe, len(self.data.train), rank=rank, world_size=world_size)

    def training_loader(self, order: TrainingOrder) -> Iterable[PretrainingBatch]:
        """Endless batches; what a teacher sees in the images is computed before the first."""
        self.lessons.prepare(standardise=order.start_step == 0)
        return self.lessons.batches(order)

    def weight(self, batch: PretrainingBatch) -> int:
        """The number of images."""
        return len(batch)

    def loss(self, model: nn.Module, batch: PretrainingBatch) -> Float[Tensor, ""]:
        return self.lessons.loss(model, batch)

    @torch.inference_mode()
    def evaluate(self, model: nn.Module, *, rank: int, world_size: int) -> PretrainingEvaluation:
        """The loss of this process's shard of the held-out images, and the features by which classes are measured."""
        device, was_training = next(model.parameters()).device, model.training
        model.eval()
        size = most_images(math.prod(self.preprocessing.img_size), device)
        loss_sum, count, names, skipped = 0.0, 0, [], []
        for batch in self.lessons.held_out(range(rank, len(self.data.val), world_size), size):
            skipped += batch.skipped
            if len(batch):
                loss_sum += self.lessons.loss(model, batch.to(device)).item() * len(batch)
                count += len(batch)
                names += batch.names
        known, asked, right = None, None, None
        if self.has_labels:
            student = self.whole(model)
            known, _ = self._features(student, self._some_known(), rank, world_size)
            asked, right = self._features(student, self._val, rank, world_size)
        model.train(was_training)
        classes = len(self.data.class_names) if self.has_labels else 0
        return PretrainingEvaluation(loss_sum, count, classes, known, asked, right, tuple(names), tuple(skipped))

    def _some_known(self) -> ImageSource:
        step = -(-len(self._train) // MOST_KNOWN)
        return self._train.only(range(0, len(self._train), step))

    def _features(
        self, student: ImageModel, source: ImageSource, rank: int, world_size: int
    ) -> tuple[Labelled, Tensor | None]:
        """What the student's head reads of a source's images, with their classes; and whether its own head is right."""
        device = next(student.parameters()).device
        places = self._own_places()
        features, labels, right = [torch.empty(0, student.num_features)], [torch.empty(0, dtype=torch.int64)], []
        for batch in evaluation_loader(
            source,
            evaluation_transform(self.preprocessing),
            batch_size=most_images(math.prod(self.preprocessing.img_size), device),
            num_workers=0,
            on_bad_image="skip",
            rank=rank,
            world_size=world_size,
        ):
            if not len(batch):
                continue
            found = student.forward_features(batch.images.to(device))
            features.append(student.forward_head(found, pre_logits=True).float().cpu())
            labels.append(batch.labels)
            if places is not None:
                right.append(student.forward_head(found).argmax(1).cpu() == places[batch.labels])
        own = None if places is None else torch.cat(right) if right else torch.empty(0, dtype=torch.bool)
        return Labelled(torch.cat(features), torch.cat(labels)), own

    def _own_places(self) -> Tensor | None:
        """The student's number of each class of the data; None where its head does not know all of them."""
        if not self.class_names or not set(self.data.class_names) <= set(self.class_names):
            return None
        return torch.tensor([self.class_names.index(name) for name in self.data.class_names])

    def metrics(self, shards: Sequence[PretrainingEvaluation]) -> dict[str, float]:
        """`loss`, and with labels `knn` and `linear`, over the shards of all processes."""
        return PretrainingEvaluation.of_shards(shards).metrics()

    def details(self, shards: Sequence[PretrainingEvaluation]) -> dict[str, Any]:
        return {"views": self.lessons.num_views}

    def select(self, model: nn.Module) -> float:
        raise RegardError("pretraining: nothing is decided on held-out images")

    def finish(self, model: nn.Module, tell: Callable[[str], object]) -> dict[str, Any]:
        """Where the run began from weights: whether they are better now, by a linear head on the features."""
        start = self.recipe.pretrain.start
        if start is None:
            return {}
        if not self.has_labels:
            tell(f"from {start}: without labels nobody can tell whether it paid")
            return {}
        begun = build(self.config)
        assert isinstance(begun, ViT | SASAResNet)
        load_weights(begun, start)
        device = next(model.parameters()).device
        found = []
        for one in (begun.to(device), self.whole(model)):
            one.eval()
            with torch.no_grad():  # no inference mode: a head learns from them
                known, _ = self._features(one, self._some_known(), 0, 1)
                asked, _ = self._features(one, self._val, 0, 1)
            measured = PretrainingEvaluation(0.0, 0, len(self.data.class_names), known, asked, None, (), ())
            found.append(measured.linear_right)
        before, after = found
        if before is None or after is None:
            return {}
        result = paid(before, after)
        tell(paid_words(start, result))
        return {"paid": result}

    def flops(self, model: nn.Module) -> int:
        return model.flops() if isinstance(model, ViT | SASAResNet) else 0

    def metadata(self) -> dict[str, Any]:
        """As that of a classifier, which has the teacher's classes, or none."""
        options = self.recipe.pretrain
        return {
            "task": "classification",
            "model": {"name": self.recipe.model.name, "config": config_values(self.config)},
            "class_names": list(self.class_names),
            "preprocessing": self.preprocessing.to_dict(),
            "pretraining": {"method": options.method, "teacher": options.teacher, "start": options.start},
        }
