"""What the head of a classifier reads, for all images of a source."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from regard.data import BadImage, DetectionSource, ImageSource, OnBadImage, Preprocessing
from regard.errors import RegardError
from regard.models import SASAResNet, ViT
from regard.tasks.features.extract import Dtype, FrozenFeatures, Job, Precision, ShowsProgress, weights_hash
from regard.tasks.features.store import FeatureStore

HEADS = ("head.", "head_dist.")


class Pooled(NamedTuple):
    """The features of the images that can be read, and what they are called; `skipped` says why others cannot."""

    features: Float[Tensor, "images num_features"]
    indices: Int64[Tensor, " images"]
    """In the source."""
    names: tuple[str, ...]
    skipped: tuple[str, ...]


def head_input(model: ViT | SASAResNet, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "b d"]:
    """The input of the head; with a distillation token, that of both heads, one behind the other."""
    if isinstance(model, ViT) and model.config.pool == "distilled":
        tokens = model.forward_features(images)
        return torch.cat([model.pool(tokens), tokens[:, 1]], dim=1)
    return model.intermediates(images, ["pre_logits"])["pre_logits"]


def head_output(model: ViT | SASAResNet, features: Float[Tensor, "b d"]) -> Float[Tensor, "b num_classes"]:
    """The logits of what `head_input` gives: together they are the model."""
    if isinstance(model, ViT) and model.config.pool == "distilled":
        of_class, of_distillation = features.chunk(2, dim=1)
        return (model.head(of_class) + model.head_dist(of_distillation)) / 2
    return model.head(features)


def frozen_head_input(
    model: nn.Module,
    preprocessing: Preprocessing,
    *,
    dtype: Dtype = "fp32",
    precision: Precision = "fp32",
    store: FeatureStore | None = None,
) -> FrozenFeatures:
    """The features that a classifier's head reads. RegardError for a model of another kind."""
    if not isinstance(model, ViT | SASAResNet):
        raise RegardError(f"features: must come from a model that classifies, not from a {type(model).__name__}")
    config = {key: value for key, value in asdict(model.config).items() if key not in ("num_classes", "drop_path")}
    return FrozenFeatures(
        model,
        partial(head_input, model),
        weights=weights_hash(model, config, without=HEADS),
        preprocessing={"features": "head input", **preprocessing.to_dict()},
        dtype=dtype,
        precision=precision,
        store=store,
    )


def jobs_of(
    source: ImageSource | DetectionSource, transform: Callable[[Tensor], Tensor], on_bad_image: OnBadImage
) -> tuple[dict[int, Job], list[str]]:
    """The jobs of the images of a source by their indices, and why files are left out under "skip"."""
    jobs: dict[int, Job] = {}
    skipped: list[str] = []
    for index in range(len(source)):
        try:
            digest = source.digest(index)
        except BadImage as error:
            if on_bad_image == "stop":
                raise
            skipped.append(str(error))
            continue
        jobs[index] = Job(digest, "", source.name(index), partial(_prepared, source, index, transform))
    return jobs, skipped


def pooled_features(
    frozen: FrozenFeatures,
    jobs: Mapping[int, Job],
    name: str = "features",
    *,
    on_bad_image: OnBadImage = "stop",
    progress: ShowsProgress | None = None,
) -> Pooled:
    """The features of jobs that give one vector each, as float32. RegardError where no image can be read."""
    unreadable = frozen.fill(list(jobs.values()), name, on_bad_image=on_bad_image, progress=progress)
    rows: list[Tensor] = []
    indices: list[int] = []
    for index, job in jobs.items():
        try:
            rows.append(frozen.load(job))
        except BadImage as error:
            if on_bad_image == "stop":
                raise
            unreadable += [] if str(error) in unreadable else [str(error)]
            continue
        indices.append(index)
    if not rows:
        raise RegardError(f"{name}: none of the images can be read")
    names = tuple(jobs[index].name for index in indices)
    return Pooled(torch.stack(rows).float(), torch.tensor(indices), names, tuple(unreadable))


def _prepared(source: ImageSource | DetectionSource, index: int, transform: Callable[[Tensor], Tensor]) -> Tensor:
    return transform(source.read(index))
