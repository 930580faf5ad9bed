"""A classifier whose head alone learns: what the head reads is computed once for each image, and kept."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from regard.data import (
    Batch,
    ImageSource,
    OnBadImage,
    Preprocessing,
    TrainingOrder,
    evaluation_transform,
    label_tensor,
)
from regard.models import SASAResNet, ViT
from regard.recipes import FeaturesSection
from regard.tasks.features.extract import ShowsProgress, open_store, reserve
from regard.tasks.features.logistic_regression import logistic_regression
from regard.tasks.features.pooled import HEADS, Pooled, frozen_head_input, head_output, jobs_of, pooled_features

WORDS = {"train": "training", "val": "held-out", "calibration": "calibration", "selection": "selection"}


class Measured(NamedTuple):
    """What an evaluation is made of."""

    logits: Float[Tensor, "images num_classes"]
    labels: Int64[Tensor, " images *classes"]
    names: tuple[str, ...]
    skipped: tuple[str, ...]


class CachedFeatures:
    """The features of all parts of the data: of "train" as `[features]` says, of those that are evaluated on exact.

    So an evaluation gives what prediction gives, and never runs the backbone.
    """

    def __init__(
        self,
        model: ViT,
        sources: Mapping[str, ImageSource],
        preprocessing: Preprocessing,
        options: FeaturesSection,
        on_bad_image: OnBadImage,
    ) -> None:
        self.model, self.sources, self.preprocessing = model, sources, preprocessing
        self.options, self.on_bad_image = options, on_bad_image
        self.progress: ShowsProgress | None = None
        self._parts: dict[str, Pooled] = {}
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name.startswith(HEADS))

    def head(self, features: Float[Tensor, "batch num_features"]) -> Float[Tensor, "batch num_classes"]:
        return head_output(self.model, features)

    def batches(self, order: TrainingOrder) -> Iterator[Batch]:
        """Endless batches in the order of training, with features instead of images. Unreadable images are left out."""
        return self._batches(self._part("train"), order)

    def solve_head(self, class_weights: Tensor | None = None) -> None:
        """Gives the head the weights of logistic regression on the features of all training images."""
        solve(self.model, self._part("train").features, self._labels("train"), class_weights)

    def evaluate(self, model: nn.Module, name: str, *, rank: int, world_size: int) -> Measured:
        """This process's shard of a part, for an evaluation; `model` has the same backbone."""
        assert isinstance(model, ViT | SASAResNet)
        part, device = self._part(name), next(model.parameters()).device
        mine = slice(rank, None, world_size)
        with torch.inference_mode():
            logits = head_output(model, part.features[mine].to(device)).float().cpu()
        return Measured(logits, self._labels(name)[mine], part.names[mine], part.skipped[mine])

    def _part(self, name: str) -> Pooled:
        if not self._parts:
            self._parts = self._computed()
        return self._parts[name]

    def _computed(self) -> dict[str, Pooled]:
        options = self.options
        store = open_store(options.folder, options.max_gb, self.progress)
        kept = frozen_head_input(
            self.model, self.preprocessing, dtype=options.dtype, precision=options.precision, store=store
        )
        exact = frozen_head_input(self.model, self.preprocessing, store=store)
        transform, bad = evaluation_transform(self.preprocessing), self.on_bad_image
        jobs = {name: jobs_of(source, transform, bad) for name, source in self.sources.items()}
        features = {name: kept if name == "train" else exact for name in jobs}
        reserve([(features[name], list(of_part.values())) for name, (of_part, _) in jobs.items()])
        found: dict[str, Pooled] = {}
        for name, (of_part, unreadable) in jobs.items():
            what = f"features of the {WORDS[name]} images"
            part = pooled_features(features[name], of_part, what, on_bad_image=bad, progress=self.progress)
            found[name] = part._replace(skipped=(*unreadable, *part.skipped))
        return found

    def _labels(self, name: str) -> Int64[Tensor, " images *classes"]:
        source = self.sources[name]
        return label_tensor(source.labels, source.num_classes)[self._part(name).indices]

    def _batches(self, part: Pooled, order: TrainingOrder) -> Iterator[Batch]:
        labels = self._labels("train")
        row_of = {index: row for row, index in enumerate(part.indices.tolist())}
        skipped = list(part.skipped)
        for chosen in order:
            rows = [row_of[index] for _, index in chosen if index in row_of]
            rows = rows or [0]  # where nothing of a batch can be read
            yield Batch(part.features[rows], labels[rows], [part.names[row] for row in rows], skipped)
            skipped = []


def solve_head(
    model: ViT | SASAResNet,
    source: ImageSource,
    preprocessing: Preprocessing,
    class_weights: Tensor | None,
    progress: ShowsProgress | None,
) -> None:
    """Gives the head of a model that will learn as a whole the weights of logistic regression on its features now."""
    jobs, _ = jobs_of(source, evaluation_transform(preprocessing), "skip")
    frozen = frozen_head_input(model, preprocessing)
    found = pooled_features(frozen, jobs, "features for the head", on_bad_image="skip", progress=progress)
    labels = label_tensor(source.labels, source.num_classes)[found.indices]
    solve(model, found.features, labels, class_weights)


def solve(
    model: ViT | SASAResNet,
    features: Float[Tensor, "images num_features"],
    labels: Int64[Tensor, " images *classes"],
    class_weights: Tensor | None,
) -> None:
    """Puts the weights of logistic regression into a model's head."""
    head = model.head
    assert isinstance(head, nn.Linear)
    weight, bias = logistic_regression(features.float(), labels, head.out_features, weights=class_weights)
    with torch.no_grad():
        head.weight.copy_(weight)
        head.bias.copy_(bias)
