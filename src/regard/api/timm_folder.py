"""A folder in which timm has saved a ViT: config.json, and the weights beside it."""

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from regard.errors import RegardError, shown
from regard.models import ViTConfig

# What the tensors say more reliably than config.json, which has these only where the user repeated them.
_READ_FROM_TENSORS = {"in_chans", "class_token", "reg_tokens", "fc_norm", "num_classes", "no_embed_class", "img_size"}
_PATCHES = "patch_embed.proj.weight"
_AXES = {_PATCHES: 4, "pos_embed": 3, "cls_token": 3, "reg_token": 3, "head.weight": 2}
# These change nothing once weights are loaded.
_WITHOUT_EFFECT = {"weight_init", "fix_init"}


def vit_arguments(
    config: Mapping[str, Any], state: Mapping[str, Tensor], preset: ViTConfig, where: str
) -> dict[str, Any]:
    """The arguments of `create_model` that rebuild the ViT of a folder.

    config: the table of config.json. state: the tensors, under timm's names. Arguments that ours has under another name
    keep timm's. RegardError for a way of pooling that our ViT does not have, and for tensors of another model; it
    begins with `where`.
    """
    for name, axes in _AXES.items():
        if name in state and state[name].ndim != axes:
            raise RegardError(f"{where}: beside it {name} has the shape {tuple(state[name].shape)}, not {axes} axes")
    if _PATCHES not in state or ("pos_embed" not in state and preset.positions == "learned"):
        return dict(config.get("model_args", {}))  # no ViT: what is missing is said when all names are compared
    arguments = {
        key: value
        for key, value in config.get("model_args", {}).items()
        if key not in _READ_FROM_TENSORS | _WITHOUT_EFFECT
    }
    pool = arguments.pop("global_pool", config.get("global_pool", "token"))
    if pool not in ("token", "avg"):
        raise RegardError(f"{where}: global_pool is {shown(pool)}; a ViT pools by 'token' or 'avg' here")
    registers = state["reg_token"].shape[1] if "reg_token" in state else 0
    if "blocks.0.ls1.gamma" in state:
        arguments.setdefault("init_values", 1.0)  # the weights replace it
    return {
        **arguments,
        "pool": pool,
        "in_chans": state[_PATCHES].shape[1],
        "class_token": "cls_token" in state,
        "num_registers": registers,
        "fc_norm": "fc_norm.weight" in state,
        "num_classes": len(state["head.weight"]) if "head.weight" in state else 0,
        "img_size": _img_size(config, state, preset.patch_size, int("cls_token" in state) + registers, where),
    }


def _img_size(
    config: Mapping[str, Any], state: Mapping[str, Tensor], patch_size: int, prefix: int, where: str
) -> int | tuple[int, ...]:
    """As config.json says; else the square whose patches have a row each in the table of positions."""
    said = config.get("model_args", {}).get("img_size")
    if isinstance(said, list | tuple):
        return tuple(said)
    if said is not None:
        return said  # `configure` checks it
    rows = state["pos_embed"].shape[1]
    for patches in (rows, rows - prefix):  # timm's `no_embed_class` has rows for patches alone
        side = math.isqrt(max(patches, 0))
        if side and side * side == patches:
            return side * patch_size
    raise RegardError(f"{where}: {rows} positions are those of no square image; its model_args have no img_size")


def pretrained_cfg_of(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What config.json says of the images. RegardError where it is not what a preprocessing is made of."""
    cfg = config.get("pretrained_cfg", {})
    if not isinstance(cfg, Mapping):
        raise RegardError(f"{where}: pretrained_cfg must be a table, got {shown(cfg)}")
    for key in ("mean", "std"):
        values = cfg.get(key, [0.5])
        if not isinstance(values, list) or not values or not all(_is_number(value) for value in values):
            raise RegardError(f"{where}: {key} must be a list of numbers, got {shown(values)}")
    if not _is_number(cfg.get("crop_pct", 1.0)):
        raise RegardError(f"{where}: crop_pct must be a number, got {shown(cfg['crop_pct'])}")
    for key in ("interpolation", "license", "tag"):
        if not isinstance(cfg.get(key, ""), str | None):
            raise RegardError(f"{where}: {key} must be a text, got {shown(cfg[key])}")
    names = cfg.get("label_names") or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise RegardError(f"{where}: label_names must be a list of texts, got {shown(names)}")
    return dict(cfg)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= 1_000
