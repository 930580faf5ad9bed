"""Features of images: cached to train a head on them, and compared to find the nearest neighbours."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from regard.data import (
    Batch,
    ImageSource,
    OnBadImage,
    Preprocessing,
    TrainingOrder,
    evaluation_loader,
    evaluation_transform,
)
from regard.errors import NOT_FINITE, RegardError
from regard.models import SASAResNet, ViT


class CachedFeatures:
    """A ViT whose head alone learns (a linear probe): the head's input is computed once for each image."""

    def __init__(self, model: ViT) -> None:
        self.model = model

    def freeze(self) -> None:
        """Stops everything but the head from learning."""
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(name.startswith("head."))

    def head(self, features: Float[Tensor, "batch num_features"]) -> Float[Tensor, "batch num_classes"]:
        return self.model.head(features)

    def batches(
        self, source: ImageSource, preprocessing: Preprocessing, order: TrainingOrder, on_bad_image: OnBadImage
    ) -> Iterator[Batch]:
        """Endless batches in the order of training, with features instead of images. Unreadable images are left out."""
        features, labels, names = features_of(self.model, source, preprocessing, on_bad_image=on_bad_image)
        place = {name: number for number, name in enumerate(names)}
        for chosen in order:
            rows = [place[name] for name in (source.name(index) for _, index in chosen) if name in place]
            rows = rows or [0]  # where nothing of a batch can be read
            yield Batch(features[rows], labels[rows], [names[row] for row in rows], [])


@torch.no_grad()
def features_of(
    model: nn.Module, source: ImageSource, preprocessing: Preprocessing, *, on_bad_image: OnBadImage = "stop"
) -> tuple[Float[Tensor, "images num_features"], Int64[Tensor, " images"], list[str]]:
    """The input of the head of a ViT or a SASA-ResNet for each image of a source; their labels; their names."""
    if not isinstance(model, ViT | SASAResNet):
        raise RegardError(f"features: must come from a model that classifies, not from a {type(model).__name__}")
    was_training, device = model.training, next(model.parameters()).device
    model.eval()
    transform = evaluation_transform(preprocessing)
    loader = evaluation_loader(source, transform, batch_size=256, num_workers=0, on_bad_image=on_bad_image)
    found = [
        (pooled_features(model, batch.images.to(device)).cpu(), batch.labels, batch.names)
        for batch in loader
        if len(batch.images)
    ]
    model.train(was_training)
    if not found:
        raise RegardError("features: none of the images can be read")
    features, labels = torch.cat([one for one, _, _ in found]), torch.cat([one for _, one, _ in found])
    names = [name for _, _, names in found for name in names]
    spoilt = (~features.isfinite().all(1)).nonzero().flatten().tolist()
    if spoilt:
        raise RegardError(f"{names[spoilt[0]]}: {NOT_FINITE}")
    return features, labels, names


def pooled_features(model: ViT | SASAResNet, images: Tensor) -> Float[Tensor, "batch num_features"]:
    """The input of the head."""
    return model.intermediates(images, ["pre_logits"])["pre_logits"]


def nearest_neighbours(
    known: Float[Tensor, "known num_features"],
    labels: Int64[Tensor, " known"],
    asked: Float[Tensor, "asked num_features"],
    *,
    k: int = 20,
) -> Int64[Tensor, " asked"]:
    """The most frequent class among the k known images of highest cosine similarity; nearer images weigh more.

    Weights are exp(similarity / 0.07), as DINO is evaluated (Caron et al. 2021, appendix F.1).
    """
    from sklearn.neighbors import KNeighborsClassifier  # it takes over a second to import

    neighbours = KNeighborsClassifier(
        n_neighbors=min(k, len(known)), metric="cosine", weights=_weights, algorithm="brute"
    )
    neighbours.fit(known.numpy(), labels.numpy())
    return torch.from_numpy(neighbours.predict(asked.numpy()))


def _weights(distances: Any) -> Any:
    return np.exp((1 - distances) / 0.07)
