"""What `import regard` offers: models, runs, and what is done with them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from regard.errors import RegardError, unknown
from regard.layers.replace import replace_convolutions as replace_convolutions
from regard.mixers.swap import swap_mixer as swap_mixer
from regard.models import PRESETS, ViTConfig, build, configure, create_backbone
from regard.weights.catalogue import CATALOGUE, chosen_pretrained, find_pretrained
from regard.weights.hub import PREFIX as HUB
from regard.weights.hub import fetch_folder
from regard.weights.load import load_weights as load_weights
from regard.weights.timm_backbone import load_backbone

if TYPE_CHECKING:
    from regard.explain import FavorError
    from regard.recipes import DataSection
    from regard.tasks import DetectionEvaluation, Detector, Evaluation, PairEvaluation, Predictor, TextEvaluation

# What only runs need is imported where it is used: `create_model` does not wait for data, metrics and Accelerate.


def create_model(
    name: str,
    *,
    num_classes: int | None = None,
    img_size: int | tuple[int, int] | None = None,
    in_chans: int | None = None,
    mixer: str | Sequence[str] | None = None,
    mixer_options: Mapping[str, Any] | None = None,
    pretrained: bool = False,
    **config: Any,
) -> nn.Module:
    """The model of a preset (`regard models` lists them), and some of its configuration replaced.

    Its weights are random; with `pretrained` they are those of the catalogue's entry of that name, fitted to another
    image size, number of channels or classes as `load_weights` says. An entry of a backbone gives a backbone.
    `mixer` is a name of MIXERS, or one a block; `mixer_options` are arguments of its constructor. `config` takes any
    other field of the preset's configuration: of a ViTConfig such as `embed_dim`, `depth`, `pool`, `drop_path`.
    Raises RegardError for an unknown name or key (with the nearest one) and for a value of a wrong type.
    """
    named = {
        "num_classes": num_classes,
        "img_size": img_size,
        "in_chans": in_chans,
        "mixer": mixer,
        "mixer_options": mixer_options,
    }
    given = {**{key: value for key, value in named.items() if value is not None}, **config}
    if pretrained:
        return _pretrained_model(name, given)
    return build(configure(name, given))


def _pretrained_model(name: str, given: Mapping[str, Any]) -> nn.Module:
    entry = find_pretrained(name)
    if entry is None:
        if name in PRESETS:
            raise RegardError(f"{name}: the catalogue has no weights of it; it has those of: {', '.join(CATALOGUE)}")
        raise unknown("pretrained model", name, CATALOGUE)
    if entry.is_backbone:
        backbone = create_backbone(entry.model, **given)
        load_backbone(backbone, name)
        return backbone
    model = build(configure(entry.model, {**entry.config, **given}))
    load_weights(model, name)
    return model


def load(run: str | Path, *, weights: str = "model", device: str | torch.device | None = None) -> "Predictor":
    """The trained model of a run folder, ready for use; `weights="best"` takes those of its best evaluation.

    In its place may stand a name of the catalogue (with the preprocessing and the classes that its weights came with),
    or `hf-hub:OWNER/NAME` for a run that was pushed to the hub.

    A run of classification gives a `Classifier` (`predict(images)`), one of detection a `Detector`
    (`predict(images)`, which gives `Detections`), one of seq2seq a `Translator` (`predict(texts)`),
    one of next-token a `Writer` (`generate(prompt)`).
    `device` is a GPU where there is one unless given. Raises RegardError where the folder holds no run, or weights
    that are cut short or of another model.
    """
    from regard.training import load_predictor

    chosen = _default_device() if device is None else device
    name = str(run)
    if _is_pretrained(run):
        from regard.tasks import pretrained_predictor

        predictor = pretrained_predictor(name, create_model(name, pretrained=True))
        predictor.model.to(chosen)
        return predictor
    return load_predictor(run_folder(run), weights=weights, device=chosen)


def run_folder(run: str | Path) -> Path:
    """A run's folder; one on the hub is fetched."""
    if str(run).startswith(HUB):
        return fetch_folder(str(run))
    return Path(run)


