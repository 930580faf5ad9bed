"""The features of a data set's images by a trained model, for other tools: in memory, or in a safetensors file."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regard.api.held_out import data_options
from regard.api.models import create_model
from regard.api.names import device_named, find
from regard.api.runs import Device, load
from regard.errors import RegardError, first_few
from regard.files import expanded, json_text, write_whole
from regard.models import PRESETS, DETRConfig, ViTConfig
from regard.weights.catalogue import CATALOGUE

if TYPE_CHECKING:
    from torch import Tensor

    from regard.data import Decoding, DetectionData, DetectionSource, ImageClasses, ImageSource
    from regard.tasks.features.extract import FrozenFeatures, Precision, ShowsProgress
    from regard.tasks.features.store import FeatureStore

PARTS = ("train", "val")
_ABLE = (ViTConfig, DETRConfig)
DEFAULT_SIZE = 224  # pixels of a catalogue model's images


@dataclass(frozen=True)
class Features:
    """A vector for each image that can be read, of both parts of a data set, and what is known of the images."""

    features: "Tensor"
    """(images, channels), float32."""
    part: "Tensor"
    """(images,): 0 for an image to train on, 1 for a held-out one."""
    names: tuple[str, ...]
    class_names: tuple[str, ...]
    model: str
    weights_hash: str
    preprocessing: Mapping[str, Any]
    labels: "Tensor | None" = None
    """(images,): the classes, where images have one; (images, classes), zeros and ones, where they have several."""
    boxes_xyxy: "Tensor | None" = None
    """(boxes, 4): in pixels of the images as they are stored, where they have boxes; without crowds."""
    box_labels: "Tensor | None" = None
    box_image: "Tensor | None" = None
    """(boxes,): whose box it is, the row of `features`."""
    skipped: tuple[str, ...] = ()
    """Why images were left out."""

    def save(self, file: str | Path) -> None:
        """Writes the tensors as safetensors; the header holds `names`, `class_names`, `parts`, `model`, `weights_hash`
        and `preprocessing`, each as JSON."""
        from safetensors.torch import save_file

        kept = ("features", "part", "labels", "boxes_xyxy", "box_labels", "box_image")
        tensors = {name: getattr(self, name).contiguous() for name in kept if getattr(self, name) is not None}
        header = {
            "names": self.names,
            "class_names": self.class_names,
            "parts": PARTS,
            "model": self.model,
            "weights_hash": self.weights_hash,
            "preprocessing": dict(self.preprocessing),
        }
        # Plain letters: a name that is not UTF-8 would be no text for safetensors.
        metadata = {name: json.dumps(json.loads(json_text(value))) for name, value in header.items()}
        path = expanded(file)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, lambda beside: save_file(tensors, beside, metadata=metadata))


def features(
    address: str,
    model: str | Path,
    *,
    img_size: int | None = None,
    settings: Sequence[str] = (),
    precision: "Precision" = "fp32",
    weights: str = "model",
    device: Device = None,
    folder: str | Path | None = None,
    max_gb: float = 10.0,
    progress: "ShowsProgress | None" = None,
) -> Features:
    """The features of all images of an address, with or without boxes; they are computed once and kept.

    model: a run of images, or a ViT, a backbone or a detector of the catalogue. A classifier gives what its head reads,
    everything else the mean of its backbone's last map. img_size: pixels of the square that a ViT or a backbone of the
    catalogue sees; 224 unless given. settings: how the data are opened ("data.val_fraction=0.1"). precision: fp32,
    bf16, or auto. folder, max_gb: of the store, as in a recipe's section [features]. RegardError for a model of text,
    data that cannot be read, and a store that may not grow enough.
    """
    from regard.data import SORTS, Joined, JoinedDetectionSource, address_of, open_detection, open_images, parse_address
    from regard.tasks import csv_options
    from regard.tasks.features.extract import open_store
    from regard.tasks.features.pooled import jobs_of, pooled_features

    address = address_of(address, unlabelled=True)
    kind = parse_address(address).kind
    if kind not in (*SORTS["images"], *SORTS["images with boxes"]):
        raise RegardError(f"{address}: features are of images; addresses of images: `regard data list`")
    if img_size is not None and img_size < 1:
        raise RegardError(f"img_size is {img_size}; it must be at least 1")
    store = open_store(folder, max_gb, progress)
    frozen, prepare, decoding = _frozen(model, img_size, precision, weights, device, store)
    options = data_options(model, address, None, settings)
    given: dict[str, Any] = {
        "channels": int(frozen.preprocessing["channels"]),  # type: ignore[call-overload] # one number
        "val_fraction": options.val_fraction,
        "split_seed": options.split_seed,
        "on_bad_image": options.on_bad_image,
        "decoding": decoding,
    }
    data: ImageClasses | DetectionData
    source: ImageSource | DetectionSource
    if kind in SORTS["images"]:
        given["csv"] = csv_options(options) if kind == "csv" else None
        given["on_bad_annotation"] = getattr(options, "on_bad_annotation", "stop")
        given["unlabelled"] = True
        images = open_images(address, root=None if options.root is None else Path(options.root), **given)
        data, source = images, Joined([images.train, images.val])
    else:
        boxes = open_detection(address, on_bad_annotation=getattr(options, "on_bad_annotation", "stop"), **given)
        data, source = boxes, JoinedDetectionSource([boxes.train, boxes.val])
    jobs, unreadable = jobs_of(source, prepare, options.on_bad_image)
    found = pooled_features(frozen, jobs, on_bad_image=options.on_bad_image, progress=progress)
    skipped = dict.fromkeys((*data.train.skipped, *data.val.skipped, *unreadable, *found.skipped))
    return Features(
        found.features,
        part=(found.indices >= len(data.train)).long(),
        names=found.names,
        class_names=data.class_names,
        model=str(model),
        weights_hash=frozen.weights,
        preprocessing=frozen.preprocessing,
        skipped=tuple(skipped),
        **_annotations(source, found.indices.tolist()),
    )


def _annotations(source: "ImageSource | DetectionSource", indices: Sequence[int]) -> "dict[str, Tensor]":
    """The labels of some images, or their boxes without crowds."""
    import torch

    from regard.data import ImageSource, label_tensor

    if isinstance(source, ImageSource):
        if source.num_classes == 0:  # without labels
            return {}
        return {"labels": label_tensor([source.labels[index] for index in indices], source.num_classes)}
    of_images = [source.objects[index] for index in indices]
    own = [~objects.crowd for objects in of_images]
    return {
        "boxes_xyxy": torch.cat([objects.boxes_xyxy[kept] for objects, kept in zip(of_images, own, strict=True)]),
        "box_labels": torch.cat([objects.labels[kept] for objects, kept in zip(of_images, own, strict=True)]),
        "box_image": torch.cat([torch.full((int(kept.sum()),), row) for row, kept in enumerate(own)]),
    }


def _frozen(
    model: str | Path, img_size: int | None, precision: "Precision", weights: str, device: Device, store: "FeatureStore"
) -> "tuple[FrozenFeatures, Callable[[Tensor], Tensor], Decoding]":
    """The features of a name, how an image is prepared for them, and how a file becomes 8 bits."""
    from regard.data import evaluation_transform
    from regard.tasks import Classifier, Detector, preprocessing_of
    from regard.tasks.features.maps import frozen_means
    from regard.tasks.features.pooled import frozen_head_input

    chosen, named = device_named(device), find(model)
    entry = named.entry
    if entry is not None and (entry.is_backbone or isinstance(PRESETS.get(entry.model), ViTConfig)):
        size = img_size or DEFAULT_SIZE
        shape = preprocessing_of(named.name, img_size=(size, size), channels=3)
        options: dict[str, Any] = {} if entry.is_backbone else {"img_size": size}
        found: Any = create_model(named.name, pretrained=True, **options).to(chosen)
        make: Any = partial(frozen_means, found, shape.to_dict()) if entry.is_backbone else None
        make = make or partial(frozen_head_input, found, shape)
        return make(precision=precision, store=store), evaluation_transform(shape), shape.decoding
    if entry is not None and not isinstance(PRESETS.get(entry.model), DETRConfig):
        raise _no_features(named.name)
    if img_size is not None:
        raise RegardError(f"img_size: {model} sees images of the size that it was trained with")
    predictor = load(model, weights=weights, device=chosen)
    if isinstance(predictor, Classifier):
        pre = predictor.preprocessing
        made = frozen_head_input(predictor.model, pre, precision=precision, store=store)
        return made, evaluation_transform(pre), pre.decoding
    if isinstance(predictor, Detector):
        backbone: Any = predictor.model.backbone
        made = frozen_means(backbone, predictor.preprocessing.to_dict(), precision=precision, store=store)
        return made, predictor.prepare, predictor.preprocessing.decoding
    raise _no_features(str(model))


def _no_features(name: str) -> RegardError:
    able = [key for key, entry in CATALOGUE.items() if entry.is_backbone or isinstance(PRESETS.get(entry.model), _ABLE)]
    return RegardError(
        f"{name}: has no features of images to keep; a run of classification or detection has, and so have the ViTs, "
        f"backbones and detectors of the catalogue: {first_few(able, 30)}"
    )
