"""Object detection: the data, the model and the loss that a recipe asks for."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from regard.data import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Annotations,
    AspectOrder,
    DetectionAugmentation,
    DetectionBatch,
    DetectionData,
    DetectionPreprocessing,
    DetectionSource,
    Issue,
    MosaicAndJitter,
    PreparedDetectionSource,
    ResizedDetectionSource,
    SelectedDetectionSource,
    TrainingOrder,
    Views,
    cached,
    check_opened_detection,
    data_root,
    detection_training_loader,
    detection_training_transform,
    no_room,
    no_room_for,
    open_detection,
    prepared_areas,
    too_small,
)
from regard.errors import RegardError, first_few
from regard.files import expanded
from regard.losses import DNDETRLoss, SetPredictionLoss
from regard.models import DETR, DNDETR, DNDETRConfig, ViTBackbone, build, config_values, vit_stride
from regard.reading import read_json
from regard.recipes import DetectionDataSection, DetectionRecipe
from regard.tasks.detection.calibration import Calibration, calibrated
from regard.tasks.detection.calibration_images import enough, held_for_calibration, objects_in
from regard.tasks.detection.frozen import FeatureBatch, FeatureDetector, FrozenBackbone, detected
from regard.tasks.detection.metrics import DetectionEvaluation
from regard.tasks.detection.predictor import Detector, counted_detections
from regard.tasks.task import training_order
from regard.tasks.weights import or_from_scratch
from regard.weights import load_pretrained_backbone, load_weights

# So many detections for each that counts are looked at when suppression is chosen, so that enough of them stay.
CANDIDATES = 3


class DetectionTask:
    """Everything in a run that is about boxes; the training loop knows nothing about them."""

    unit = "images"
    main_metric = "ap"
    larger_is_better = True
    progress: Any = None

    def __init__(self, recipe: DetectionRecipe) -> None:
        self.recipe = recipe
        options, wanted = recipe.data, recipe.model.config(num_classes=1)
        self.data: DetectionData = open_detection(
            options.address,
            channels=wanted.in_chans,
            val_fraction=options.val_fraction,
            split_seed=options.split_seed,
            on_bad_image=options.on_bad_image,
            on_bad_annotation=options.on_bad_annotation,
            annotations=annotations_of(options),
            max_megapixels=options.max_megapixels,
            leave_out=options.leave_out,
        )
        self.config = recipe.model.config(num_classes=len(self.data.class_names))
        self.train, self.val = splits_of(self.data, options)
        grey = wanted.in_chans == 1
        shortest, longest = sides_of_images(options, self.train)
        self.preprocessing = DetectionPreprocessing(
            shortest=shortest,
            longest=longest,
            channels=wanted.in_chans,
            mean=options.mean or ((sum(IMAGENET_MEAN) / 3,) if grey else IMAGENET_MEAN),
            std=options.std or ((sum(IMAGENET_STD) / 3,) if grey else IMAGENET_STD),
            decoding=self.data.decoding,
            divisor=options.divisor,
        )
        self.selection_images = self._selected()
        self.calibration_images, self.calibration = self._held_out()
        self._frozen: FrozenBackbone | None = None
        is_frozen = recipe.model.freeze == "backbone"
        if recipe.augment.varies and not is_frozen:
            closer = max(recipe.augment.scale_jitter[1], 1)
            self.train = ResizedDetectionSource(self.train, math.ceil(shortest * closer), math.ceil(longest * closer))
        self._not_cached = ""
        if options.cache and not is_frozen:  # whose images are read once
            self._not_cached = no_room_for(self.train, wanted.in_chans, options.num_workers)
            self.train = cached(self.train, wanted.in_chans, options.num_workers)
            kept = [] if self._not_cached else [height * width for height, width in self.train.sizes]
            kept += prepared_areas(self.val, self.preprocessing)
            if not no_room(kept, wanted.in_chans, options.num_workers):
                self.val = PreparedDetectionSource(self.val, self.preprocessing, shared=options.num_workers > 0)
        self._loss: SetPredictionLoss | DNDETRLoss = SetPredictionLoss(len(self.data.class_names))
        if isinstance(self.config, DNDETRConfig):
            self._loss = DNDETRLoss(len(self.data.class_names), label_loss=self.config.label_loss)

    def _selected(self) -> DetectionSource | None:
        """The images that are taken out of `train` for `data.selection`."""
        fraction = self.recipe.data.selection
        if not fraction:
            return None
        root = data_root(self.data.address)
        self.train, held = held_for_calibration(self.train, fraction, self.recipe.data.split_seed, root)
        if not objects_in(held):
            raise RegardError(
                f"data.selection: {fraction:g} of {len(held) + len(self.train)} images hold no object to measure on; "
                "raise it, or take train.patience out"
            )
        return held

    def _held_out(self) -> tuple[DetectionSource | None, Calibration | None]:
        """The images that are taken out of `train` to measure on them at the end, and what holds until then.

        Where these would hold too few objects, and where it is evaluated on what it is trained on, all are trained on.
        """
        options, names = self.recipe.evaluate, self.data.class_names
        if options.nms == "off" and not options.calibration:
            return None, None
        if not options.calibration or self.recipe.data.validate_on == "train":
            return None, Calibration.default(options.nms, names)
        root, rest, held = data_root(self.data.address), self.train, self.selection_images
        if held is None:  # else the same images do for both
            rest, held = held_for_calibration(self.train, options.calibration, self.recipe.data.split_seed, root)
        default = Calibration.default(options.nms, names, len(held), objects_in(held))
        if not enough(held):
            return None, default
        self.train = rest
        return held, default

    @property
    def features_first(self) -> bool:
        return self._frozen is not None

    @property
    def skipped(self) -> tuple[str, ...]:
        return (*self.train.skipped, *self.val.skipped)

    def check(self) -> list[Issue]:
        """Issues of the data that can be found without decoding every image, and of the backbone's weights."""
        used = self.data if self.recipe.data.validate_on == "val" else replace(self.data, val=self.data.train)
        issues, _, _ = check_opened_detection(
            used,
            num_queries=self.config.num_queries,
            pixels=False,
            on_bad_image=self.recipe.data.on_bad_image,
            on_bad_annotation=self.recipe.data.on_bad_annotation,
            strict=self.recipe.data.strict,
        )
        token = vit_stride(self.config.backbone)
        if token is not None and (small := too_small(self.train, self.preprocessing, token)):
            issues.append(Issue("warning", small, self.data.address))
        if self._not_cached:
            issues.append(Issue("warning", self._not_cached, "data.cache"))
        if self.config.frozen_norm and not (self.recipe.model.weights or self.recipe.model.pretrained_backbone):
            what = (
                "the backbone starts from random weights with norms that never learn; "
                "--set model.pretrained_backbone=true begins with timm's weights of ImageNet"
            )
            issues.append(Issue("warning", what, "model"))
        return issues

    def build_model(self) -> DETR | DNDETR:
        options, model = self.recipe.model, build(self.config)
        assert isinstance(model, DETR | DNDETR)
        model.gradient_checkpointing = self.recipe.train.gradient_checkpointing
        if options.pretrained_backbone:
            named = options.pretrained_backbone
            with or_from_scratch(self.recipe):
                load_pretrained_backbone(model.backbone, named if isinstance(named, str) else None)
        if options.weights is not None and _sees_whole_images(options.weights):
            load_pretrained_backbone(model.backbone, options.weights)
        elif options.weights is not None:
            load_weights(model, options.weights, classes="reset" if options.reset_head else "keep")
        if options.learn_blocks is not None:
            assert isinstance(model.backbone, ViTBackbone)  # the recipe allows no other
            model.backbone.freeze_but_last(options.learn_blocks)
        elif isinstance(options.freeze, int):
            model.backbone.freeze_first(options.freeze)
        elif self.config.frozen_norm and (options.pretrained_backbone or options.weights is not None):
            model.backbone.freeze_stem()
        if options.freeze == "backbone":
            views = Views(self.preprocessing, self.recipe.augment.scale_jitter, self.recipe.augment.colour)
            features = self.recipe.features.within(self.recipe.train.max_minutes)
            bad = self.recipe.data.on_bad_image
            self._frozen = FrozenBackbone(model.backbone, views, features, bad, self.progress)
            model.backbone = nn.Identity()  # type: ignore[assignment]
        return model

    def whole(self, model: nn.Module) -> nn.Module:
        """The detector with its backbone, where that is frozen and `model` lacks it."""
        return model if self._frozen is None else self._frozen.whole(model)

    def order(self, *, rank: int, world_size: int) -> TrainingOrder:
        """The images of each step, from the first step on."""
        recipe = self.recipe
        if not recipe.data.group_by_aspect:
            return training_order(recipe, len(self.train), rank=rank, world_size=world_size)
        return AspectOrder(
            self.train.sizes,
            recipe.train.batch_size,
            recipe.seed,
            rank=rank,
            world_size=world_size,
            accumulate=recipe.train.accumulate,
        )

    def training_loader(self, order: TrainingOrder) -> Iterable[DetectionBatch | FeatureBatch]:
        """Endless batches of augmented images; or of stored features, which are computed first."""
        recipe, augment = self.recipe, self.recipe.augment
        if self._frozen is not None:
            held_out = [self.val, self.calibration_images, self.selection_images]
            self._frozen.fill(self.train, [source for source in held_out if source is not None])
            return self._frozen.batches(self.train, order, flip=augment.flip and self.data.can_flip)
        transform = detection_training_transform(
            self.preprocessing,
            DetectionAugmentation(
                flip=augment.flip and self.data.can_flip,
                scales=augment.scales,
                crop=augment.crop,
                colour=augment.colour,
            ),
        )
        vary = None
        if augment.varies:
            vary = MosaicAndJitter(
                self.train,
                augment.scale_jitter,
                augment.mosaic,
                self.preprocessing.mean,
                most=self.config.num_queries,
            )
        return detection_training_loader(
            self.train, transform, order, recipe.data.num_workers, recipe.data.on_bad_image, vary
        )

    def weight(self, batch: DetectionBatch | FeatureBatch) -> int:
        """The number of images. The loss itself counts the boxes over all processes."""
        return len(batch)

    def loss(self, model: nn.Module, batch: DetectionBatch | FeatureBatch) -> Float[Tensor, ""]:
        """The set loss over all layers of the decoder; a DN-DETR adds that of proposals and denoising queries."""
        if isinstance(batch, FeatureBatch):
            self._loss.to(batch.sizes.device)
            return self._loss(detected(model, batch), batch.labels, batch.boxes_cxcywh).total
        self._loss.to(batch.images.device)
        if isinstance(self._loss, DNDETRLoss):
            output = model(batch.images, batch.mask, batch.labels, batch.boxes_cxcywh)
            return self._loss(output, batch.labels, batch.boxes_cxcywh).total
        output = model(batch.images, batch.mask)
        return self._loss(output.logits, output.boxes_cxcywh, batch.labels, batch.boxes_cxcywh).total

    def predictor(self, model: nn.Module) -> Detector:
        kind = Detector if self._frozen is None else FeatureDetector
        found = kind(model, self.data.class_names, self.data.category_ids, self.preprocessing, self.calibration)
        if isinstance(found, FeatureDetector) and self._frozen is not None:
            found.frozen = self._frozen
        return found

    def evaluate(self, model: nn.Module, *, rank: int, world_size: int) -> DetectionEvaluation:
        """The evaluation of this process's shard of the held-out images."""
        was_training = model.training
        shard = self.predictor(model).evaluate(
            self.val,
            num_workers=self.recipe.data.num_workers,
            on_bad_image=self.recipe.data.on_bad_image,
            rank=rank,
            world_size=world_size,
        )
        model.train(was_training)
        return shard

    def metrics(self, shards: Sequence[DetectionEvaluation]) -> dict[str, float]:
        """COCO's figures and the loss over the shards of all processes."""
        return DetectionEvaluation.joined(shards).metrics()

    def details(self, shards: Sequence[DetectionEvaluation]) -> dict[str, Any]:
        return {}

    def select(self, model: nn.Module) -> float:
        """The AP on the images of `data.selection`, suppressed as in every evaluation: early, boxes have twins."""
        assert self.selection_images is not None
        was_training = model.training
        found = self.predictor(model).evaluate(
            self.selection_images,
            num_workers=self.recipe.data.num_workers,
            on_bad_image=self.recipe.data.on_bad_image,
        )
        model.train(was_training)
        return self.metrics([found])[self.main_metric]

    def finish(self, model: nn.Module, tell: Callable[[str], object]) -> dict[str, Any]:
        """Chooses suppression and the least scores, on the images that were held out of training for this."""
        if self.calibration is None:
            return {}
        if self.calibration_images is not None:
            was_training, counted = model.training, counted_detections(self.calibration_images.objects)
            found = self.predictor(model).evaluate(
                self.calibration_images,
                num_workers=self.recipe.data.num_workers,
                on_bad_image="skip",  # a trained model shall not be lost for one
                max_detections=CANDIDATES * counted,
                nms="off",
            )
            model.train(was_training)
            if found.skipped:
                tell(f"warning: not measured on what cannot be read: {first_few(found.skipped)}")
            self.calibration = calibrated(found, self.recipe.evaluate.nms, counted)
        tell(f"boxes: {self.calibration}")
        return {"calibration": self.calibration.to_dict()}

    def flops(self, model: nn.Module) -> int:
        """For an image of the size that most training images are resized to."""
        if not isinstance(model, DETR | DNDETR):
            return 0
        sizes = torch.tensor([self.preprocessing.prepared_size(*size) for size in self.train.sizes])
        height, width = sizes.mode(0).values.tolist()
        return model.flops(height, width)

    def metadata(self) -> dict[str, Any]:
        """All that prediction needs beside the weights, so that it needs no data set."""
        return {
            "task": "detection",
            "model": {"name": self.recipe.model.name, "config": config_values(self.config)},
            "class_names": list(self.data.class_names),
            "category_ids": list(self.data.category_ids),
            "preprocessing": self.preprocessing.to_dict(),
            **({} if self.calibration is None else {"calibration": self.calibration.to_dict()}),
        }


