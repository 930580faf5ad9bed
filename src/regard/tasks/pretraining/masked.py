"""Masked image modelling, and self-distillation: what the images teach by themselves."""

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from regard.data import (
    Augmentation,
    BadImage,
    ByEpoch,
    ImageSource,
    OnBadImage,
    Preprocessing,
    Skipped,
    TrainingOrder,
    drawing_from,
    endless_batches,
    evaluation_transform,
    seed_for,
    training_transform,
)
from regard.errors import RegardError
from regard.losses import feature_loss, masked_loss, normalised_patches
from regard.models import ImageModel, MaskedAutoencoder, SelfDistilled, SimMIM, ViT
from regard.ops import patches_of
from regard.recipes import PretrainingRecipe
from regard.tasks.features.extract import ShowsProgress
from regard.tasks.pretraining.batches import Lesson, PretrainingBatch, joined


class Masking:
    """Images with hidden patches, and the loss of a model that learns what is there.

    MAE: the mean square of the differences over hidden patches; SimMIM: their mean absolute value; self-distillation:
    `feature_loss` between student and moving average. Which patches are hidden follows from seed, epoch and image.
    """

    num_views = 1

    def __init__(self, recipe: PretrainingRecipe, train: ImageSource, val: ImageSource, pre: Preprocessing) -> None:
        self.options, self.pre = recipe.pretrain, pre
        self.train, self.val = train, val
        self.on_bad_image: OnBadImage = recipe.data.on_bad_image
        self.num_workers, self.accumulate = recipe.data.num_workers, recipe.train.accumulate
        self.progress: ShowsProgress | None = None
        augment = recipe.augment
        self._seen = training_transform(
            pre,
            Augmentation(
                shift=0,
                flip=augment.flip,
                crop_scale=augment.crop_scale,
                rand_augment=0,
                rand_augment_magnitude=0,
                erase=0.0,
                rotation=augment.rotation,
                colour=augment.colour,
            ),
        )
        self._learner: SelfDistilled | None = None
        self._trained = 0  # micro-batches
        self._num_patches, self._patch_size = 0, 0

    def build(self, model: ImageModel) -> nn.Module:
        assert isinstance(model, ViT)  # the recipe allows no other
        options, fraction = self.options, self.options.fraction_hidden
        self._num_patches, self._patch_size = model.grid.num_patches, model.config.patch_size
        size = self._patch_size
        if self._num_patches == 1:
            raise RegardError(
                f"model.img_size: an image is one patch of {size} × {size} pixels, which cannot be hidden and seen; "
                f"{2 * size} × {2 * size} are four"
            )
        if options.method == "mae" and options.normalised_patches and size**2 * model.config.in_chans == 1:
            raise RegardError(
                "pretrain.normalised_patches: a patch of one value has no deviation; set it to false, or a larger "
                "model.patch_size"
            )
        model.fc_norm.requires_grad_(False)  # the norm behind the pooling: nothing is pooled here
        if options.method == "mae":
            return MaskedAutoencoder(
                model, mask_ratio=fraction, decoder_dim=options.decoder_dim, decoder_depth=options.decoder_depth
            )
        if options.method == "simmim":
            return SimMIM(model, mask_ratio=fraction)
        self._learner = SelfDistilled(model, mask_ratio=fraction, momentum=options.momentum)
        return self._learner

    def model_of(self, learner: nn.Module) -> ImageModel:
        assert isinstance(learner, MaskedAutoencoder | SimMIM | SelfDistilled)
        return learner.vit

    def prepare(self, *, standardise: bool) -> list[str]:
        """There is nothing to compute before the first step."""
        return []

    def batches(self, order: TrainingOrder) -> Iterable[PretrainingBatch]:
        return endless_batches(MaskedImages(self, order.seed), order, self.num_workers, joined)

    def lesson(self, source: ImageSource, index: int, seed: int, *, augmented: bool) -> Lesson | Skipped:
        """An image as the model takes it, and its patches in a random order; both are drawn from the seed."""
        try:
            image = source.read(index)
        except BadImage as error:
            if self.on_bad_image == "stop":
                raise
            return Skipped(str(error))
        with drawing_from(seed):
            seen = (self._seen if augmented else evaluation_transform(self.pre))(image)
            return Lesson(seen, source.name(index), order=torch.randperm(self._num_patches))

    def held_out(self, indices: Sequence[int], batch_size: int) -> Iterator[PretrainingBatch]:
        """Held-out images, whose hidden patches are the same at each evaluation."""
        for first in range(0, len(indices), batch_size):
            part = indices[first : first + batch_size]
            yield joined([self.lesson(self.val, index, seed_for(0, index), augmented=False) for index in part])

    def loss(self, learner: nn.Module, batch: PretrainingBatch) -> Tensor:
        if self._learner is not None:
            if torch.is_grad_enabled():
                if self._trained % self.accumulate == 0:  # all micro-batches of a step have one teacher
                    self._learner.follow()
                self._trained += 1
            expected, seen = learner(batch.images, batch.order)
            return feature_loss(expected, seen)
        expected, hidden = learner(batch.images, batch.order)
        wanted = patches_of(batch.images, self._patch_size)
        if self.options.method == "mae" and self.options.normalised_patches:
            wanted = normalised_patches(wanted)
        return masked_loss(expected, wanted, hidden, power=2 if self.options.method == "mae" else 1)


class MaskedImages(ByEpoch):
    """Lessons by (epoch, index)."""

    def __init__(self, masking: Masking, seed: int) -> None:
        self.masking, self.seed = masking, seed

    def __len__(self) -> int:
        return len(self.masking.train)

    def __getitem__(self, key: tuple[int, int]) -> Lesson | Skipped:
        seed = seed_for(self.seed, *key)
        return self.masking.lesson(self.masking.train, key[1], seed, augmented=True)
