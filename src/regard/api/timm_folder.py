"""A folder in which timm has saved a ViT: config.json, and the weights beside it."""

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from regard.errors import RegardError

# What the tensors say more reliably than config.json, which has these only where the user repeated them.
_READ_FROM_TENSORS = {"in_chans", "class_token", "reg_tokens", "fc_norm", "num_classes", "no_embed_class", "img_size"}
# These change nothing once weights are loaded.
_WITHOUT_EFFECT = {"weight_init", "fix_init"}


def vit_arguments(
    config: Mapping[str, Any], state: Mapping[str, Tensor], patch_size: int, where: str
) -> dict[str, Any]:
    """The arguments of `create_model` that rebuild the ViT of a folder.

    config: the table of config.json. state: the tensors, under timm's names. Arguments that ours has under another name
    keep timm's. RegardError for a way of pooling that our ViT does not have; it begins with `where`.
    """
    arguments = {
        key: value
        for key, value in config.get("model_args", {}).items()
        if key not in _READ_FROM_TENSORS | _WITHOUT_EFFECT
    }
    pool = arguments.pop("global_pool", config.get("global_pool", "token"))
    if pool not in ("token", "avg"):
        raise RegardError(f"{where}: global_pool is {pool!r}; a ViT pools by 'token' or 'avg' here")
    registers = state["reg_token"].shape[1] if "reg_token" in state else 0
    if "blocks.0.ls1.gamma" in state:
        arguments.setdefault("init_values", 1.0)  # the weights replace it
    return {
        **arguments,
        "pool": pool,
        "in_chans": state["patch_embed.proj.weight"].shape[1],
        "class_token": "cls_token" in state,
        "num_registers": registers,
        "fc_norm": "fc_norm.weight" in state,
        "num_classes": len(state["head.weight"]) if "head.weight" in state else 0,
        "img_size": _img_size(config, state, patch_size, int("cls_token" in state) + registers, where),
    }


def _img_size(
    config: Mapping[str, Any], state: Mapping[str, Tensor], patch_size: int, prefix: int, where: str
) -> int | tuple[int, ...]:
    """As config.json says; else the square whose patches have a row each in the table of positions."""
    said = config.get("model_args", {}).get("img_size")
    if said is not None:
        return said if isinstance(said, int) else tuple(said)
    rows = state["pos_embed"].shape[1]
    for patches in (rows, rows - prefix):  # timm's `no_embed_class` has rows for patches alone
        side = math.isqrt(max(patches, 0))
        if side and side * side == patches:
            return side * patch_size
    raise RegardError(f"{where}: {rows} positions are those of no square image; its model_args have no img_size")
