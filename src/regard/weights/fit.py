"""Whether tensors fit a model: their names and shapes, their kinds of numbers, and that they are numbers at all."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from regard.errors import RegardError, first_few
from regard.weights.rules import State

_LONGEST_NAME = 100


def require_fit(
    found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], where: str | Path, unexpected: Sequence[str] = ()
) -> None:
    """RegardError that lists both sides of what does not fit; `unexpected` are their names that have no place here."""
    unexpected = [*unexpected, *(found.keys() - wanted.keys())]
    differences = [
        *_listed("missing from the file", sorted(wanted.keys() - found.keys())),
        *_listed("not in the model", sorted(unexpected)),
        *_listed("of another shape (file, model)", _other_shapes(found, wanted)),
    ]
    if differences:
        raise RegardError(f"{where}: does not match this model: {'; '.join(differences)}")


def as_wanted(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], where: str | Path) -> tuple[State, list[str]]:
    """The tensors in the model's own dtypes, and a note on what was converted.

    RegardError for complex numbers, truth values and integers in the place of floats, and for floats in the place of
    integers: no conversion between these keeps what they mean.
    """
    state, wrong, changed = dict(found), [], []
    for name in sorted(found.keys() & wanted.keys()):
        tensor, dtype = found[name], wanted[name].dtype
        if tensor.dtype == dtype:
            continue
        if (_float(tensor.dtype) and _float(dtype)) or (_whole(tensor.dtype) and _whole(dtype)):
            state[name] = tensor.to(dtype)
            changed.append((_short(tensor.dtype), _short(dtype)))
        else:
            wrong.append(f"{name[:_LONGEST_NAME]} is {_short(tensor.dtype)} where {_short(dtype)} belongs")
    if wrong:
        raise RegardError(f"{where}: holds other numbers than weights: {first_few(wrong)}")
    pairs = [pair for pair in dict.fromkeys(changed) if "float" in pair[0]]
    return state, [f"{changed.count(a)} of {len(found)} tensors converted from {a[0]} to {a[1]}" for a in pairs]


def require_finite(
    found: Mapping[str, Tensor],
    where: str | Path,
    *,
    before: Mapping[str, Tensor] | None = None,
    instead: str = "",
) -> None:
    """RegardError where a weight is NaN or infinite: one is enough to spoil each prediction. instead: a way on.

    before: the tensors as they were in the file, to tell what the file holds from what the conversion made of it.
    """
    bad = [name for name, tensor in found.items() if not is_finite(tensor)]
    if not bad:
        return
    name = bad[0]
    tensor = found[name]
    if before is not None and name in before and is_finite(before[name]):
        said = f"holds numbers beyond those of {_short(tensor.dtype)}"
    else:
        count = int((~tensor.float().isfinite()).sum())
        whole = "all" if count == tensor.numel() else f"{count:,}"
        said = f"holds NaN or infinity in {whole} of its {tensor.numel():,} numbers"
    more = f" (and {len(bad) - 1} more tensors)" if bad[1:] else ""
    raise RegardError(
        f"{where}: {name[:_LONGEST_NAME]} {said}{more}, which would spoil each prediction; "
        f"a training that diverged leaves such weights{instead}"
    )


def is_finite(tensor: Tensor) -> bool:
    """Whether no number is NaN or infinite; one pass, without memory of the tensor's size."""
    if not tensor.is_floating_point() or not tensor.numel() or tensor.is_meta:
        return True
    values = tensor.detach().float() if tensor.dtype.itemsize == 1 else tensor.detach()
    return bool(torch.stack(values.aminmax()).isfinite().all())


def _float(dtype: torch.dtype) -> bool:
    return dtype.is_floating_point and dtype != torch.float4_e2m1fn_x2  # two numbers in one: not converted by itself


def _whole(dtype: torch.dtype) -> bool:
    return not (dtype.is_floating_point or dtype.is_complex or dtype == torch.bool)


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _other_shapes(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    shared = sorted(found.keys() & wanted.keys())
    pairs = ((key, tuple(found[key].shape), tuple(wanted[key].shape)) for key in shared)
    return [f"{key} {theirs} {ours}" for key, theirs, ours in pairs if theirs != ours]


def _listed(what: str, items: list[str], limit: int = 6) -> list[str]:
    if not items:
        return []
    groups = [item[:_LONGEST_NAME] for item in (_grouped(items) if len(items) > limit else items)]
    return [f"{len(items)} {what}: {first_few(groups, limit)}"]


def _grouped(items: list[str]) -> list[str]:
    """Names that begin alike, as one: "blocks.3.* (12)"."""
    counts: dict[str, list[str]] = {}
    for item in items:
        parts = item.split(" ")[0].split(".")
        number = next((place for place, part in enumerate(parts) if part.isdigit()), 0)
        head = ".".join(parts[: number + 1]) if number else item
        counts.setdefault(head, []).append(item)
    return [names[0] if len(names) == 1 else f"{head}.* ({len(names)})" for head, names in counts.items()]
