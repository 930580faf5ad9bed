"""`explain_image` and what belongs to it: a run or a name, an image of any kind, and a picture of what it rests on."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from regard.api.models import create_model
from regard.api.names import device_named, find
from regard.api.runs import Device, load
from regard.errors import RegardError
from regard.models import PRESETS, ViTConfig

if TYPE_CHECKING:
    from torch import Tensor

    from regard.data import Preprocessing
    from regard.draw.figure import Figure
    from regard.explain import Explanation, FavorError, Picture, QueryBoxes
    from regard.tasks import Classifier, Detector, Predictor, Translator, Writer

DEFAULT_SIZE = 224  # pixels of the square that a model of features without a run of its own sees


def explain_image(
    run: "str | Path | Classifier | Detector",
    image: Any,
    path: str | Path | None = None,
    *,
    method: str | None = None,
    layer: int | str | None = None,
    head: int | None = None,
    tokens: Sequence[str] | None = None,
    target: int | str | None = None,
    box: int = 0,
    size: int | str | tuple[int, int] | None = None,
    faithfulness: bool = True,
    kind: str | None = None,
    weights: str = "model",
    device: Device = None,
) -> "Explanation | Picture":
    """What a model's answer for an image rests on, as a map with its faithfulness; `path` gets a PNG.

    run: a run, a name of the catalogue or of the hub, or what `load` gives for images. image: a path, a Pillow image,
    an array or a tensor, as it takes.
    method: one of `regard.explain.METHODS`; unless given what the head takes in the last layer, or a mixer's influence.
    layer: a block (-1 is the last), or a detector's "cross.3". head: one of its heads. tokens: "ROW,COLUMN" of patches,
    or "class", whose rows are wanted; several give a sheet of all layers, a `Picture` without a map.
    target: a class by number or name; the likeliest unless given. box: of a detector, 0 is the most certain.
    size: of models that take any: pixels of a square, "HEIGHTxWIDTH", or "image" for the whole image without a crop,
    its shorter side as the model's own. Faithfulness is measured at the model's own size, and can be left out.
    kind: what `method` was called before. RegardError for what is not there, and for what does not serve the model.
    """
    from regard.explain import Picture, explain, method_named
    from regard.explain.methods import BEFORE

    method = method_named(method or BEFORE.get(str(kind), kind))
    predictor = image_predictor(run, weights, device)
    title = Path(image).name if isinstance(image, str | Path) else ""
    if not _is_classifier(predictor):
        found: Any = _of_box(predictor, image, method, layer, head, tokens, target, box, size, title)
    else:
        classifier: Any = predictor
        own = classifier.preprocessing
        stored = _pixels(classifier, image)
        pre = sized(own, size, stored, classifier.model)
        prepared = _transformed(pre, stored).to(classifier.device)
        seen = pre.seen(prepared.cpu())
        if (
            method in ("window", "embeddings")
            or (tokens and len(tokens) > 1)
            or _has_windows_alone(classifier.model, method)
        ):
            _require_plain(method, head=head, target=target)
            found = Picture(_sheet(classifier.model, prepared, seen, method, layer, tokens, title))
        else:
            found = explain(
                classifier.model,
                prepared,
                method=method,
                target=target,
                layer=layer,
                head=head,
                token=tokens[0] if tokens else None,
                seen=seen,
                class_names=classifier.class_names,
                multi_label=classifier.multi_label,
                judge=faithfulness,
                judged=_transformed(own, stored).to(classifier.device) if faithfulness else None,
                title=title,
                stored_size=(stored.shape[1], stored.shape[2]),
            )
    if path is not None:
        found.save(path)
    return found


def sized(
    pre: "Preprocessing", size: int | str | tuple[int, int] | None, stored: "Tensor", model: Any
) -> "Preprocessing":
    """The preprocessing for images of another size. RegardError for a size that says nothing."""
    if size is None:
        return pre
    text = "x".join(map(str, size)) if isinstance(size, tuple) else str(size).strip().lower().replace("×", "x")
    patch = int(getattr(getattr(model, "patch_embed", None), "patch_size", 1))
    if text == "image":
        scale = min(pre.img_size) / min(stored.shape[1:])
        tall, wide = (max(round(side * scale / patch), 1) * patch for side in stored.shape[1:])
        return replace(pre, img_size=(tall, wide), crop_fraction=1.0, resize="squash")
    found = re.fullmatch(r"(\d+)(?:x(\d+))?", text)
    if found is None or "0" in (found[1].lstrip("0") or "0", (found[2] or "1").lstrip("0") or "0"):
        raise RegardError(f"size is {size!r}; it must be pixels of a square (224), HEIGHTxWIDTH (280x392), or image")
    height, width = int(found[1]), int(found[2] or found[1])
    if height % patch or width % patch:
        near = "x".join(str(max(round(side / patch), 1) * patch) for side in (height, width))
        raise RegardError(f"size {text}: is not whole patches of {patch} pixels; the nearest is {near}")
    return replace(pre, img_size=(height, width))


def _pixels(classifier: Any, image: Any) -> "Tensor":
    from regard.tasks.image_predictor import pixels_of

    return pixels_of(image, classifier.preprocessing.channels, "image", classifier.preprocessing.decoding)


def _transformed(pre: "Preprocessing", pixels: "Tensor") -> "Tensor":
    from regard.data import evaluation_transform

    return evaluation_transform(pre)(pixels)


def _has_windows_alone(model: Any, method: str | None) -> bool:
    """Whether the usual picture of a model is that of its windows: a network of stages with local attention."""
    from regard.layers import LocalAttention2d

    return method is None and any(isinstance(module, LocalAttention2d) for module in model.modules())


def _sheet(
    model: Any, prepared: "Tensor", seen: "Tensor", method: str | None, layer: Any, tokens: Any, title: str
) -> "Figure":
    from regard.explain import model_figure

    if isinstance(layer, str):
        layer = int(layer) if layer.lstrip("-").isdigit() else layer
    if layer is not None and not isinstance(layer, int):
        raise RegardError(f"layer {layer!r}: this picture takes the number of a layer")
    kind: Any = {"rows": "matrix"}.get(str(method), method)
    return model_figure(model, prepared, seen, layer=layer, tokens=tokens, kind=kind, title=title)


def _require_plain(method: str | None, **given: object) -> None:
    for name, value in given.items():
        if value is not None:
            raise RegardError(f"explain: {method or 'a sheet of several tokens'} takes no {name}")


def _of_box(
    detector: Any,
    image: Any,
    method: str | None,
    layer: Any,
    head: int | None,
    tokens: Any,
    target: Any,
    box: int,
    size: Any,
    title: str,
) -> Any:
    from regard.explain.object_queries import OF_BOXES, explain_box
    from regard.tasks.image_predictor import pixels_of

    if method == "queries":
        raise RegardError("queries: is of a data set, not of one box; `regard.explain_queries` takes its images")
    if method not in (None, *OF_BOXES):
        raise RegardError(f"{method}: is of classifiers; a detector's box has {', '.join(OF_BOXES)}")
    for name, value in (("tokens", tokens), ("target", target)):
        if value:
            raise RegardError(f"explain: a detector takes no {name}; name a box (0 is the most certain)")
    stored = pixels_of(image, detector.preprocessing.channels, "image", detector.preprocessing.decoding)
    own = sized_detector(detector, size)
    prepared = own.prepare(stored)
    return explain_box(
        detector.model,
        prepared.to(detector.device),
        own.preprocessing.seen(prepared),
        class_names=detector.class_names,
        box=box,
        method=method,
        layer=layer,
        head=head,
        title=title,
        stored_size=(stored.shape[1], stored.shape[2]),
    )


def explain_queries(
    run: "str | Path | Detector",
    images: Sequence[Any],
    path: str | Path | None = None,
    *,
    size: int | str | None = None,
    weights: str = "model",
    device: Device = None,
) -> "QueryBoxes":
    """Where each query of a detector puts its boxes in many images (Carion et al. 2020, figure 7); `path` gets a PNG.

    images: each as `explain_image` takes it. size: pixels of the shorter side. RegardError for a run of another task,
    for a two-stage detector, whose queries are no learned slots, and for what cannot be read.
    """
    from regard.explain import query_boxes, save_png

    detector: Any = image_predictor(run, weights, device)
    if _is_classifier(detector):
        raise RegardError(f"{detector.source or run}: is of classification; queries are of detectors")
    own = sized_detector(detector, size)
    found = query_boxes(own.model, (own.prepare(image).to(own.device) for image in images))
    if path is not None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        save_png(found.figure, Path(path))
    return found


def sized_detector(detector: Any, size: Any) -> Any:
    """The detector for images whose shorter side has `size` pixels. RegardError for a size that is no number."""
    if size is None:
        return detector
    if not str(size).isdigit() or not int(size):
        raise RegardError(f"size is {size!r}; of a detector it is pixels of the shorter side")
    pre = detector.preprocessing
    pre = replace(pre, shortest=int(size), longest=max(pre.longest * int(size) // pre.shortest, int(size)))
    return type(detector)(detector.model, detector.class_names, detector.category_ids, pre, detector.calibration)


def explain_text(
    run: "str | Path | Translator | Writer",
    text: str,
    path: str | Path | None = None,
    *,
    layer: int | str | None = None,
    weights: str = "model",
    device: Device = None,
) -> "Picture":
    """What each token that a model of texts writes takes from those that it reads; `path` gets a PNG.

    A run of seq2seq shows the cross-attention of its translation, one of next-token what each token takes from those
    before it. layer: one of them. RegardError for a run of images, and for an empty text.
    """
    from regard.explain import Picture, alignment_figure, rows
    from regard.tasks import Translator, Writer

    predictor = load(run, weights=weights, device=device) if isinstance(run, str | Path) else run
    if not text:
        raise RegardError("explain: the text is empty")
    if isinstance(predictor, Translator):
        answer, found = predictor.alignment(text)
        weights_of = found.weights
        if layer is not None:
            weights_of = weights_of[_place(layer, len(weights_of))]
        figure = alignment_figure(found.source, found.target, weights_of, title=f"{answer.source} → {answer.text}")
    elif isinstance(predictor, Writer):
        tokens = predictor.tokenizer.encode(text)
        if len(tokens) > predictor.context:
            raise RegardError(f"text: {len(tokens)} tokens are too many; the context holds {predictor.context}")
        pieces = [predictor.tokenizer.decode([token]) for token in tokens]
        given = torch.tensor([tokens], device=predictor.device)
        chosen = rows(predictor.model, given, queries="all", layers=layer)
        stacked = chosen.weights[:, 0].cpu()
        figure = alignment_figure(
            pieces, pieces, stacked, title=text, caption="mean over heads: what each token takes from those before it"
        )
    else:
        raise RegardError(f"{run}: reads images; text is for runs that read text")
    picture = Picture(figure)
    if path is not None:
        picture.save(path)
    return picture


def _place(layer: int | str, count: int) -> slice:
    text = str(layer).removeprefix("cross.")
    if not text.lstrip("-").isdigit() or not -count <= int(text) < count:
        raise RegardError(f"layer {layer} is not there: the model has cross 0 to {count - 1} (-1 is the last)")
    place = int(text) % count
    return slice(place, place + 1)


def measure_favor_error(
    run: str | Path, images: Sequence[str | Path], *, bound: float = 0.1, weights: str = "model", device: Device = None
) -> "list[FavorError]":
    """How far each layer of a run's performers is from softmax attention on image files; see `explain.favor_error`."""
    from regard.explain import favor_error

    classifier: Any = image_predictor(run, weights, device)
    if not _is_classifier(classifier):
        raise RegardError(f"{run}: is a run of detection, not of classification")
    prepared = torch.stack([classifier.prepare(image) for image in images]).to(classifier.device)
    return favor_error(classifier.model, prepared, bound=bound)