def annotations_of(options: DetectionDataSection) -> Annotations:
    """The COCO files that a recipe names."""
    names = ("train_annotations", "train_images", "val_annotations", "val_images")
    stated = (getattr(options, name) for name in names)
    return Annotations(*(None if value is None else expanded(value) for value in stated))


def sides_of_images(options: DetectionDataSection, train: DetectionSource) -> tuple[int, int]:
    """(shortest, longest) as a recipe says, or without `enlarge` those of the training images where these are less."""
    if options.enlarge or not len(train):
        return options.shortest, options.longest
    shortest, longest = max(min(size) for size in train.sizes), max(max(size) for size in train.sizes)
    return min(options.shortest, shortest), min(options.longest, longest)


def splits_of(data: DetectionData, options: DetectionDataSection) -> tuple[DetectionSource, DetectionSource]:
    """The sources that a recipe trains on and evaluates on."""
    train = data.train
    if options.first is not None:
        train = SelectedDetectionSource(train, range(min(options.first, len(train))))
    return train, train if options.validate_on == "train" else data.val


def _sees_whole_images(weights: str) -> bool:
    """Whether weights are those of a run of whole images, such as a pre-training: a backbone, and no detector."""
    file = expanded(weights) / "metadata.json"
    if not file.is_file():
        return False
    metadata = read_json(file)
    return isinstance(metadata, dict) and metadata.get("task") == "classification"
