"""What a run is measured on: the samples that it held out when it was trained, by their names, in the data of now."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regard.api.names import find, unknown_source
from regard.errors import RegardError, first_few
from regard.files import expanded, printable

if TYPE_CHECKING:
    from regard.data import DetectionData, DetectionSource, ImageClasses, ImageSource, PairSource, TextData, TextPairs
    from regard.recipes import DataSection, DetectionDataSection
    from regard.training import Origin, Run

_log = logging.getLogger("regard")


def own_run(run: str | Path, address: str, recipe: str | Path | None, settings: Sequence[str]) -> "Run | None":
    """The run, where it is to be measured on what it held out: on its own data, opened as for its training."""
    from regard.recipes import parse_settings
    from regard.training import CHANGEABLE, Run

    named = find(run)
    if named.folder is None or recipe is not None or parse_settings(settings).keys() - set(CHANGEABLE):
        return None
    found = Run(named.folder)
    return found if found.recipe_file.exists() and found.recipe().data.address == address else None


def data_options(
    run: str | Path, data: str | None, recipe: str | Path | None = None, settings: Sequence[str] = ()
) -> "DataSection":
    """How a run's data are opened; a pretrained model, or one that was saved, has none of its own."""
    from regard.api.training import data_section
    from regard.export import is_exported
    from regard.recipes import parse_settings
    from regard.training import Run, most_workers

    named = find(run)
    if is_exported(run) and recipe is None:
        own = _exported_data(Path(run), settings)
        if own is not None:
            return own
    elif named.entry is None and recipe is None:
        if named.folder is None or not named.folder.is_dir():
            raise unknown_source(named.name)
        opened = Run(named.folder)
        if opened.recipe_file.exists() or not opened.metadata_file.exists():
            options = Run.open(opened.path).recipe(parse_settings(settings)).data
            return options.model_copy(update={"num_workers": min(options.num_workers, most_workers())})
    if data is None and recipe is None:
        raise RegardError(f"{run}: is no run and has no data of its own; name some with --data")
    return data_section(data, recipe, settings)


def _exported_data(file: Path, settings: Sequence[str]) -> "DataSection | None":
    """How a file's run opened its data, by the recipe in the file; None for a file without one."""
    from tempfile import TemporaryDirectory

    from regard.export import open_file
    from regard.recipes import parse_settings, read_recipe
    from regard.training import most_workers

    text = open_file(expanded(file)).contract.get("recipe")
    if not isinstance(text, str):
        return None
    with TemporaryDirectory() as folder:
        beside = Path(folder) / "recipe.toml"
        beside.write_text(text, encoding="utf-8")
        try:
            options = read_recipe(beside, parse_settings(settings), of_run=True).data
        except RegardError as error:
            raise RegardError(f"{file}: its recipe: {error}") from None
    return options.model_copy(update={"num_workers": min(options.num_workers, most_workers())})


def held_out_images(run: "Run", images: "ImageClasses") -> "ImageSource":
    from regard.data import Joined, Selected, label_text

    origin = _origin(run, images, images.address)
    if origin is None or origin.data.val.labels is None:
        return images.val
    before, now = origin.data.class_names, images.class_names
    sources = [images.val, images.train]
    labels = [label_text(label, now) for source in sources for label in source.labels]
    kept = {x: before[label] if isinstance(label, int) else label for x, label in origin.data.val.labels.items()}
    places = _places(run, origin, images.address, kept, sources, labels)
    return images.val if places == list(range(len(images.val))) else Selected(Joined(sources), places)


def held_out_boxes(run: "Run", data: "DetectionData", options: "DetectionDataSection") -> "DetectionSource":
    """Of a recipe that is validated on what it trains on, that part."""
    from regard.data import JoinedDetectionSource, SelectedDetectionSource, fingerprint
    from regard.tasks import splits_of

    _, own = splits_of(data, options)
    origin = _origin(run, data, data.address)
    if origin is None or origin.data.val.labels is None or origin.data.train.labels is None:
        return own
    sources = [data.val, data.train]
    kept = origin.data.val.labels
    if options.validate_on == "train":
        sources.reverse()
        kept = dict(list(origin.data.train.labels.items())[: options.first])
    parts = fingerprint(data)
    by_name: dict[str, Any] = {**(parts.train.labels or {}), **(parts.val.labels or {})}
    places = _places(run, origin, data.address, kept, sources, by_name)
    same = places == list(range(len(own)))
    return own if same else SelectedDetectionSource(JoinedDetectionSource(sources), places)


