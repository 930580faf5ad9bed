"""Features of images, compared to find the nearest neighbours."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from regard.data import ImageSource, OnBadImage, Preprocessing, evaluation_transform
from regard.tasks.features.extract import ShowsProgress
from regard.tasks.features.pooled import frozen_head_input, jobs_of, pooled_features
from regard.tasks.features.store import FeatureStore


def features_of(
    model: nn.Module,
    source: ImageSource,
    preprocessing: Preprocessing,
    *,
    on_bad_image: OnBadImage = "stop",
    store: FeatureStore | None = None,
    progress: ShowsProgress | None = None,
) -> tuple[Float[Tensor, "images num_features"], Int64[Tensor, " images"], list[str]]:
    """The input of the head of a ViT or a SASA-ResNet for each image of a source; their labels; their names.

    store: where features are found and kept; without one all are computed. Images that cannot be read are left out
    under "skip". RegardError for another model, where no image can be read, and for numbers that are not finite.
    """
    frozen = frozen_head_input(model, preprocessing, store=store)
    jobs, _ = jobs_of(source, evaluation_transform(preprocessing), on_bad_image)
    found = pooled_features(frozen, jobs, on_bad_image=on_bad_image, progress=progress)
    labels = torch.tensor(source.labels, dtype=torch.int64)[found.indices]
    return found.features, labels, list(found.names)


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
