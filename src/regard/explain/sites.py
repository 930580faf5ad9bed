"""Where a model attends: its token mixers and other attention, by name, and what each of them takes from its inputs."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from regard.errors import RegardError
from regard.layers import DeformableAttention, Grid, LocalAttention2d, MultiHeadAttention
from regard.mixers import Mixer
from regard.models.hybrid_encoder import HybridEncoder
from regard.ops import attention_rows

READ = (
    "token mixers, the attention of DETR, DN-DETR, the Transformer and SASA-ResNet, and that of timm's ViTs "
    "(timm.layers.Attention)"
)
# Parts of a module's path that say nothing to a reader.
_SILENT = {"mixer", "layers", "pyramid", "body", "attention", "attn", "conv2", "model", "vit"}
_TIMM = {"timm.layers.attention", "timm.models.vision_transformer"}

LayerChoice = int | str | Sequence[int | str] | None


@dataclass(frozen=True)
class Site:
    """One layer of attention in a model."""

    name: str
    """`blocks.3`, `encoder.0`, `decoder.0` (self-attention), `cross.0`: also what `layers` takes."""
    number: int
    """Its place among all of the model's, in order of computation."""
    module: nn.Module

    @property
    def mixer(self) -> str:
        """The mixer's name, or what else it is."""
        if isinstance(self.module, DeformableAttention):
            return "deformable attention"
        if isinstance(self.module, LocalAttention2d):
            return "local"
        return str(getattr(self.module, "name", "attention"))

    @property
    def num_heads(self) -> int:
        return int(getattr(self.module, "num_heads", 1)) if self.is_matrix else 1

    @property
    def is_matrix(self) -> bool:
        """Whether its rows are those of a matrix A in y_i = out(Σ_j A_ij value_j), not an influence."""
        return not isinstance(self.module, Mixer) or hasattr(self.module, "mixing_matrix")


class Inputs(NamedTuple):
    """What a layer of attention was called with."""

    site: Site
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    grid: Grid | None
    """How the keys lie on the image, where they do."""
    shapes: tuple[tuple[int, int], ...]
    """(rows, columns) of each map, where the keys are several maps one after the other."""

    @property
    def batch(self) -> int:
        return int(self.args[0].shape[0])

    @property
    def num_queries(self) -> int:
        first = self.args[0]
        return int(first.shape[2] * first.shape[3] if first.ndim == 4 else first.shape[1])

    @property
    def num_keys(self) -> int:
        module = self.site.module
        if isinstance(module, DeformableAttention):
            return int(self.args[2].shape[1])
        return int(self.args[1].shape[1]) if isinstance(module, MultiHeadAttention) else self.num_queries

    @property
    def x(self) -> Tensor:
        """The tokens of a layer of self-attention."""
        found: Tensor = self.args[0]
        return found

    def options(self, *names: str) -> dict[str, Any]:
        return {name: self.kwargs.get(name) for name in names}

    def rows(self, queries: Tensor, heads: Tensor | None = None, chunk: int | None = None) -> Tensor:
        """(batch, heads, queries, keys): what some queries take from each key."""
        module, args = self.site.module, self.args
        if isinstance(module, Mixer):
            options = self.options("grid", "mask", "positions")
            return module.rows(args[0], queries, heads=heads, chunk=chunk, **options)
        if isinstance(module, MultiHeadAttention):
            options = self.options("attn_mask", "key_mask")
            return module.rows(args[0], args[1], queries, heads=heads, chunk=chunk, **options)
        if isinstance(module, DeformableAttention):
            query, reference, _, shapes = args
            return module.rows(query, reference, shapes, queries, heads=heads, **self.options("key_mask"))
        if isinstance(module, LocalAttention2d):
            return module.rows(args[0], queries, heads=heads)
        q, keys = timm_projection(module, args[0], 0)(queries), timm_projection(module, args[0], 1)
        if heads is not None:
            return attention_rows(
                q[:, heads], lambda some: keys(some)[:, heads], self.num_keys, scale=_scale(module), chunk=chunk
            )
        return attention_rows(q, keys, self.num_keys, scale=_scale(module), chunk=chunk)


