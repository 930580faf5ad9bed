"""Image classification: the data, the model and the loss that a recipe asks for."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from regard.data import (
    Augmentation,
    Batch,
    ImageClasses,
    ImageSource,
    Issue,
    OnBadImage,
    Preprocessing,
    ShuffledLabels,
    TrainingOrder,
    balancing_weights,
    check_image_files,
    draw_per_class,
    fewer_than,
    label_tensor,
    measure_mean_std,
    prepared_once,
    training_loader,
    training_transform,
)
from regard.errors import RegardError, first_few
from regard.losses import balanced_weights, sigmoid_loss, softmax_loss
from regard.models import SASAResNet, ViT, build, config_values
from regard.recipes import ClassificationAugmentSection, ClassificationDataSection, ClassificationRecipe
from regard.tasks.classification.cached import CachedFeatures, solve_head
from regard.tasks.classification.calibration import (
    LabelThresholds,
    enough_labels,
    held_for_thresholds,
    measured_thresholds,
    taken_out,
)
from regard.tasks.classification.metrics import Evaluation
from regard.tasks.classification.multi_label import MultiLabelEvaluation
from regard.tasks.classification.predictor import Classifier
from regard.tasks.features.extract import ShowsProgress
from regard.tasks.opened_images import open_whole_images
from regard.tasks.preprocessing import came_with
from regard.tasks.task import training_order
from regard.tasks.weights import or_from_scratch
from regard.weights import load_weights


class ClassificationTask:
    """Everything in a run that is about classes; the training loop knows nothing about them.

    The constructor reads the images' headers, and measures mean and deviation if the recipe gives none.
    """

    unit = "images"
    main_metric = "accuracy"
    larger_is_better = True
    progress: ShowsProgress | None = None

    def __init__(self, recipe: ClassificationRecipe) -> None:
        self.recipe = recipe
        data, wanted = recipe.data, recipe.model.config(num_classes=1)
        self.data: ImageClasses = open_whole_images(data, channels=wanted.in_chans)
        if self.data.multi_label:
            self.main_metric = "map"
        self.drawn = training_images(self.data, data)
        self.train, self.selection_images = self._selected()
        if data.shuffled_labels:
            self.train = ShuffledLabels(self.train, data.shuffled_labels, data.split_seed)
        self.train, self.calibration_images, self.calibration = self._held_out()
        self.config = recipe.model.config(num_classes=len(self.data.class_names))
        mean, std = data.mean, data.std
        interpolation: str = data.interpolation or "bilinear"
        crop = data.crop_fraction or 1.0
        weights = recipe.model.weights
        theirs = None if weights is None else came_with(weights, channels=self.config.in_chans)
        if theirs is not None:
            mean, std = mean or theirs.mean, std or theirs.std
            interpolation = data.interpolation or theirs.interpolation
            crop = data.crop_fraction or (theirs.crop_fraction if data.resize == "crop" else 1.0)
        if mean is None or std is None:
            measured = measure_mean_std(self.drawn)
            mean, std = mean or measured[0], std or measured[1]
        size = self.config.img_size
        self.preprocessing = Preprocessing(
            img_size=(size, size) if isinstance(size, int) else size,
            channels=self.config.in_chans,
            mean=mean,
            std=std,
            interpolation=interpolation,
            crop_fraction=crop,
            decoding=self.data.decoding,
            resize=data.resize,
        )
        self._train, self._val, self._not_cached = self.train, self.data.val, ""
        if recipe.model.freeze != "backbone":  # else images are read once
            self._train, self._val, self._not_cached = prepared_once(
                *(self.train, self.data.val, self.preprocessing),
                random_crops=recipe.augment.crop_scale < 1 or recipe.augment.rotation > 0,
                cache=data.cache,
                num_workers=data.num_workers,
            )
        self._cached: CachedFeatures | None = None
        self._model: nn.Module | None = None
        self._mixing = _batch_mixing(recipe.augment, len(self.data.class_names))
        train = recipe.train
        self._class_weights: Tensor | None = None
        if train.class_weights == "balanced":
            labels = label_tensor(self.train.labels, self.train.num_classes)
            self._class_weights = balanced_weights(labels, len(self.data.class_names))
        self._loss = partial(
            sigmoid_loss if self.data.multi_label else softmax_loss,
            weights=self._class_weights,
            gamma=train.focal_gamma if train.loss == "focal" else 0.0,
            smoothing=train.label_smoothing,
        )

    def _held_out(self) -> tuple[ImageSource, ImageSource | None, LabelThresholds | None]:
        """What is trained on; of a multi-label set also what is held out of it, and the thresholds until the end."""
        fraction, names, train = self.recipe.evaluate.calibration, self.data.class_names, self.train
        if not self.data.multi_label:
            if "calibration" in self.recipe.evaluate.model_fields_set:
                raise RegardError("evaluate.calibration: is for images with several labels; here each has one class")
            return train, None, None
        seed, address = self.recipe.data.split_seed, self.data.address
        number, held = 0, self.selection_images
        if held is None:
            train, held, number = held_for_thresholds(train, fraction, seed, address)
        elif enough_labels(held):  # the same images do for both
            number = len(held)
        else:
            held = None
        return train, held, LabelThresholds.default(names, number)

    def _selected(self) -> tuple[ImageSource, ImageSource | None]:
        """What is trained on, and what `data.selection` takes out of it."""
        data = self.recipe.data
        if not data.selection:
            return self.drawn, None
        return taken_out(self.drawn, data.selection, data.split_seed, f"{self.data.address}: data.selection")

    @property
    def features_first(self) -> bool:
        return self._cached is not None

    @property
    def skipped(self) -> tuple[str, ...]:
        return (*self.data.train.skipped, *self.data.val.skipped)

    def check(self) -> Sequence[Issue]:
        """Issues of the data that can be found without decoding every image."""
        issues = check_image_files(self.data, strict=self.recipe.data.strict)
        number = self.recipe.data.per_class
        few = "" if number is None else fewer_than(number, self.drawn, self.data.class_names)
        told = ((few, "data.per_class"), (self._not_cached, "data.cache"))
        return [*issues, *(Issue("warning", what, where) for what, where in told if what)]

    def build_model(self) -> nn.Module:
        model = build(self.config)
        if isinstance(model, ViT | SASAResNet):
            model.gradient_checkpointing = self.recipe.train.gradient_checkpointing
        options = self.recipe.model
        if options.weights is not None:
            with or_from_scratch(self.recipe):
                load_weights(model, options.weights, classes="reset" if options.reset_head else "keep")
        if isinstance(options.freeze, int):
            assert isinstance(model, ViT | SASAResNet)
            model.freeze_first(options.freeze)
        if options.freeze == "backbone":
            assert isinstance(model, ViT)  # the recipe allows no other model to be frozen
            sources = {"train": self.train, "val": self.data.val}
            if self.calibration_images is not None:
                sources["calibration"] = self.calibration_images
            if self.selection_images is not None:
                sources["selection"] = self.selection_images
            bad = self.recipe.data.on_bad_image
            self._cached = CachedFeatures(model, sources, self.preprocessing, self.recipe.features, bad)
        self._model = model
        return model

    def whole(self, model: nn.Module) -> nn.Module:
        return model

    def order(self, *, rank: int, world_size: int) -> TrainingOrder:
        """The images of each step, from the first step on."""
        weights = balancing_weights(self.train.labels) if self.recipe.data.sampling == "balanced" else None
        return training_order(self.recipe, len(self.train), rank=rank, world_size=world_size, weights=weights)

    def training_loader(self, order: TrainingOrder) -> Iterable[Batch]:
        """Endless batches: augmented images, or cached features of a frozen backbone."""
        recipe = self.recipe
        if self._cached is not None and order.world_size == 1:
            self._cached.progress = self.progress
            if recipe.train.solve_head and order.start_step == 0:
                self._cached.solve_head(self._class_weights)
            return self._cached.batches(order)
        if recipe.train.solve_head and recipe.model.freeze == "backbone":
            raise RegardError("train.solve_head: features are kept in one process; start the training in one")
        if recipe.train.solve_head and order.start_step == 0:
            assert isinstance(self._model, ViT | SASAResNet)
            solve_head(self._model, self._train, self.preprocessing, self._class_weights, self.progress)
        transform = training_transform(
            self.preprocessing,
            Augmentation(**recipe.augment.model_dump(exclude={"mixup", "cutmix"})),
        )
        return training_loader(
            self._train,
            transform,
            order,
            num_workers=recipe.data.num_workers,
            on_bad_image=recipe.data.on_bad_image,
        )

    def weight(self, batch: Batch) -> int:
        """The number of images."""
        return len(batch)

    def loss(self, model: nn.Module, batch: Batch) -> Float[Tensor, ""]:
        """Mean cross-entropy (with several labels, binary) or focal loss, weighted and smoothed as the recipe says.

        Mixup and cutmix come before it, where they are on."""
        images, labels = batch.images, batch.labels
        if images.ndim == 2:  # cached features of a frozen backbone
            assert self._cached is not None
            return self._loss(self._cached.head(images), labels)
        if self._mixing is not None:
            images, labels = self._mixing(images, labels)
        return self._loss(model(images), labels)

    def predictor(self, model: nn.Module) -> Classifier:
        return Classifier(model, self.data.class_names, self.preprocessing, self.calibration)

    def evaluate(self, model: nn.Module, *, rank: int, world_size: int) -> Evaluation:
        """The evaluation of this process's shard of the held-out images, from cached features where there are any."""
        return self._evaluated(model, "val", self._val, self.recipe.data.on_bad_image, rank, world_size)

    def _evaluated(
        self, model: nn.Module, name: str, source: ImageSource, on_bad_image: OnBadImage, rank: int, world_size: int
    ) -> Evaluation:
        if self._cached is not None:
            found = self._cached.evaluate(model, name, rank=rank, world_size=world_size)
            return self.predictor(model).evaluation(*found)
        was_training = model.training
        shard = self.predictor(model).evaluate(
            source,
            num_workers=self.recipe.data.num_workers,
            on_bad_image=on_bad_image,
            rank=rank,
            world_size=world_size,
        )
        model.train(was_training)
        return shard

    def metrics(self, shards: Sequence[Evaluation]) -> dict[str, float]:
        """`accuracy`, `top5` and `loss`, or those of several labels, over the shards of all processes."""
        return Evaluation.joined(shards).metrics()

    def select(self, model: nn.Module) -> float:
        """The main metric on the images of `data.selection`."""
        assert self.selection_images is not None
        found = self._evaluated(model, "selection", self.selection_images, self.recipe.data.on_bad_image, 0, 1)
        return self.metrics([found])[self.main_metric]

    def details(self, shards: Sequence[Evaluation]) -> dict[str, Any]:
        """The figures of each class, and `balanced_accuracy` where each image has one."""
        return Evaluation.joined(shards).details()

    def finish(self, model: nn.Module, tell: Callable[[str], object]) -> dict[str, Any]:
        """With several labels: chooses each class's threshold, on what was held out of training for this."""
        if self.calibration is None:
            return {}
        if self.calibration_images is not None:
            found = self._evaluated(model, "calibration", self.calibration_images, "skip", 0, 1)
            assert isinstance(found, MultiLabelEvaluation)
            if found.skipped:
                tell(f"warning: not measured on what cannot be read: {first_few(found.skipped)}")
            self.calibration = measured_thresholds(found)
        tell(f"an image has a class from {self.calibration}")
        return {"calibration": self.calibration.to_dict()}

    def flops(self, model: nn.Module) -> int:
        return model.flops() if isinstance(model, ViT | SASAResNet) else 0

    def metadata(self) -> dict[str, Any]:
        """All that prediction needs beside the weights, so that it needs no data set."""
        return {
            "task": "classification",
            "model": {"name": self.recipe.model.name, "config": config_values(self.config)},
            "class_names": list(self.data.class_names),
            "preprocessing": self.preprocessing.to_dict(),
            **({} if self.calibration is None else {"calibration": self.calibration.to_dict()}),
        }


def training_images(images: ImageClasses, options: ClassificationDataSection) -> ImageSource:
    """Those of opened data, or of them those that `data.per_class` draws."""
    if options.per_class is None:
        return images.train
    return draw_per_class(images.train, options.per_class, options.per_class_seed, f"{images.address}: data.per_class")


def _batch_mixing(augment: ClassificationAugmentSection, num_classes: int) -> nn.Module | None:
    """Mixup or cutmix; if both are on, one of them at random for each batch; None if both are off."""
    if not augment.mixup and not augment.cutmix:
        return None
    from torchvision.transforms import v2

    kinds: list[Any] = []
    if augment.mixup:
        kinds.append(v2.MixUp(alpha=augment.mixup, num_classes=num_classes))
    if augment.cutmix:
        kinds.append(v2.CutMix(alpha=augment.cutmix, num_classes=num_classes))
    return v2.RandomChoice(kinds)
