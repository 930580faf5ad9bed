"""Models by name, as timm makes them: random or pretrained, with some of their configuration replaced."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from regard.api.names import find, require_known
from regard.api.timm_folder import pretrained_cfg_of, vit_arguments
from regard.errors import RegardError, shown, unknown
from regard.models import (
    PRESETS,
    ImageModel,
    ModelConfig,
    ViTConfig,
    build,
    configure,
    create_backbone,
)
from regard.models.image_model import CROP_MODES, cfg_of_metadata
from regard.reading import read_json
from regard.weights.backbone import load_pretrained_backbone
from regard.weights.catalogue import CATALOGUE, Pretrained, find_pretrained
from regard.weights.described import class_names_of, config_of, placed, preprocessing_table, require_described
from regard.weights.hub import ADDRESS, HubFile
from regard.weights.hub import PREFIX as HUB
from regard.weights.load import LOCAL, find_weights, load_found, load_weights
from regard.weights.wrapped import choose

# timm's names of what our configurations have under another.
TIMMS = {
    "drop_path_rate": "drop_path",
    "global_pool": "pool",
    "init_values": "layer_scale",
    "reg_tokens": "num_registers",
    "drop_rate": "dropout",
}
# timm's arguments that have no place here, and what to type in their stead.
INSTEAD = {
    "features_only": "model.forward_intermediates(x, indices=[...], intermediates_only=True) gives features",
    "out_indices": "model.forward_intermediates(x, indices=[...], intermediates_only=True) gives features",
    "checkpoint_path": "regard.load_weights(model, PATH) loads a file",
    "dynamic_img_size": "a model takes images of any size that its patches tile",
    "pretrained_cfg": "regard.load_weights(model, SOURCE) loads weights from elsewhere",
    "pretrained_cfg_overlay": "regard.load_weights(model, SOURCE) loads weights from elsewhere",
    **dict.fromkeys(
        ("attn_drop_rate", "proj_drop_rate", "pos_drop_rate", "patch_drop_rate"),
        "a ViT here drops whole branches only: drop_path_rate",
    ),
    **dict.fromkeys(("qk_norm", "norm_layer", "pre_norm", "no_embed_class"), "a ViT here does not have it"),
    "cache_dir": "the environment variables XDG_CACHE_HOME and HF_HOME say where files are kept",
}
_BACKBONE = ("dilated", "in_chans", "frozen_norm", "reductions")


def create_model(
    name: str,
    pretrained: bool = False,
    *,
    num_classes: int | None = None,
    img_size: int | tuple[int, int] | None = None,
    in_chans: int | None = None,
    mixer: str | Sequence[str] | None = None,
    mixer_options: Mapping[str, Any] | None = None,
    **config: Any,
) -> nn.Module:
    """The model of a name that `list_models` lists, and some of its configuration replaced.

    name: a preset, whose weights are random, or with `pretrained` those of its first entry of the catalogue; or an
    entry with its tag (`vit_base_patch16_224.deit_in1k`); an entry of a backbone gives a backbone. `local-dir:PATH` (a
    run's folder or one that `regard.save` made) and `hf-hub:OWNER/NAME` always come with their weights.
    These are fitted to another image size, number of channels or classes as `load_weights` says.
    mixer: a name of MIXERS, or one a block; mixer_options: arguments of its constructor. `config` takes any other field
    of the configuration, such as `embed_dim`, `depth`, `pool`, `drop_path` of a ViTConfig, and timm's `drop_path_rate`,
    `global_pool`, `init_values`, `reg_tokens` and `drop_rate`.
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
    name = str(name)
    if name.startswith((HUB, "hf_hub:", LOCAL)):
        named_by = find(name)
        if named_by.folder is not None:
            return _model_in(named_by.folder, given)
        name, pretrained = named_by.name, True
    entry = find_pretrained(name)
    key = next((key for key, known in CATALOGUE.items() if known is entry), name)
    if entry is None and name in PRESETS and pretrained:
        raise RegardError(f"{name}: the catalogue has no weights of it; it has those of: {', '.join(CATALOGUE)}")
    if entry is None and name not in PRESETS:
        require_known(name)
        if "/" in name:
            raise RegardError(f"{name}: name a folder as local-dir:PATH, a repository on the hub as hf-hub:OWNER/NAME")
        if pretrained:
            raise unknown("pretrained model", name, CATALOGUE)
    if entry is not None and entry.is_backbone:
        return _backbone(name, entry, given, pretrained)
    start: Mapping[str, Any] = entry.config if entry is not None and (pretrained or name not in PRESETS) else {}
    preset = name if entry is None else entry.model
    model = build(configure(preset, {**start, **_translated(given, PRESETS.get(preset), preset)}))
    if pretrained:
        load_weights(model, name)
    if isinstance(model, ImageModel):
        model.pretrained_cfg = {"architecture": preset} if entry is None else _cfg(key, entry, pretrained)
    return model


def transform_for(model: Any) -> Callable[[Any], Tensor]:
    """What an image goes through before a model in evaluation: a Pillow image, or a file -> float (channels, H, W).

    model: a ViT or SASA-ResNet, whose `pretrained_cfg` says mean, deviation, crop and interpolation (timm's defaults
    where it does not), at the size that the model is built for; or what `regard.load` gives for a run of images.
    RegardError for another model.
    """
    from regard.data import Preprocessing
    from regard.tasks import Classifier

    if not isinstance(model, ImageModel):
        prepare: Callable[[Any], Tensor] | None = getattr(model, "prepare", None)
        if prepare is None or isinstance(model, nn.Module):
            raise RegardError(f"transform_for: a {type(model).__name__} does not say how it wants its images")
        return prepare
    preprocessing: Preprocessing = preprocessing_for(model)
    return Classifier(nn.Identity(), (), preprocessing).prepare


def preprocessing_for(model: ImageModel) -> Any:
    """The `Preprocessing` of an image model: what its `pretrained_cfg` says, and where it is silent timm's defaults."""
    from regard.data import IMAGENET_MEAN, IMAGENET_STD, Preprocessing

    cfg = model.pretrained_cfg
    size, channels = model.config.img_size, model.config.in_chans
    resize = next((ours for ours, theirs in CROP_MODES.items() if theirs == cfg.get("crop_mode")), "crop")
    mean, std = (tuple(cfg.get(key, default)) for key, default in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)))
    if len(mean) != channels:  # grey takes the mean over the colours
        mean, std = ((sum(values) / len(values),) * channels for values in (mean, std))
    return Preprocessing(
        img_size=(size, size) if isinstance(size, int) else tuple(size),
        channels=channels,
        mean=mean,
        std=std,
        interpolation=cfg.get("interpolation", "bicubic"),
        crop_fraction=cfg.get("crop_pct", 0.875) if resize == "crop" else 1.0,
        resize=resize,
    )