def sites(model: nn.Module) -> list[Site]:
    """All layers of attention in a model. RegardError where there is none that can be read."""
    found = [(path, module) for path, module in model.named_modules() if _is_read(module)]
    if not found:
        raise RegardError(f"{type(model).__name__} has no attention that can be read; read are {READ}")
    short = [_short(path) for path, _ in found]
    unique = [name if short.count(name) == 1 else path for name, (path, _) in zip(short, found, strict=True)]
    return [Site(name, number, module) for number, (name, (_, module)) in enumerate(zip(unique, found, strict=True))]


def chosen_sites(known: Sequence[Site], layers: LayerChoice) -> list[Site]:
    """Those that `layers` names: all for None, else numbers (-1 is the last), names, or groups such as "cross".

    RegardError for one that is not there; it says which there are.
    """
    if layers is None or layers == "all":
        return list(known)
    wanted = [layers] if isinstance(layers, int | str) else list(layers)
    found = [site for one in wanted for site in _named(known, one)]
    if not found:
        raise RegardError(f"layers: no layer is named; {_what_there_is(known)}")
    return list(dict.fromkeys(found))


def _named(known: Sequence[Site], layer: int | str) -> list[Site]:
    if isinstance(layer, str) and layer.removeprefix("-").isdigit():
        layer = int(layer)
    if isinstance(layer, int) and not isinstance(layer, bool):
        if -len(known) <= layer < len(known):
            return [known[layer]]
        raise RegardError(f"layer {layer} is not there: {_what_there_is(known)}")
    group, _, number = str(layer).rpartition(".")
    alike = [site for site in known if site.name == layer or _group(site) == layer]
    if not alike and number.removeprefix("-").isdigit():
        members = [site for site in known if _group(site) == group]
        alike = [members[int(number)]] if -len(members) <= int(number) < len(members) else []
    if not alike:
        raise RegardError(f"layer {layer!r} is not there: {_what_there_is(known)}")
    return alike


def _group(site: Site) -> str:
    return site.name.rpartition(".")[0]


def _what_there_is(known: Sequence[Site]) -> str:
    counts = [(group, len(list(members))) for group, members in groupby(sorted(map(_group, known)))]
    named = ", ".join(f"{group} 0 to {count - 1}" if group else f"{count} without a number" for group, count in counts)
    return f"the model has {named} (-1 is the last)"


def _short(path: str) -> str:
    """ "decoder.layers.3.cross" -> "cross.3", "pyramid.encoder.layers.0.mixer" -> "encoder.0"."""
    parts = [part for part in path.split(".") if part not in _SILENT]
    if parts and parts[-1] == "cross":
        parts = ["cross", parts[-2]] if len(parts) > 1 else parts
    return ".".join(parts) or path


def _is_read(module: nn.Module) -> bool:
    return isinstance(module, Mixer | MultiHeadAttention | DeformableAttention | LocalAttention2d) or is_timm(module)


def is_timm(module: nn.Module) -> bool:
    """Whether it is the attention of timm's ViTs. Subclasses, which may turn q and k, are not."""
    kind = type(module)
    return (
        kind.__name__ == "Attention" and kind.__module__ in _TIMM and isinstance(getattr(module, "qkv", 0), nn.Linear)
    )


def timm_projection(module: Any, x: Tensor, number: int) -> Any:
    """Gives q (number 0), k (1) or v (2) of some tokens, (batch, heads, tokens, head_dim), of timm's attention."""
    weight = module.qkv.weight.chunk(3)[number]
    bias = None if module.qkv.bias is None else module.qkv.bias.chunk(3)[number]
    norm = (module.q_norm, module.k_norm, nn.Identity())[number]

    def read(some: Any) -> Tensor:
        found = nn.functional.linear(x[:, some], weight, bias)
        return norm(found.unflatten(-1, (module.num_heads, -1)).transpose(1, 2))

    return read


