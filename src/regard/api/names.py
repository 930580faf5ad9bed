"""What a name stands for: a preset, an entry of the catalogue, a folder here, or a repository on the hub."""

import difflib
import fnmatch
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from regard.errors import RegardError, first_few, unknown
from regard.export.engines import SUFFIXES
from regard.files import expanded
from regard.models import PRESETS
from regard.training.machine import cuda_devices
from regard.weights.catalogue import CATALOGUE, Pretrained, chosen_pretrained
from regard.weights.hub import PREFIX as HUB
from regard.weights.hub import HubFile, fetch_folder
from regard.weights.load import LOCAL

# What other libraries call models that are here under another name.
ELSEWHERE = {
    **{
        f"vit_{size}_patch14_{dino}dinov2": f"dinov2_vit{size[0]}14{registers}"
        for size in ("small", "base", "large")
        for dino, registers in (("", ""), ("reg4_", "_reg4"))
    },
    **{f"deit_{size}_patch16_224": f"vit_{size}_patch16_224.deit_in1k" for size in ("tiny", "small", "base")},
    "vit_b_16": "vit_base_patch16_224",
    "vit_l_16": "vit_large_patch16_224",
    "vit_h_14": "vit_huge_patch14_224",
    **{f"google/vit-{size}-patch16-224": f"vit_{size}_patch16_224" for size in ("base", "large")},
}


@dataclass(frozen=True)
class Named:
    """What a name stands for; one of `entry` and `folder`, or neither: then it is a preset's name, or nobody's."""

    name: str
    entry: Pretrained | None = None
    folder: Path | None = None
    """A run, a model that was saved, or files of the hub."""


def find(name: str | Path) -> Named:
    """What a name stands for. Files of the hub are fetched, unless the catalogue has the repository.

    RegardError for a folder that is not there, and for files that cannot be had.
    """
    if not isinstance(name, str | Path):
        raise RegardError(f"a run or a model is named by a text or a path, not by a {type(name).__name__}")
    text = re.sub(r"^hf_hub:", HUB, str(name))
    if text.startswith(LOCAL):
        folder = expanded(text.removeprefix(LOCAL))
        if not folder.is_dir():
            raise unknown_source(text.removeprefix(LOCAL))
        return Named(text, folder=folder)
    if text.startswith(HUB):
        asked = HubFile.parse(text)
        for key, entry in CATALOGUE.items():
            source = entry.source
            if isinstance(source, HubFile) and source.repo == asked.repo and asked.revision is None:
                return Named(key, entry)
        return Named(text, folder=fetch_folder(text))
    found = chosen_pretrained(text)
    if found is not None:
        key = text if text in CATALOGUE else next(key for key, known in CATALOGUE.items() if known is found)
        return Named(key, found)
    return Named(text, folder=expanded(text) if expanded(text).exists() else None)


def list_models(
    filter: str | Iterable[str] = "",
    pretrained: bool = False,
    exclude_filters: str | Iterable[str] = "",
    include_tags: bool | None = None,
) -> list[str]:
    """The names that `create_model` takes; with `pretrained`, those of them that have weights, with their tags.

    filter: wildcards such as "vit*", or several; exclude_filters: what is left out of that. A filter without a tag
    takes all tags of a name. include_tags: list weights by their tags; as `pretrained` says unless given.
    """
    tagged = pretrained if include_tags is None else include_tags
    names = set(CATALOGUE) if pretrained else set(PRESETS) | set(CATALOGUE if tagged else ())
    if not tagged:
        names = {name.partition(".")[0] for name in names}
    wanted, unwanted = _patterns(filter), _patterns(exclude_filters)
    chosen = {name for name in names if not wanted or _matches(name, wanted)}
    return sorted((name for name in chosen if not _matches(name, unwanted)), key=_natural)


def require_known(name: str) -> None:
    """RegardError for what another library calls a model that is here, and for a tag that is not there."""
    base, _, tag = name.partition(".")
    if base in ELSEWHERE:
        raise RegardError(f"unknown model {name!r}; here it is {ELSEWHERE[base]!r}")
    tags = [known.partition(".")[2] for known in CATALOGUE if known.startswith(f"{base}.")]
    if tag and (base in PRESETS or tags):
        have = f"its tags are: {', '.join(tags)}" if tags else "it has none"
        raise RegardError(f"{base}: unknown tag {tag!r}; {have} (`regard models` lists pretrained models)")


def unknown_source(name: str) -> RegardError:
    """The error for what is neither a folder nor a pretrained model: it offers near runs, and the catalogue."""
    path, pretrained = expanded(name), first_few(tuple(CATALOGUE), 5)
    if path.is_file():
        return RegardError(
            f"{name}: is not a folder; a run is one, made by `regard train RECIPE --out RUN`, which begins with the "
            "weights of a file by --set model.weights=FILE"
        )
    if path.suffix.lower() in SUFFIXES:
        return RegardError(f"{name}: No such file; `regard export RUN --to onnx` makes one")
    if name in PRESETS:
        return RegardError(
            f"{name}: is a model without weights; train it, or take one of {pretrained} (`regard models`)"
        )
    runs = {folder.name: str(folder) for folder in _runs_near(path)}
    candidates = {**{key: key for key in CATALOGUE}, **runs}
    near = difflib.get_close_matches(path.name, candidates, n=3, cutoff=0.6)
    near += [key for key in (ELSEWHERE.get(name.partition(".")[0]),) if key]
    hint = f"; did you mean {' or '.join(repr(candidates.get(key, key)) for key in near)}?" if near else ""
    here = f" Runs near: {first_few(list(runs.values()), 5)}." if runs else ""
    return RegardError(
        f"{name}: is not a folder and no pretrained model{hint or '.'}{here} Pretrained models: {pretrained} "
        "(`regard models` lists them); `regard train RECIPE --out RUN` makes a run"
    )


def device_named(device: str | torch.device | None) -> torch.device:
    """A device that is there; unless named, a GPU where there is one. RegardError says which there are."""
    if device is None or device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kinds = ("auto", "cpu", "cuda", "cuda:0", "mps")
    if str(device).startswith("gpu"):  # which `unknown` finds nearest to "cpu"
        raise RegardError(f"unknown device {str(device)!r}; did you mean 'cuda'? Known: {', '.join(kinds)}")
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise unknown("device", device, kinds) from None
    count = torch.cuda.device_count()
    if chosen.type == "cuda" and (chosen.index or 0) >= count:
        raise RegardError(f"device {str(device)!r}: PyTorch has {cuda_devices()}")
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise RegardError(f"device {str(device)!r}: PyTorch has no Apple GPU here")
    if chosen.type not in ("cpu", "cuda", "mps"):
        raise unknown("device", device, kinds)
    return chosen


def _runs_near(path: Path) -> list[Path]:
    """Folders that hold a run or a saved model: beside a path, here, and in runs."""
    places = dict.fromkeys((path.parent, Path(), Path("runs")))
    found = [
        folder
        for place in places
        if place.is_dir()
        for folder in sorted(place.iterdir())
        if (folder / "metadata.json").is_file()
    ]
    return list(dict.fromkeys(found))


def _patterns(filters: str | Iterable[str]) -> list[str]:
    return [text for text in ([filters] if isinstance(filters, str) else filters) if text]


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatch(name, form) for text in patterns for form in (text, f"{text}.*"))


def _natural(name: str) -> list[str | int]:
    """mixer_b16 before mixer_b32, sasa_resnet26 before sasa_resnet50."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]