def convert(
    source: str | Path,
    destination: str | Path,
    *,
    to: str,
    format: str | None = None,
) -> str:
    """Writes the weights of a run, a file, a name of the catalogue or of the hub in another format, and says how.

    to: one of `regard.weights.FORMATS`; the destination's suffix says which kind of file: .safetensors, .npz (google),
    or .pth, .pt and .bin, in which `detr` keeps them under "model". RegardError where the format has no such model.
    """
    from regard.weights.convert import convert_weights

    return convert_weights(source, Path(destination), to=to, format=format)


def push_to_hub(run: str | Path, repo: str, *, private: bool = False) -> str:
    """Puts a run on the Hugging Face hub, with a model card made of its recipe and metrics; returns its address."""
    from regard.training.push_to_hub import push_run

    return push_run(Path(run), repo, private=private)


def evaluate(
    run: str | Path, data: str | None = None, *, weights: str = "model"
) -> "Evaluation | DetectionEvaluation | PairEvaluation | TextEvaluation":
    """Measures a run on its own held-out data, or on another data set.

    Of another set it takes the part that the set itself holds out, where it has one, and else all of it. Classes are
    matched by name: a class that the model does not know is a RegardError.
    """
    from regard.data import Joined, open_images, open_pairs, open_text
    from regard.tasks import Classifier, Detector, Translator

    predictor = load(run, weights=weights)
    options = _options(run, data)
    address = data or options.address
    if isinstance(predictor, Translator):
        pairs = open_pairs(address, val_fraction=options.val_fraction, split_seed=options.split_seed)
        chosen = pairs.val if address == options.address or pairs.has_val else pairs.whole
        return predictor.evaluate(chosen, bleu_tokenize=pairs.bleu_tokenize, num_workers=options.num_workers)
    if isinstance(predictor, Detector):
        return _evaluate_boxes(predictor, options, data, pretrained_name=_is_pretrained(run))
    if not isinstance(predictor, Classifier):
        text = open_text(address, val_fraction=options.val_fraction)
        return predictor.evaluate(text.val if address == options.address else text.train + text.val)
    images = open_images(
        address,
        channels=predictor.preprocessing.channels,
        val_fraction=options.val_fraction,
        split_seed=options.split_seed,
        on_bad_image=options.on_bad_image,
        root=None if options.root is None else Path(options.root),
    )
    own = not _is_pretrained(run) and address == options.address
    source = images.val if own or images.has_val else Joined([images.train, images.val])
    return predictor.evaluate(
        source, num_workers=options.num_workers, on_bad_image=options.on_bad_image, class_names=images.class_names
    )


def evaluate_knn(run: str | Path, data: str | None = None, *, k: int = 20, weights: str = "model") -> dict[str, float]:
    """How many held-out images have the class of their k nearest training images, by what the model's head reads.

    `run` may be a name of the catalogue, with weights that have no classes too; then `data` must be given. Returns
    `knn_accuracy`, and the numbers of images. RegardError for a model of another task.
    """
    from regard.data import open_images
    from regard.tasks import Classifier, features_of, nearest_neighbours, preprocessing_of

    name, options = str(run), _options(run, data)
    if _is_pretrained(run):
        if not isinstance(PRESETS.get(CATALOGUE[name].model if name in CATALOGUE else name), ViTConfig):
            raise RegardError(f"{name}: --knn is for models that classify images, or give their features")
        model = create_model(name, pretrained=True, img_size=224)
        preprocessing = preprocessing_of(name, img_size=(224, 224), channels=3)
    else:
        predictor = load(run, weights=weights)
        if not isinstance(predictor, Classifier):
            raise RegardError(f"{run}: --knn is for models that classify")
        model, preprocessing = predictor.model, predictor.preprocessing
    model.to(_default_device())
    images = open_images(
        data or options.address,
        channels=preprocessing.channels,
        val_fraction=options.val_fraction,
        split_seed=options.split_seed,
        on_bad_image=options.on_bad_image,
        root=None if options.root is None else Path(options.root),
    )
    known, labels, _ = features_of(model, images.train, preprocessing)
    asked, wanted, _ = features_of(model, images.val, preprocessing)
    found = nearest_neighbours(known, labels, asked, k=k)
    accuracy = (found == wanted).float().mean().item()
    return {"knn_accuracy": accuracy, "k": min(k, len(known)), "known_images": len(known), "images": len(asked)}