def _is_classifier(predictor: object) -> bool:
    from regard.tasks import Classifier

    return isinstance(predictor, Classifier)


def image_predictor(run: Any, weights: str = "model", device: Device = None) -> "Predictor":
    """What explains images: a classifier or a detector; of a ViT of the catalogue that has no head a classifier without
    classes, for images of `DEFAULT_SIZE`. RegardError for a run of text."""
    from regard.export import EngineModel
    from regard.tasks import PREDICTORS, Classifier, Detector, preprocessing_of
    from regard.tasks.predictor import Predictor

    if isinstance(run, Predictor):
        predictor: Predictor = run if device is None else run.to(device_named(device))
    elif (name := _of_features(run)) is not None:
        shape = preprocessing_of(name, img_size=(DEFAULT_SIZE, DEFAULT_SIZE), channels=3)
        predictor = Classifier(create_model(name, pretrained=True).to(device_named(device)), (), shape)
    else:
        predictor = load(run, weights=weights, device=device)
    if not isinstance(predictor, Classifier | Detector):
        task = next(task for task, kind in PREDICTORS.items() if isinstance(predictor, kind))
        told = predictor.source or type(predictor).__name__
        raise RegardError(f"{told}: is a run of {task}, not of classification or detection; it is explained by a text")
    if isinstance(predictor.model, EngineModel):
        raise RegardError(f"{predictor.source}: is an exported file, which holds no layers to look into; take the run")
    return predictor


def _of_features(run: Any) -> str | None:
    """The catalogue's name of a ViT without a head."""
    named = find(run)
    is_vit = named.entry is not None and isinstance(PRESETS.get(named.entry.model), ViTConfig)
    return named.name if named.entry is not None and is_vit and named.entry.classes is None else None
