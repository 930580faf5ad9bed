"""Replaces the mixers of a trained model, and keeps the weights that the old and the new one have in common."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from torch import nn

from regard.errors import RegardError, unknown
from regard.layers.grid import Grid
from regard.mixers import MIXERS, create_mixer
from regard.mixers.base import HeadMixer

Model = TypeVar("Model", bound=nn.Module)


def swap_mixer(
    model: Model, name: str, blocks: Iterable[int] | None = None, *, options: Mapping[str, Any] | None = None
) -> Model:
    """Replaces the mixers of all blocks of a model, or of some, and keeps the weights of q, k, v and the output.

    This is what Choromanski et al. 2020 call backward compatibility: attention, local and performer share their
    projections, so that each can take over from another and be fine-tuned. Parameters that only the new mixer has are
    initialised; the relative embeddings of `local` begin at zero, so that it is attention within its window.

    model: a model with mixers, such as a ViT, a Transformer, or a DETR. It is changed and returned. The configuration
    follows, but a DETR's has no place for the mixers of its decoder: name the blocks of its encoder to save it later.
    blocks: numbers of blocks, counted through the whole model; negative ones count from its end. options: those of the
    new mixer. RegardError for a mixer without these projections, a block that does not exist, and an unknown name or
    option.
    """
    able = [known for known, kind in MIXERS.items() if issubclass(kind, HeadMixer)]
    if name not in MIXERS:
        raise unknown("mixer", name, able, where="swap_mixer")
    if name not in able:
        raise RegardError(
            f"swap_mixer: {name} has no projections of q, k and v; mixers that have them: {', '.join(able)}"
        )
    parents = [module for module in model.modules() if isinstance(getattr(module, "mixer", None), nn.Module)]
    if not parents:
        raise RegardError(f"swap_mixer: {type(model).__name__} has no token mixers")
    chosen = list(range(len(parents))) if blocks is None else [_number(block, len(parents)) for block in blocks]
    for number in chosen:
        old = parents[number].mixer
        if not isinstance(old, HeadMixer):
            raise RegardError(
                f"swap_mixer: block {number} has {getattr(old, 'name', type(old).__name__)}, which shares no "
                f"projections with {name}; those that do: {', '.join(able)}"
            )
    grid: Grid | None = getattr(model, "grid", None)
    swapped = {number: _successor(parents[number].mixer, name, grid, options or {}) for number in chosen}
    for number, mixer in swapped.items():
        parents[number].mixer = mixer
    _note_in_config(model, [str(getattr(parent.mixer, "name", "")) for parent in parents], name, options or {})
    return model


def _successor(old: object, name: str, grid: Grid | None, options: Mapping[str, Any]) -> HeadMixer:
    assert isinstance(old, HeadMixer)
    qkv = old.qkv if old.fused_qkv else old.q
    given = {"qkv_bias": qkv.bias is not None, "fused_qkv": old.fused_qkv, **options}
    new = create_mixer(
        name,
        old.num_heads * old.head_dim,
        num_heads=old.num_heads,
        grid=grid,
        options=given,
        causal=bool(getattr(old, "causal", False)),
    )
    assert isinstance(new, HeadMixer)
    new.to(device=old.proj.weight.device, dtype=old.proj.weight.dtype).train(old.training)
    for part in ("qkv", "q", "k", "v", "proj"):
        if hasattr(old, part):
            setattr(new, part, getattr(old, part))
    for embedding in ("rel_rows", "rel_cols"):
        if hasattr(new, embedding):
            nn.init.zeros_(getattr(new, embedding))
    return new


def _note_in_config(model: nn.Module, names: list[str], name: str, options: Mapping[str, Any]) -> None:
    """Writes the mixers into the model's configuration, from which a saved model is built again.

    A DETR's configuration has no place for the mixers of its decoder.
    """
    config = getattr(model, "config", None)
    if config is None or not hasattr(config, "mixer"):
        return
    known = dict(config.mixer_options or {})
    if known and not known.keys() & MIXERS.keys():
        own = config.mixer if isinstance(config.mixer, str) else config.mixer[0]
        known = {own: known}
    if options:
        known[name] = dict(options)
    changes: dict[str, Any] = {"mixer": tuple(names[: config.depth]), "mixer_options": known}
    if hasattr(config, "decoder_mixer"):
        changes["decoder_mixer"] = tuple(names[config.depth :])
    model.config = replace(config, **changes)


def _number(block: int, count: int) -> int:
    if not -count <= block < count:
        raise RegardError(f"swap_mixer: there is no block {block}; the model has {count}, from 0 on")
    return block % count
