"""`auto`: the best weights of the catalogue for a model that are at hand, by a name and a hash that a run can keep."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from regard.errors import RegardError, first_few
from regard.files import expanded
from regard.models.vit import DINOV2
from regard.weights.catalogue import CATALOGUE, Pretrained, chosen_pretrained
from regard.weights.hub import PREFIX, HubFile
from regard.weights.load import LOCAL, weights_in
from regard.weights.package_file import PackageFile

AUTO = "auto"
PATIENCE = 3.0  # seconds that the hub has to answer, in all


@dataclass(frozen=True)
class Chosen:
    """Weights of the catalogue."""

    name: str
    hash: str
    note: str
    """Which they are, and how to get better ones: one line."""


def choose_weights(model: str, *, key: str, model_key: str, otherwise: str | None = None) -> Chosen:
    """The weights of a preset, or of a backbone, that `auto` stands for.

    They are the hub's own where these lie in the user's weights folder or the hub's cache, else those of an installed
    package, else the hub's, which are downloaded. Only then is the network asked, once, for `PATIENCE` seconds.
    key, model_key: the recipe's keys, for messages. otherwise: a recipe that needs no weights.
    RegardError where there are none: it says what to install or download.
    """
    entries = {name: entry for name, entry in CATALOGUE.items() if entry.model == model}
    if not entries:
        known = first_few(list(dict.fromkeys(entry.model for entry in CATALOGUE.values())), 8)
        raise RegardError(f"{key}: the catalogue has no weights of {model}; it has those of {known}")
    of_hub = [name for name, entry in entries.items() if isinstance(entry.source, HubFile)]
    of_packages = [name for name in entries if name not in of_hub]
    for name in (*of_hub, *of_packages):
        if _is_at_hand(entries[name]):
            return _chosen(name, key, model_key)
    for name in of_hub:
        source = entries[name].source
        if isinstance(source, HubFile) and source.answers(PATIENCE):
            return _chosen(name, key, model_key)
    ways = [f"{source.command}" for name in of_packages if isinstance(source := entries[name].source, PackageFile)]
    for name in of_hub[:1]:
        source = entries[name].source
        assert isinstance(source, HubFile)
        ways.append(f"download {source.url} and save it as {source.folder / source.names[0]}")
    scratch = f"; the recipe {otherwise} trains without such weights" if otherwise else ""
    raise RegardError(
        f"{key}: no weights of {model} are installed, and the hub cannot be reached: {', or '.join(ways)}{scratch}"
    )


def is_at_hand(model: str) -> bool:
    """Whether weights of a preset, or of a backbone, can be read without a network."""
    return any(_is_at_hand(entry) for entry in CATALOGUE.values() if entry.model == model)


def names_at_hand() -> list[str]:
    """The entries of the catalogue that can be read without a network."""
    return [name for name, entry in CATALOGUE.items() if _is_at_hand(entry)]


def _is_at_hand(entry: Pretrained) -> bool:
    source = entry.source
    readable = isinstance(source, HubFile) or not source.lacks
    return readable and source.at_hand() is not None


def _chosen(name: str, key: str, model_key: str) -> Chosen:
    entry = CATALOGUE[name]
    file = entry.file()
    if isinstance(entry.source, PackageFile):
        where = f"of the installed package {entry.source.package}"
        better = f"--set {key}={entry.instead} downloads the authors' own, which may be better" if entry.instead else ""
    else:
        where = f"from {file}"
        larger = _larger(entry.model)
        better = f"--set {model_key}={larger} is larger, better and slower" if larger else ""
    return Chosen(name, file_hash(file), f"{key}: auto takes {name}, {where}{'; ' if better else ''}{better}")


def _larger(model: str) -> str:
    """The preset of the next size; empty where there is none."""
    head, _, rest = model.partition("_vit")
    size = {"s": "b", "b": "l"}.get(rest[:1], "")
    found = f"{head}_vit{size}{rest[1:]}"
    return found if size and found in DINOV2 else ""


def weights_hash(source: str, *, key: str) -> str:
    """The hash of the file of weights behind a path, a run or another folder, a name of the catalogue or of the hub.

    RegardError for anything else.
    """
    entry = chosen_pretrained(source)
    if source.startswith(PREFIX):
        file = HubFile.parse(source).fetch()
    else:
        file = expanded(source.removeprefix(LOCAL)) if entry is None else entry.file()
    file = weights_in(file) if file.is_dir() else file
    if not file.is_file():
        raise RegardError(f"{key}_hash: is that of a file, a run or a name of the catalogue; {source} is none of these")
    return file_hash(file)


def file_hash(file: Path) -> str:
    """SHA-256 in hexadecimal; the hub gives the same for its files."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