def _evaluate_boxes(
    detector: "Detector", options: "DataSection", data: str | None, *, pretrained_name: bool
) -> "DetectionEvaluation":
    """On the run's own part for evaluation; of another set, on what it holds out itself, or on all of it."""
    from regard.data import JoinedDetectionSource, open_detection
    from regard.recipes import DetectionDataSection
    from regard.tasks import annotations_of, splits_of

    own = options if isinstance(options, DetectionDataSection) and data in (None, options.address) else None
    if pretrained_name:
        own = None
    found = open_detection(
        options.address if data is None else data,
        channels=detector.preprocessing.channels,
        val_fraction=options.val_fraction,
        split_seed=options.split_seed,
        on_bad_image=options.on_bad_image,
        annotations=None if own is None else annotations_of(own),
    )
    if own is not None:
        _, source = splits_of(found, own)
    else:
        source = found.val if found.has_val else JoinedDetectionSource([found.train, found.val])
    return detector.evaluate(
        source, num_workers=options.num_workers, on_bad_image=options.on_bad_image, class_names=found.class_names
    )


def explain(
    run: str | Path,
    image: str | Path,
    path: str | Path,
    *,
    layer: int | None = None,
    tokens: Sequence[str] | None = None,
    kind: Literal["matrix", "influence", "window", "embeddings"] | None = None,
    weights: str = "model",
) -> None:
    """Draws what tokens take from each other in one layer of a run's model, or in all, for an image file, as PNG.

    `tokens` are "ROW,COLUMN" of patches, or "class". `kind` is "matrix" or "influence" of a ViT's mixers, "window" or
    "embeddings" of local attention; unless said, the matrix where there is one, the windows of a model without mixers.
    Raises RegardError for a layer, token or kind that the model does not have.
    """
    from regard.explain import model_figure, save_png
    from regard.training import load_classifier

    classifier = load_classifier(Path(run), weights=weights, device=_default_device())
    prepared = classifier.prepare(image)
    figure = model_figure(
        classifier.model,
        prepared.to(classifier.device),
        classifier.preprocessing.seen(prepared),
        layer=layer,
        tokens=tokens,
        kind=kind,
        title=Path(image).name,
    )
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    save_png(figure, Path(path))


def favor_error(
    run: str | Path, images: Sequence[str | Path], *, bound: float = 0.1, weights: str = "model"
) -> "list[FavorError]":
    """How far each layer of a run's performers is from softmax attention on image files; see `explain.favor_error`."""
    from regard.explain import favor_error as measure
    from regard.training import load_classifier

    classifier = load_classifier(Path(run), weights=weights, device=_default_device())
    prepared = torch.stack([classifier.prepare(image) for image in images]).to(classifier.device)
    return measure(classifier.model, prepared, bound=bound)


def _is_pretrained(run: str | Path) -> bool:
    """Whether it is a name of the catalogue, and not a folder that is called so."""
    return chosen_pretrained(run) is not None


def _options(run: str | Path, data: str | None) -> "DataSection":
    """How a run's data are opened; what is no run has none of its own."""
    from regard.recipes import DataSection
    from regard.training import Run

    if not _is_pretrained(run):
        return Run.open(run_folder(run)).recipe().data
    if data is None:
        raise RegardError(f"{run}: is no run and has no data of its own; name some with --data")
    return DataSection(address=data)


def _default_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"
