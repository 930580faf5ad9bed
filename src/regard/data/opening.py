"""From a data address to images."""

import os
from pathlib import Path

from regard.data.addresses import parse_address
from regard.data.digits import open_digits
from regard.data.folders import open_folder
from regard.data.images import OnBadImage, require_channels
from regard.data.sources import ImageClasses
from regard.data.torchvision_sets import open_torchvision


def open_images(
    address: str,
    *,
    channels: int,
    val_fraction: float = 0.25,
    split_seed: int = 0,
    on_bad_image: OnBadImage = "stop",
    root: Path | None = None,
) -> ImageClasses:
    """Open the images behind an address, for classification.

    address: see `regard.data.KINDS`.
    channels: 1 (grey) or 3 (RGB).
    val_fraction, split_seed: how a validation part is split off where the data has none of its own.
    on_bad_image: whether an unreadable file in a folder is an error, or left out and listed in `train.skipped`.
    root: where torchvision's sets are kept; by default the user's cache folder.
    Raises RegardError.
    """
    require_channels(channels)
    parsed = parse_address(address)
    if parsed.kind == "digits":
        return open_digits(channels, val_fraction, split_seed)
    if parsed.kind == "folder":
        return open_folder(Path(parsed.location), channels, val_fraction, split_seed, on_bad_image)
    return open_torchvision(parsed.location, channels, val_fraction, split_seed, root or default_root())


def default_root() -> Path:
    """Where torchvision's sets are kept: `$XDG_CACHE_HOME/regard/torchvision`, else `~/.cache/regard/torchvision`."""
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "regard" / "torchvision"
