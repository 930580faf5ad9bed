"""The preprocessing that weights came with."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from regard.data import Preprocessing
from regard.errors import RegardError
from regard.files import expanded
from regard.reading import read_json
from regard.weights import LOCAL, chosen_pretrained, pretrained


def came_with(weights: str, *, channels: int) -> Preprocessing | None:
    """How images were prepared when the weights were trained, whatever their size; None where nothing says it.

    A name of the catalogue says it, and a run, or another folder with a metadata.json. RegardError for one that is
    damaged.
    """
    if chosen_pretrained(weights) is not None:
        return preprocessing_of(weights, img_size=(1, 1), channels=channels)
    file = expanded(weights.removeprefix(LOCAL)) / "metadata.json"
    if not file.is_file():
        return None
    metadata = read_json(file)
    table = metadata.get("preprocessing") if isinstance(metadata, Mapping) else None
    if not isinstance(table, Mapping) or not isinstance(table.get("mean"), list):
        return None
    keys = ("mean", "std", "interpolation", "crop_fraction")
    said: dict[str, Any] = {"interpolation": "bilinear", "crop_fraction": 1.0}
    said |= {key: table[key] for key in keys if key in table}
    try:
        found = Preprocessing.from_dict({**said, "img_size": [1, 1], "channels": len(said["mean"])})
    except RegardError as error:
        raise RegardError(f"{file}: preprocessing: {str(error).removeprefix('preprocessing: ')}") from None
    return _of_channels(found, channels)


def preprocessing_of(name: str, *, img_size: tuple[int, int], channels: int) -> Preprocessing:
    """The preprocessing of a catalogue entry for images of `img_size`; grey gets the colours' average mean and std."""
    entry = pretrained(name)
    found = Preprocessing(
        img_size=img_size,
        channels=len(entry.mean),
        mean=entry.mean,
        std=entry.std,
        interpolation=entry.interpolation,
        crop_fraction=entry.crop_fraction,
    )
    return _of_channels(found, channels)


def _of_channels(found: Preprocessing, channels: int) -> Preprocessing:
    """For another number of channels each gets the average."""
    if channels == found.channels:
        return found
    mean, std = ((sum(values) / len(values),) * channels for values in (found.mean, found.std))
    return replace(found, channels=channels, mean=mean, std=std)