def _translated(given: Mapping[str, Any], config: ModelConfig | None, name: str) -> dict[str, Any]:
    """Arguments under the configuration's names. RegardError says what to type for one that has no place in it."""
    found: dict[str, Any] = {}
    typed_as: dict[str, str] = {}
    for typed, value in given.items():
        key = TIMMS.get(typed, typed)
        if typed in INSTEAD:
            if value:
                raise RegardError(f"create_model: {typed} is timm's; {INSTEAD[typed]}")
        elif typed != key and not hasattr(config, key):
            if value and (typed, value) != ("global_pool", "avg"):
                raise RegardError(f"create_model: {name} has no {key}, which {typed} would set")
        elif typed != key and value is None:
            continue
        elif key in found:
            raise RegardError(f"create_model: {typed_as[key]} and {typed} are one setting; give one of them")
        else:
            found[key], typed_as[key] = value, typed
    return found


def _backbone(name: str, entry: Pretrained, given: Mapping[str, Any], pretrained: bool) -> nn.Module:
    for key in given:
        if key not in _BACKBONE:
            raise unknown("key", key, _BACKBONE, where=f"{name} is a backbone")
    backbone = create_backbone(entry.model, **given)
    if pretrained:
        load_pretrained_backbone(backbone, name)
    return backbone


