"""The preprocessing that pretrained weights came with."""

from regard.data import Preprocessing
from regard.weights import pretrained


def preprocessing_of(name: str, *, img_size: tuple[int, int], channels: int) -> Preprocessing:
    """The preprocessing of a catalogue entry for images of `img_size`; grey gets the colours' average mean and std."""
    entry = pretrained(name)
    grey = channels != len(entry.mean)
    return Preprocessing(
        img_size=img_size,
        channels=channels,
        mean=(sum(entry.mean) / len(entry.mean),) if grey else entry.mean,
        std=(sum(entry.std) / len(entry.std),) if grey else entry.std,
        interpolation=entry.interpolation,
        crop_fraction=entry.crop_fraction,
    )
