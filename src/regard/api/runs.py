"""What is done with a trained model: load and save it, predict, give it to others."""

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from regard.api.models import create_model, preprocessing_for
from regard.api.names import Named, device_named, find, unknown_source
from regard.errors import RegardError
from regard.files import expanded
from regard.models import PRESETS, ImageModel, build, config_values, configure

if TYPE_CHECKING:
    from regard.tasks import Predictor

# What only runs need is imported where it is used: `create_model` does not wait for data, metrics and Accelerate.

Device = str | torch.device | None


def load(
    run: str | Path,
    *,
    weights: str = "model",
    device: Device = None,
    engine: str | None = None,
    precision: str | None = None,
) -> "Predictor":
    """The trained model of a run folder, or of a folder that `save` made, ready for use.

    run: a folder, a file that `export_model` wrote (.onnx, or OpenVINO's .xml), `local-dir:FOLDER`,
    `hf-hub:OWNER/NAME` for a run that was pushed to the hub, or a name of the catalogue (with the preprocessing and
    the classes that its weights came with).
    A run of classification gives a `Classifier` (`predict(images)`), one of detection a `Detector`
    (`predict(images)`, which gives `Detections`), one of seq2seq a `Translator` (`predict(texts)`),
    one of next-token a `Writer` (`generate(prompt)`).
    weights: "best" takes those of the best evaluation. device: "cpu", "cuda", "cuda:0", "mps"; a GPU where there is one
    unless given.
    engine: what answers for a run of images, on the CPU: "torch", "optimize", "onnx", "openvino", or "auto", the
    fastest here. Its file is written once, verified, and kept below the run's folder, or in the user's cache folder.
    precision: of an engine, "fp32" or "bf16"; see `regard.api.engine_cache.with_engine`.
    Raises RegardError where the folder holds no run, or weights that are cut short or do not match the model, for an
    unknown name (with runs that are near), and for a device that is not there.
    """
    from regard.export import is_exported, load_exported
    from regard.training import load_predictor

    if engine is not None or precision is not None:
        return _with_engine(run, weights, device, engine or "torch", precision)
    if is_exported(run):
        if weights != "model" or str(device or "auto") not in ("auto", "cpu"):
            raise RegardError(f"{run}: an exported file has one set of weights, and runs on the CPU")
        return load_exported(expanded(run))
    chosen, named = device_named(device), find(run)
    if named.entry is not None:
        from regard.tasks import pretrained_predictor

        predictor: Predictor = pretrained_predictor(named.name, create_model(named.name, pretrained=True))
        predictor.model.to(chosen)
    else:
        predictor = load_predictor(_folder(named), weights=weights, device=chosen)
    predictor.source = str(run)
    return predictor


def _with_engine(run: str | Path, weights: str, device: Device, engine: str, precision: str | None) -> "Predictor":
    from regard.api.engine_cache import with_engine
    from regard.export import is_exported
    from regard.tasks import Classifier, Detector

    if is_exported(run):
        raise RegardError(f"{run}: is a file of one engine and precision; leave out --engine and --precision")
    if str(device or "auto") not in ("auto", "cpu"):
        raise RegardError(f"--engine {engine}: answers on the CPU; leave out --device")
    predictor = load(run, weights=weights, device="cpu")
    if not isinstance(predictor, Classifier | Detector):
        raise RegardError(f"{run}: reads texts; --engine and --precision are for runs that read images")
    return with_engine(predictor, run, engine, precision)


def save(model: "nn.Module | Predictor", folder: str | Path, *, class_names: Sequence[str] | None = None) -> Path:
    """Writes a model's configuration, preprocessing, class names and weights into a new folder, and returns it.

    model: what `load` gives, or an image model of `create_model`, whose preprocessing is that of `transform_for`.
    class_names: of such a model; those that its weights came with, or "0", "1", ... unless given. `load(folder)` and
    `create_model("local-dir:FOLDER")` read it. The folder is whole or not there. RegardError for one that exists, for
    names that are not as many as the classes, for a bare model of another task, and for a model that its configuration
    does not describe any more: a fused detector, or one whose decoder has other mixers.
    """
    from safetensors.torch import save_file

    from regard.files import write_json
    from regard.weights.checksum import CHECKSUM, checksum

    path = expanded(folder)
    if path.exists():
        raise RegardError(f"{path}: exists already; choose another folder")
    module, metadata = _metadata_of(model, class_names)
    _require_rebuilt(module, metadata)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.mkdir()
        write_json(beside / "metadata.json", metadata)
        save_file(tensors, beside / "model.safetensors", metadata={"format": "pt", CHECKSUM: checksum(tensors)})
        beside.rename(path)
    except OSError as error:
        raise RegardError(f"{path}: could not be saved: {error}") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return path


