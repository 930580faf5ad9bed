"""How good a trained model is: on what it held out in its training, on other data, or by its features."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regard.api.held_out import data_options, held_out_boxes, held_out_images, held_out_pairs, held_out_text, own_run
from regard.api.models import create_model
from regard.api.names import device_named, find
from regard.api.runs import Device, load
from regard.errors import RegardError
from regard.models import PRESETS, ViTConfig

if TYPE_CHECKING:
    from regard.data import Decoding, DetectionData, DetectionSource, ImageClasses, ImageSource
    from regard.recipes import DataSection
    from regard.tasks import (
        NMS,
        Classifier,
        DetectionEvaluation,
        Detector,
        Evaluation,
        PairEvaluation,
        Predictor,
        TextEvaluation,
    )
    from regard.training import Run


def evaluate(
    run: str | Path,
    data: str | None = None,
    *,
    recipe: str | Path | None = None,
    settings: Sequence[str] = (),
    weights: str = "model",
    device: Device = None,
    max_detections: int | None = None,
    nms: "NMS | None" = None,
    engine: str | None = None,
    precision: str | None = None,
) -> "Evaluation | DetectionEvaluation | PairEvaluation | TextEvaluation":
    """Measures a run on what it held out in its training, or on another data set.

    Of its own data, samples that are gone, or new and not measured, are said on stderr. Of another set it takes the
    part that the set itself holds out, where it has one, and else all of it. Classes are matched by name: a class that
    the model does not know is a RegardError.
    settings: how the data are opened, as `--set` of a training says it (["data.val_annotations=FILE"]), over what the
    run's recipe says, or another `recipe`.
    max_detections, nms: of a detector, how many objects of an image count, and which boxes are suppressed, "auto"
    unless given; see `Detector.evaluate`. engine, precision: what answers; see `load`.
    RegardError also where the model's numbers are not finite.
    """
    from regard.tasks import Detector
    from regard.tasks.predictor import with_figures

    predictor = load(run, weights=weights, device=device, engine=engine, precision=precision)
    of_boxes = {"max_detections": max_detections, "nms": "auto" if nms is None else nms}
    for name, value in (("max_detections", max_detections), ("nms", nms)):
        if value is not None and not isinstance(predictor, Detector):
            raise RegardError(f"{run}: {name} is for runs of detection")
    return with_figures(_evaluated(predictor, run, data, recipe, settings, of_boxes), run)


def evaluated(predictor: "Classifier | Detector", run: str | Path, data: str | None = None) -> Any:
    """What `evaluate(run, data)` measures, of another predictor than the run's own."""
    return _evaluated(predictor, run, data, None, (), {"max_detections": None, "nms": "auto"})


def _evaluated(
    predictor: "Predictor",
    run: str | Path,
    data: str | None,
    recipe: str | Path | None,
    settings: Sequence[str],
    of_boxes: Mapping[str, Any],
) -> "Evaluation | DetectionEvaluation | PairEvaluation | TextEvaluation":
    from regard.data import address_of, open_pairs, open_text
    from regard.tasks import Classifier, Detector, Translator

    data = None if data is None else address_of(data)
    options = data_options(run, data, recipe, settings)
    address = data or options.address
    own = own_run(run, address, recipe, settings)
    fraction = options.val_fraction if address == options.address else None
    if isinstance(predictor, Translator):
        pairs = open_pairs(address, val_fraction=fraction, split_seed=options.split_seed)
        chosen = pairs.val if address == options.address or pairs.has_val else pairs.whole
        chosen = chosen if own is None else held_out_pairs(own, pairs)
        return predictor.evaluate(chosen, bleu_tokenize=pairs.bleu_tokenize, num_workers=options.num_workers)
    if isinstance(predictor, Detector):
        given = (recipe, settings)
        pretrained_name = _is_pretrained(run)
        return _evaluate_boxes(predictor, options, data, own, given, of_boxes, pretrained_name=pretrained_name)
    if not isinstance(predictor, Classifier):
        text = open_text(address, val_fraction=fraction)
        chosen_text = text.val if address == options.address else text.train + text.val
        return predictor.evaluate(chosen_text if own is None else held_out_text(own, text))
    predictor.require_classes()
    images, source = _images_of(predictor, run, options, address, own)
    return predictor.evaluate(
        source, num_workers=options.num_workers, on_bad_image=options.on_bad_image, class_names=images.class_names
    )


