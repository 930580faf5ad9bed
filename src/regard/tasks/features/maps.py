"""What a backbone makes of images: a map for each of its strides, or the mean of the coarsest one."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict

from torch import Tensor

from regard.models import Backbone, TimmBackbone
from regard.tasks.features.extract import Dtype, FrozenFeatures, Precision, weights_hash
from regard.tasks.features.store import FeatureStore


def frozen_maps(
    backbone: Backbone,
    preprocessing: Mapping[str, object],
    *,
    dtype: Dtype = "fp16",
    precision: Precision = "auto",
    store: FeatureStore | None = None,
) -> FrozenFeatures:
    """The maps of `backbone.every_level`, (channels, rows, columns) each, the finest first: `levels` reads them."""
    return _frozen(backbone, "maps", backbone.every_level, preprocessing, dtype, precision, store)


def frozen_means(
    backbone: Backbone,
    preprocessing: Mapping[str, object],
    *,
    dtype: Dtype = "fp32",
    precision: Precision = "fp32",
    store: FeatureStore | None = None,
) -> FrozenFeatures:
    """The mean of the coarsest map over its pixels: a vector of `backbone.out_chans` numbers."""

    def mean(images: Tensor) -> Tensor:
        return backbone(images).mean((2, 3))

    return _frozen(backbone, "mean of the last map", mean, preprocessing, dtype, precision, store)


def _frozen(
    backbone: Backbone,
    what: str,
    compute: Callable[[Tensor], Tensor | Sequence[Tensor]],
    preprocessing: Mapping[str, object],
    dtype: Dtype,
    precision: Precision,
    store: FeatureStore | None,
) -> FrozenFeatures:
    about = (backbone.name, backbone.dilated, backbone.reductions, getattr(backbone, "blocks", ()))
    config = None if isinstance(backbone, TimmBackbone) else asdict(backbone.body.config)
    return FrozenFeatures(
        backbone,
        compute,
        weights=weights_hash(backbone, (about, config)),
        preprocessing={"features": what, **preprocessing},
        dtype=dtype,
        precision=precision,
        store=store,
    )
