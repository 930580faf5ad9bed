"""A detector whose backbone is frozen: it is trained and evaluated on stored feature maps of views of the images."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from regard.data import BadImage, DetectionSource, OnBadImage, TrainingOrder, Views, seed_for
from regard.losses import cxcywh_of
from regard.models import DNDETR, Backbone, DNDETROutput
from regard.recipes import FeaturesSection
from regard.tasks.detection.predictor import Detector
from regard.tasks.features.extract import FrozenFeatures, Job, ShowsProgress, open_store, reserve
from regard.tasks.features.maps import frozen_maps

# 1 - cx in the place of cx, and the rest as it is: box · MIRROR + (1 - MIRROR) / 2.
MIRROR = torch.tensor([-1.0, 1.0, 1.0, 1.0])


class Sample(NamedTuple):
    """The maps of one view, and its objects."""

    maps: list[Tensor]
    size: tuple[int, int]
    """(width, height) in pixels."""
    labels: Tensor
    boxes_cxcywh: Tensor
    number: int
    """In the source."""
    stored_size: tuple[int, int]
    name: str


@dataclass
class FeatureBatch:
    """A batch of feature maps, with zeros right and below smaller ones; else as `DetectionBatch`."""

    features: list[Float[Tensor, "batch _ _ _"]]
    """(batch, channels, rows, columns) of each level of the backbone."""
    sizes: Float[Tensor, "batch 2"]
    """(width, height) of the views in pixels."""
    labels: list[Tensor]
    boxes_cxcywh: list[Tensor]
    indices: list[int]
    stored_sizes: list[tuple[int, int]]
    names: list[str]
    skipped: list[str]

    def __len__(self) -> int:
        return len(self.names)

    def to(self, device: torch.device | str) -> "FeatureBatch":
        features, labels, boxes = (
            [one.to(device) for one in many] for many in (self.features, self.labels, self.boxes_cxcywh)
        )
        return replace(self, features=features, sizes=self.sizes.to(device), labels=labels, boxes_cxcywh=boxes)


class FrozenBackbone:
    """A detector's backbone, and its maps of every view of the training images and of the whole held-out ones.

    Those of training images are computed and kept as `[features]` says, those of held-out images in float32, so that
    an evaluation finds what a prediction finds.
    """

    def __init__(
        self,
        backbone: Backbone,
        views: Views,
        options: FeaturesSection,
        on_bad_image: OnBadImage,
        progress: ShowsProgress | None = None,
    ) -> None:
        self.backbone = backbone.requires_grad_(False).eval()
        self.views, self.options, self.on_bad_image = views, options, on_bad_image
        self.progress = progress
        store = open_store(options.folder, options.max_gb, progress)
        of_maps = partial(frozen_maps, backbone, views.preprocessing.to_dict(), store=store)
        self._of_training = of_maps(dtype=options.dtype, precision=options.precision)
        self._exact = of_maps(dtype="fp32", precision="fp32")
        self._jobs: dict[tuple[int, int], list[list[Job]]] = {}
        """Those of a source's images, each view's, by the source's id and the number of views."""

    def num_views(self, train: DetectionSource) -> int:
        """Of each training image."""
        return self.options.views_of_each(len(train))

    def whole(self, model: nn.Module) -> nn.Module:
        """The detector with its backbone, which shares all weights with `model`."""
        found = copy.copy(model)
        found.__dict__["_modules"] = {**model._modules, "backbone": self.backbone}
        return found

    def fill(self, train: DetectionSource, held_out: Sequence[DetectionSource]) -> list[str]:
        """Computes the maps that the store lacks. Returns why images were left out."""
        of_train = [job for views in zip(*self._jobs_of(train, self.num_views(train)), strict=True) for job in views]
        whole = [job for source in held_out for (job,) in self._jobs_of(source, 1)]
        reserve([(self._of_training, of_train), (self._exact, whole)])
        return [
            why
            for features, jobs, name in (
                (self._of_training, of_train, "features of the training images"),
                (self._exact, whole, "features of the held-out images"),
            )
            for why in features.fill(jobs, name, on_bad_image=self.on_bad_image, progress=self.progress)
        ]

    def batches(self, source: DetectionSource, order: TrainingOrder, *, flip: bool) -> Iterator[FeatureBatch]:
        """Endless batches of training. In as many epochs as there are views, each image shows each of them once."""
        for chosen in order:
            yield joined([self._training_sample(source, epoch, index, order.seed, flip) for epoch, index in chosen])

    def held_out_batches(self, source: DetectionSource, indices: Sequence[int]) -> Iterator[FeatureBatch]:
        """Whole images, one at a time, so that none is padded."""
        for index in indices:
            (job,) = self._jobs_of(source, 1)[index]
            yield joined([self._sample(self._exact, source, job, index, 0)])

    def _training_sample(self, source: DetectionSource, epoch: int, index: int, seed: int, flip: bool) -> Sample | str:
        num_views = self.num_views(source)
        cycle, position = divmod(epoch, num_views)
        generator = torch.Generator().manual_seed(seed_for(seed, cycle, index))
        number = int(torch.randperm(num_views, generator=generator)[position])
        mirrored = torch.rand(num_views, generator=generator)[position] < 0.5
        job = self._jobs_of(source, num_views)[index][number]
        sample = self._sample(self._of_training, source, job, index, number)
        # Where a map ends in half a patch, its mirror image would begin with one, and boxes would lie beside objects.
        if isinstance(sample, str) or not (flip and mirrored) or sample.size[0] % self.backbone.reductions[-1]:
            return sample
        maps, boxes = [one.flip(-1) for one in sample.maps], sample.boxes_cxcywh * MIRROR + (1 - MIRROR) / 2
        return sample._replace(maps=maps, boxes_cxcywh=boxes)

    def _sample(
        self, features: FrozenFeatures, source: DetectionSource, job: Job, index: int, number: int
    ) -> Sample | str:
        """The stored maps of a view; why an image that must be read for them cannot be, where that is no error."""
        stored, size = source.objects[index], source.sizes[index]
        window = self.views.window(size, stored, number, job.digest)
        objects, (height, width) = self.views.objects(stored, window), window.size
        boxes = cxcywh_of(objects.boxes_xyxy / torch.tensor([window.width, window.height]).repeat(2))
        try:
            maps = [one.float() for one in features.levels(job)]
        except BadImage as error:
            if self.on_bad_image == "stop":
                raise
            return str(error)
        return Sample(maps, (width, height), objects.labels, boxes, index, size, job.name)

    def _jobs_of(self, source: DetectionSource, num_views: int) -> list[list[Job]]:
        key = (id(source), num_views)
        if key not in self._jobs:
            self._jobs[key] = [
                self._views_of(source, index, source.digest(index), num_views) for index in range(len(source))
            ]
        return self._jobs[key]

    def _views_of(self, source: DetectionSource, index: int, digest: str, num_views: int) -> list[Job]:
        def prepare(number: int) -> Tensor:
            image = source.read(index)
            window = self.views.window((image.shape[1], image.shape[2]), source.objects[index], number, digest)
            return self.views.pixels(image, window, number, digest)

        return [
            Job(digest, self.views.name(number), source.name(index), partial(prepare, number))
            for number in range(num_views)
        ]


