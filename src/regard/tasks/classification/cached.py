"""A classifier whose head alone learns: what the head reads is computed once for each image, and kept."""

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from regard.data import Batch, ImageClasses, OnBadImage, Preprocessing, TrainingOrder, evaluation_transform
from regard.models import SASAResNet, ViT
from regard.recipes import FeaturesSection
from regard.tasks.classification.logistic_regression import logistic_regression
from regard.tasks.classification.metrics import Evaluation
from regard.tasks.features.extract import ShowsProgress, open_store, reserve
from regard.tasks.features.pooled import HEADS, Pooled, frozen_head_input, head_output, jobs_of, pooled_features


class CachedFeatures:
    """The features of both parts of the data: of the training part as `[features]` says, of the held-out part exact.

    So an evaluation gives what prediction gives, and never runs the backbone.
    """

    def __init__(
        self,
        model: ViT,
        data: ImageClasses,
        preprocessing: Preprocessing,
        options: FeaturesSection,
        on_bad_image: OnBadImage,
    ) -> None:
        self.model, self.data, self.preprocessing = model, data, preprocessing
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

    def solve_head(self) -> None:
        """Gives the head the weights of logistic regression on the features of all training images."""
        part, head = self._part("train"), self.model.head
        assert isinstance(head, nn.Linear)
        weight, bias = logistic_regression(part.features.float(), self._labels(part), head.out_features)
        with torch.no_grad():
            head.weight.copy_(weight)
            head.bias.copy_(bias)

    def evaluate(self, model: nn.Module, *, rank: int, world_size: int) -> Evaluation:
        """The evaluation of this process's shard of the held-out images; `model` has the same backbone."""
        assert isinstance(model, ViT | SASAResNet)
        part, device = self._part("val"), next(model.parameters()).device
        mine = slice(rank, None, world_size)
        with torch.inference_mode():
            logits = head_output(model, part.features[mine].to(device)).float().cpu()
        labels = torch.tensor(self.data.val.labels)[part.indices[mine]]
        skipped = part.skipped[mine]
        return Evaluation(logits, labels, part.names[mine], self.data.class_names, skipped)

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
        of_train, unreadable = jobs_of(self.data.train, transform, bad)
        of_val, unreadable_of_val = jobs_of(self.data.val, transform, bad)
        reserve([(kept, list(of_train.values())), (exact, list(of_val.values()))])
        train = pooled_features(
            kept, of_train, "features of the training images", on_bad_image=bad, progress=self.progress
        )
        val = pooled_features(
            exact, of_val, "features of the held-out images", on_bad_image=bad, progress=self.progress
        )
        return {
            "train": train._replace(skipped=(*unreadable, *train.skipped)),
            "val": val._replace(skipped=(*unreadable_of_val, *val.skipped)),
        }

    def _labels(self, part: Pooled) -> Int64[Tensor, " images"]:
        return torch.tensor(self.data.train.labels)[part.indices]

    def _batches(self, part: Pooled, order: TrainingOrder) -> Iterator[Batch]:
        labels = self._labels(part)
        row_of = {index: row for row, index in enumerate(part.indices.tolist())}
        skipped = list(part.skipped)
        for chosen in order:
            rows = [row_of[index] for _, index in chosen if index in row_of]
            rows = rows or [0]  # where nothing of a batch can be read
            yield Batch(part.features[rows], labels[rows], [part.names[row] for row in rows], skipped)
            skipped = []