def _model_in(folder: Path, given: Mapping[str, Any]) -> nn.Module:
    """The model of a run, of a folder that `save` made, or of timm's files on the hub, with its weights.

    What the folder says is compared with its weights before anything of the described size is allocated.
    """
    metadata, timms = _json(folder / "metadata.json"), _json(folder / "config.json")
    if not metadata and not _is_here(timms):
        raise RegardError(f"{folder}: holds neither a run (metadata.json) nor a model of timm's that is here")
    found = find_weights(folder)
    tensors, where = choose(found.contents, found.where).state, str(folder / "config.json")
    if metadata:
        where = str(folder / "metadata.json")
        name, config = config_of(metadata, where)
        cfg = _cfg_of_run(metadata, where)
    else:
        name = timms["architecture"]
        config = _timm_config(name, timms, tensors, where)
        cfg = {"architecture": name, **pretrained_cfg_of(timms, where)}
    require_described(config, tensors, found.where, where)
    model = build(configure(name, {**vars(config), **_translated(given, config, name)}))
    load_found(model, found)
    if isinstance(model, ImageModel):
        model.pretrained_cfg = cfg
    return model


def _is_here(timms: Mapping[str, Any]) -> bool:
    return isinstance(timms.get("architecture"), str) and timms["architecture"] in PRESETS


def _timm_config(name: str, timms: Mapping[str, Any], tensors: Mapping[str, Tensor], where: str) -> ModelConfig:
    """The configuration that a config.json of timm's means, beside these tensors."""
    preset, arguments = PRESETS[name], timms.get("model_args", {})
    if not isinstance(arguments, Mapping):
        raise RegardError(f"{where}: model_args must be a table, got {shown(arguments)}")
    head = tensors.get("head.weight")
    saved = {**arguments, "num_classes": 0 if head is None else len(head)}
    if isinstance(preset, ViTConfig):
        saved = vit_arguments(timms, tensors, preset, where)
    try:
        return configure(name, _translated(saved, preset, name), where="model_args")
    except RegardError as error:
        raise RegardError(f"{where}: {error}") from None


def _cfg_of_run(metadata: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What a run knows of its images and classes, under timm's names."""
    from regard.data import Preprocessing

    if "class_names" in metadata:
        class_names_of(metadata, where)
    if "preprocessing" in metadata:
        table = preprocessing_table(metadata, where)
        try:
            if "crop_fraction" in table:
                Preprocessing.from_dict(table)
        except RegardError as error:
            raise placed(error, where) from None
    return cfg_of_metadata(metadata)


def _cfg(name: str, entry: Pretrained, pretrained: bool) -> dict[str, Any]:
    """An entry of the catalogue under timm's names."""
    source = entry.source
    classes = {None: 0, "imagenet-1k": 1000, "coco": 91}[entry.classes]
    return {
        "architecture": entry.model,
        "tag": name.partition(".")[2],
        **({"hf_hub_id": source.repo, "url": f"{ADDRESS}/{source.repo}"} if isinstance(source, HubFile) else {}),
        "license": entry.licence,
        "paper": entry.paper,
        "input_size": (len(entry.mean), entry.img_size, entry.img_size),
        "num_classes": classes,
        "mean": entry.mean,
        "std": entry.std,
        "crop_pct": entry.crop_fraction,
        "interpolation": entry.interpolation,
        **({"dataset": entry.classes} if pretrained else {}),
    }


def _json(file: Path) -> dict[str, Any]:
    """A table in a JSON file; empty where there is no such file. RegardError for one that is not JSON."""
    if not file.is_file():
        return {}
    values = read_json(file)
    if not isinstance(values, dict):
        raise RegardError(f"{file}: should hold a table, holds {shown(values)}")
    return values