def _images_of(
    predictor: "Classifier", run: str | Path, options: "DataSection", address: str, own: "Run | None"
) -> "tuple[ImageClasses, ImageSource]":
    """The data, and the part of them that is measured."""
    from regard.data import open_images, sentences
    from regard.tasks import csv_options

    images = open_images(
        address,
        channels=predictor.preprocessing.channels,
        val_fraction=options.val_fraction,
        split_seed=options.split_seed,
        on_bad_image=options.on_bad_image,
        root=None if options.root is None else Path(options.root),
        decoding=_decoding(predictor, options),
        for_evaluation=_is_pretrained(run) or address != options.address,
        leave_out=getattr(options, "leave_out", None) if address == options.address else None,
        on_bad_annotation=getattr(options, "on_bad_annotation", "stop"),
        csv=csv_options(options) if address.startswith("csv:") else None,
    )
    for sentence in sentences(images.repairs.left_out):
        warnings.warn(f"{images.address}: {sentence}", stacklevel=4)
    return images, images.val if own is None else held_out_images(own, images)


def evaluate_knn(
    run: str | Path, data: str | None = None, *, k: int = 20, weights: str = "model", device: Device = None
) -> dict[str, float]:
    """How many held-out images have the class of their k nearest training images, by what the model's head reads.

    `run` may be a name of the catalogue, with weights that have no classes too; then `data` must be given. Returns
    `knn_accuracy`, and the numbers of images. RegardError for a model of another task.
    """
    from regard.data import address_of, open_images
    from regard.tasks import Classifier, csv_options, features_of, nearest_neighbours, preprocessing_of
    from regard.tasks.features.store import FeatureStore

    data = None if data is None else address_of(data)
    chosen, named, options = device_named(device), find(run), data_options(run, data)
    if named.entry is not None:
        name = named.name
        if not isinstance(PRESETS.get(named.entry.model), ViTConfig):
            raise RegardError(f"{name}: --knn is for models that classify images, or give their features")
        model = create_model(name, pretrained=True, img_size=224)
        preprocessing = preprocessing_of(name, img_size=(224, 224), channels=3)
    else:
        predictor = load(run, weights=weights, device=chosen)
        if not isinstance(predictor, Classifier):
            raise RegardError(f"{run}: --knn is for models that classify")
        model, preprocessing = predictor.model, predictor.preprocessing
    model.to(chosen)
    images = open_images(
        data or options.address,
        channels=preprocessing.channels,
        val_fraction=options.val_fraction,
        split_seed=options.split_seed,
        on_bad_image=options.on_bad_image,
        root=None if options.root is None else Path(options.root),
        decoding=preprocessing.decoding,
        leave_out=getattr(options, "leave_out", None) if data in (None, options.address) else None,
        on_bad_annotation=getattr(options, "on_bad_annotation", "stop"),
        csv=csv_options(options) if (data or options.address).startswith("csv:") else None,
    )
    if images.multi_label:
        raise RegardError(f"{images.address}: --knn is for images that have one class each; these have several labels")
    store = FeatureStore()
    known, labels, _ = features_of(model, images.train, preprocessing, on_bad_image=options.on_bad_image, store=store)
    asked, wanted, _ = features_of(model, images.val, preprocessing, on_bad_image=options.on_bad_image, store=store)
    found = nearest_neighbours(known, labels, asked, k=k)
    accuracy = (found == wanted).float().mean().item()
    return {"knn_accuracy": accuracy, "k": min(k, len(known)), "known_images": len(known), "images": len(asked)}