def _scale(module: Any) -> float:
    return float(module.head_dim**-0.5)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode; afterwards each module is in its own mode again."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def listening(model: nn.Module, chosen: Sequence[Site], tell: Any) -> Iterator[None]:
    """Calls `tell(Inputs)` whenever one of the chosen layers is about to compute."""
    seen: dict[str, Any] = {"grid": None, "shapes": ()}

    def before(site: Site) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if is_timm(module) and any(
                value is not None and value is not False for value in (*args[1:], *kwargs.values())
            ):
                raise RegardError(f"{site.name}: timm's attention is called with a mask, which is not read")
            tell(_with_place(Inputs(site, args, kwargs, kwargs.get("grid"), ()), seen))

        return hook

    def memory(_: nn.Module, __: Any, output: Any) -> None:
        seen["shapes"] = output.shapes

    handles = [module.register_forward_hook(memory) for module in model.modules() if isinstance(module, HybridEncoder)]
    handles += [site.module.register_forward_pre_hook(before(site), with_kwargs=True) for site in chosen]
    handles += [
        site.module.register_forward_pre_hook(_keep_grid(seen), with_kwargs=True)
        for site in (sites(model) if chosen else ())
        if isinstance(site.module, Mixer)
    ]
    if any(is_timm(site.module) for site in chosen):
        handles.append(model.register_forward_pre_hook(_keep_timm_grid(seen)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _keep_grid(seen: dict[str, Any]) -> Any:
    def hook(_: nn.Module, __: Any, kwargs: dict[str, Any]) -> None:
        seen["grid"] = kwargs.get("grid") or seen["grid"]

    return hook


def _keep_timm_grid(seen: dict[str, Any]) -> Any:
    def hook(model: Any, args: tuple[Any, ...]) -> None:
        patch = getattr(getattr(model, "patch_embed", None), "patch_size", None)
        if patch is not None and args and isinstance(args[0], Tensor) and args[0].ndim == 4:
            rows, columns = (side // step for side, step in zip(args[0].shape[-2:], patch, strict=True))
            seen["grid"] = Grid(rows, columns, int(getattr(model, "num_prefix_tokens", 0)))

    return hook


def _with_place(inputs: Inputs, seen: Mapping[str, Any]) -> Inputs:
    """With the grid or the maps of the keys, as far as they are known."""
    module, grid = inputs.site.module, inputs.grid
    if is_timm(module) or inputs.site.name.startswith("cross"):
        grid = seen["grid"]
    if isinstance(module, DeformableAttention):
        shapes = tuple(inputs.args[3])
    elif isinstance(module, LocalAttention2d):
        grid, shapes = Grid(*inputs.args[0].shape[2:]), ()
    else:
        shapes = seen["shapes"] if isinstance(module, MultiHeadAttention) else ()
    if sum(rows * columns for rows, columns in shapes) != inputs.num_keys:
        shapes = ()
    if len(shapes) == 1:
        grid = Grid(*shapes[0])
    fits = grid is not None and grid.num_tokens == inputs.num_keys and not (shapes and len(shapes) > 1)
    return inputs._replace(grid=grid if fits else None, shapes=shapes)


def numbers_of(chosen: object, count: int, what: str) -> Tensor:
    """Heads or other things by number, as a tensor; None is all. RegardError for one that is not there."""
    if chosen is None:
        return torch.arange(count)
    wanted = [chosen] if isinstance(chosen, int) else list(chosen)  # type: ignore[call-overload]
    for one in wanted:
        if not isinstance(one, int) or isinstance(one, bool) or not -count <= one < count:
            raise RegardError(f"{what} {one} is not there: there are {count}, 0 to {count - 1}")
    if not wanted:
        raise RegardError(f"{what}: none is named; there are {count}, 0 to {count - 1}")
    return torch.tensor([one % count for one in wanted])