class FeatureDetector(Detector):
    """A detector without its backbone, which measures itself on the stored maps of held-out images."""

    frozen: FrozenBackbone

    def _evaluation_batches(
        self,
        source: DetectionSource,
        batch_size: int,
        num_workers: int,
        on_bad_image: OnBadImage,
        rank: int,
        world_size: int,
    ) -> Iterator[FeatureBatch]:
        return self.frozen.held_out_batches(source, range(rank, len(source), world_size))

    @torch.inference_mode()
    def _output_of(self, batch: FeatureBatch) -> tuple[Tensor, Tensor]:
        batch = batch.to(self.device)
        assert isinstance(self.model, DNDETR)
        output = self.model.detect(batch.features, batch.sizes, padded=False)
        return output.logits.float(), output.boxes_cxcywh.float()


def joined(samples: Sequence[Sample | str]) -> FeatureBatch:
    """A batch of samples, without those that are reasons why there is none."""
    found = [sample for sample in samples if isinstance(sample, Sample)]
    levels = [_padded(maps) for maps in zip(*(sample.maps for sample in found), strict=True)]
    return FeatureBatch(
        levels,
        torch.tensor([sample.size for sample in found], dtype=torch.float32).view(-1, 2),
        [sample.labels for sample in found],
        [sample.boxes_cxcywh for sample in found],
        [sample.number for sample in found],
        [sample.stored_size for sample in found],
        [sample.name for sample in found],
        [sample for sample in samples if isinstance(sample, str)],
    )


def detected(model: nn.Module, batch: FeatureBatch) -> DNDETROutput:
    """A training step's output, as `DNDETR.forward` gives it for images."""
    assert isinstance(model, DNDETR)
    return model.detect(batch.features, batch.sizes, denoising=model.denoising(batch.labels, batch.boxes_cxcywh))


def _padded(maps: Sequence[Tensor]) -> Tensor:
    rows, columns = (max(one.shape[axis] for one in maps) for axis in (1, 2))
    batch = torch.zeros(len(maps), maps[0].shape[0], rows, columns)
    for place, one in zip(batch, maps, strict=True):
        place[:, : one.shape[1], : one.shape[2]] = one
    return batch