def _evaluate_boxes(
    detector: "Detector",
    options: "DataSection",
    data: str | None,
    run: "Run | None",
    given: tuple[str | Path | None, Sequence[str]],
    of_boxes: Mapping[str, Any],
    *,
    pretrained_name: bool,
) -> "DetectionEvaluation":
    """On the run's own part for evaluation; of another set, on what it holds out itself, or on all of it.

    given: recipe and settings of this evaluation. of_boxes: what only `Detector.evaluate` takes. What was mended in the
    annotations or left out is a warning.
    """
    found, source = _boxes_of(detector, options, data, run, given, pretrained_name=pretrained_name)
    return detector.evaluate(
        source,
        num_workers=options.num_workers,
        on_bad_image=options.on_bad_image,
        class_names=found.class_names,
        category_ids=found.category_ids,
        **of_boxes,
    )


def _boxes_of(
    detector: "Detector",
    options: "DataSection",
    data: str | None,
    run: "Run | None",
    given: tuple[str | Path | None, Sequence[str]],
    *,
    pretrained_name: bool,
) -> "tuple[DetectionData, DetectionSource]":
    """The data, and the part of them that is measured."""
    from regard.api.training import data_section
    from regard.data import open_detection, sentences
    from regard.recipes import DetectionDataSection
    from regard.tasks import annotations_of, splits_of

    is_own = not pretrained_name and data in (None, options.address)
    own = options if is_own and isinstance(options, DetectionDataSection) else None
    # COCO's files that the run's recipe names are of its own data.
    stated = own or data_section(data or options.address, *given)
    found = open_detection(
        options.address if data is None else data,
        channels=detector.preprocessing.channels,
        val_fraction=None if own is None else options.val_fraction,
        split_seed=options.split_seed,
        on_bad_image=options.on_bad_image,
        on_bad_annotation=getattr(options, "on_bad_annotation", "stop"),
        annotations=annotations_of(stated) if isinstance(stated, DetectionDataSection) else None,
        decoding=_decoding(detector, options),
        leave_out=None if own is None else own.leave_out,
    )
    repairs = found.repairs
    for sentence in sentences({**repairs.healed, **repairs.left_out, **repairs.unused}):
        warnings.warn(f"{found.address}: {sentence}", stacklevel=5)
    if own is not None and run is not None:
        source = held_out_boxes(run, found, own)
    elif own is not None:
        _, source = splits_of(found, own)
    else:
        source = found.val if found.has_val else found.train
    return found, source


def training_images(
    predictor: "Classifier | Detector", run: str | Path, data: str | None = None
) -> "tuple[ImageSource | DetectionSource, list[int]]":
    """The images that a run was trained on, and which of them `evaluated` does not measure it on.

    Of a run that held out none: all of them.
    """
    from regard.data import address_of
    from regard.tasks import Classifier

    data = None if data is None else address_of(data)
    options = data_options(run, data)
    address = data or options.address
    own = own_run(run, address, None, ())
    found: Any
    held_out: Any
    if isinstance(predictor, Classifier):
        found, held_out = _images_of(predictor, run, options, address, own)
    else:
        named = _is_pretrained(run)
        found, held_out = _boxes_of(predictor, options, data, own, (None, ()), pretrained_name=named)
    train = found.train
    if getattr(options, "validate_on", "val") == "train":
        return train, list(range(len(train)))
    measured = {held_out.name(index) for index in range(len(held_out))}
    return train, [index for index in range(len(train)) if train.name(index) not in measured]


def _decoding(predictor: "Classifier | Detector", options: "DataSection") -> "Decoding":
    """As in training, with the limit of pixels of this evaluation where it has one."""
    decoding = predictor.preprocessing.decoding
    if "max_megapixels" not in options.model_fields_set:
        return decoding
    return replace(decoding, max_megapixels=getattr(options, "max_megapixels", decoding.max_megapixels))


def _is_pretrained(run: str | Path) -> bool:
    """Whether it is a name of the catalogue, and not a folder that is called so."""
    return find(run).entry is not None