def _require_rebuilt(module: nn.Module, metadata: Mapping[str, Any]) -> None:
    """RegardError unless the configuration builds a model with these weights: else `load` could not read them."""
    from regard.weights import require_fit

    with torch.device("meta"):
        rebuilt = build(configure(metadata["model"]["name"], metadata["model"]["config"]))
    require_fit(module.state_dict(), rebuilt.state_dict(), "save: what the model's configuration describes")


def _metadata_of(model: "nn.Module | Predictor", class_names: Sequence[str] | None) -> tuple[nn.Module, dict[str, Any]]:
    """A module, and what a run's metadata.json would say of it."""
    from regard.tasks import PREDICTORS, Classifier
    from regard.training import versions

    if isinstance(model, ImageModel):
        model_kept_mode = model.training
        predictor: Any = Classifier(model, _class_names(model, class_names), preprocessing_for(model))
        model.train(model_kept_mode)
    elif class_names is not None:
        raise RegardError("save: class_names are for a bare image model; what `load` gives has its own")
    else:
        predictor = model
    task = next((name for name, kind in PREDICTORS.items() if type(predictor) is kind), None)
    if task is None:
        raise RegardError(
            f"save: a {type(model).__name__} knows no preprocessing and no tokenizer; save what `regard.load` gives"
        )
    config = predictor.model.config
    own = predictor.model_name or getattr(predictor.model, "pretrained_cfg", {}).get("architecture")
    metadata: dict[str, Any] = {
        "task": task,
        "model": {
            "name": own or next(name for name, preset in PRESETS.items() if type(preset) is type(config)),
            "config": config_values(config),
        },
    }
    for key in ("class_names", "category_ids", "preprocessing", "calibration", "tokenizer", "max_new_tokens"):
        if (value := getattr(predictor, key, None)) is not None:
            metadata[key] = value.to_dict() if hasattr(value, "to_dict") else value
    return predictor.model, {**metadata, "versions": versions()}


def _class_names(model: ImageModel, given: Sequence[str] | None) -> Sequence[str]:
    from regard.weights.catalogue import class_names

    cfg, number = model.pretrained_cfg, model.num_classes
    if given is not None:
        if len(given) != number:
            raise RegardError(f"save: {len(given)} class names for a model of {number} classes")
        return given
    names = cfg.get("label_names") or (class_names(cfg["dataset"]) if cfg.get("dataset") else ())
    return names if len(names) == number else [str(i) for i in range(number)]


def run_folder(run: str | Path) -> Path:
    """A run's folder; one on the hub is fetched."""
    return _folder(find(run))


def _folder(named: Named) -> Path:
    if named.folder is None or not named.folder.is_dir():
        raise unknown_source(named.name)
    return named.folder


def convert(
    source: str | Path,
    destination: str | Path,
    *,
    to: str,
    format: str | None = None,
    use_ema: bool = True,
) -> str:
    """Writes the weights of a run, a file, a name of the catalogue or of the hub in another format, and says how.

    to: one of `regard.weights.FORMATS`; the destination's suffix says which kind of file: .safetensors, .npz (google),
    or .pth, .pt and .bin, in which `detr` keeps them under "model". use_ema: of several state dicts in a file, the
    averaged one. RegardError where the format has no such model.
    """
    from regard.weights.convert import convert_weights

    return convert_weights(source, Path(destination), to=to, format=format, use_ema=use_ema)


def push_to_hub(run: str | Path, repo: str, *, private: bool = False, license: str | None = None) -> str:
    """Puts a run on the Hugging Face hub, with a model card made of its recipe and metrics; returns its address.

    license: of the trained weights, the hub's short name of one; that of the weights they started from unless given.
    """
    from regard.training.push_to_hub import push_run

    return push_run(Path(run), repo, private=private, license=license)