def held_out_pairs(run: "Run", pairs: "TextPairs") -> "PairSource":
    """Pairs are known by their texts: lines of a file move."""
    from regard.data import SelectedPairs, pair_hash

    origin = _origin(run, pairs, pairs.address)
    if origin is None or origin.data.val.labels is None or origin.data.train.labels is None:
        return pairs.val
    whole = pairs.whole
    kept, trained_on = set(origin.data.val.labels.values()), set(origin.data.train.labels.values())
    found = [pair_hash(*whole.pair(index)) for index in range(len(whole))]
    names = {label: name for name, label in origin.data.val.labels.items()}
    gone = [names[label] for label in kept - set(found)]
    new = [whole.name(index) for index, label in enumerate(found) if label not in kept | trained_on]
    _say(run, pairs.address, len(origin.data.val.labels), sorted(gone, key=str), new, "pairs")
    places = [index for index, label in enumerate(found) if label in kept]
    _require_some(run, pairs.address, places)
    own = list(range(len(pairs.train), len(whole)))
    return pairs.val if places == own else SelectedPairs(whole, places)


def held_out_text(run: "Run", text: "TextData") -> str:
    """Text that has grown at its end holds the held-out part where it was."""
    from dataclasses import replace

    from regard.data import fingerprint

    origin = _origin(run, text, text.address)
    if origin is None or origin.data.val == fingerprint(text).val:
        return text.val
    whole, start, length = text.train + text.val, origin.data.train.samples, origin.data.val.samples
    moved = fingerprint(replace(text, train=whole[:start], val=whole[start : start + length]))
    if moved.val == origin.data.val:
        more = len(whole) - start - length
        _log.warning("%s: measured on its held-out %s characters; %s after them are new", run.path, length, more)
        return whole[start : start + length]
    _log.warning(
        "%s: the text of %s is not the one that it was trained on: what is measured may have been trained on",
        run.path,
        printable(text.address),
    )
    return text.val


def _origin(run: "Run", data: Any, address: str) -> "Origin | None":
    """What the run began with, if it says so; else a word, unless the held-out part is known to be the same."""
    from regard.data import fingerprint
    from regard.training import origin_of

    origin = origin_of(run)
    if origin is None:
        stated = run.metadata().get("data")
        val = stated.get("val") if isinstance(stated, Mapping) else None
        if not isinstance(val, Mapping) or val.get("digest") != fingerprint(data).val.digest:
            reason = "its states, which name them, are gone" if val else "an older version made it"
            _log.warning(
                "%s: it cannot be told which samples of %s it held out (%s): measured on those that its recipe's "
                "split holds out now",
                run.path,
                printable(address),
                reason,
            )
    return origin


def _places(
    run: "Run",
    origin: "Origin",
    address: str,
    kept: Mapping[str, Any],
    sources: "Sequence[ImageSource] | Sequence[DetectionSource]",
    labels: Sequence[Any] | Mapping[str, Any],
) -> list[int]:
    """Where the kept names are in the joined sources. What is gone, new, or has another label now is said."""
    from regard.data import data_root, relative_name

    root = data_root(address)
    names = [relative_name(source.name(index), root) for source in sources for index in range(len(source))]
    place: dict[str, int] = {}
    for index, name in enumerate(names):
        place.setdefault(name, index)
    known = {**(origin.data.train.labels or {}), **(origin.data.val.labels or {})}
    gone = [name for name in kept if name not in place]
    new = [name for name in place if name not in known]
    other = [
        name
        for name, label in kept.items()
        if name in place and label != (labels[name] if isinstance(labels, Mapping) else labels[place[name]])
    ]
    _say(run, address, len(kept), gone, new, "images", other)
    places = [place[name] for name in kept if name in place]
    _require_some(run, address, places)
    return places


def _say(
    run: "Run", address: str, count: int, gone: list[str], new: list[str], unit: str, relabelled: Sequence[str] = ()
) -> None:
    told = [
        f"{len(names):,} {what} ({first_few(names)})"
        for names, what in (
            (gone, f"of the {count:,} are gone"),
            (list(relabelled), "have other labels now"),
            (new, "are new, and not measured"),
        )
        if names
    ]
    if told:
        text = f"{run.path}: measured on the {unit} of {address} that it held out in its training: {'; '.join(told)}"
        _log.warning("%s", printable(text))


def _require_some(run: "Run", address: str, places: Sequence[int]) -> None:
    if not places:
        raise RegardError(
            f"{run.path}: nothing that it held out in its training is in {printable(address)} any more; "
            "--data names where the data are, or others"
        )
