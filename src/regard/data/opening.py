"""From a data address to images, pairs of texts, or text."""

import os
from pathlib import Path

from regard.data.addresses import parse_address_of
from regard.data.digits import open_digits
from regard.data.folders import open_folder
from regard.data.images import OnBadImage, require_channels
from regard.data.numbers import open_numbers
from regard.data.pairs import OnBadLine, TextPairs, open_pair_lines
from regard.data.sources import ImageClasses
from regard.data.text import TextData, open_pydoc, open_text_files
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
    parsed = parse_address_of("images", address)
    if parsed.kind == "digits":
        return open_digits(channels, val_fraction, split_seed)
    if parsed.kind == "folder":
        return open_folder(Path(parsed.location), channels, val_fraction, split_seed, on_bad_image)
    return open_torchvision(parsed.location, channels, val_fraction, split_seed, root or default_root())


def open_pairs(
    address: str, *, val_fraction: float = 0.1, split_seed: int = 0, on_bad_line: OnBadLine = "stop"
) -> TextPairs:
    """Open the pairs of texts behind an address, for sequence to sequence.

    address: see `regard.data.KINDS`.
    val_fraction, split_seed: how a validation part is split off where the data has none of its own. No number of the
    validation part is trained on in any language, and no source of it with any target.
    on_bad_line: whether an unreadable line of a file is an error, or left out and listed in `skipped`.
    Raises RegardError.
    """
    parsed = parse_address_of("pairs of texts", address)
    if parsed.kind == "numbers":
        return open_numbers(val_fraction, split_seed)
    return open_pair_lines(Path(parsed.location), val_fraction, split_seed, on_bad_line)


def open_text(address: str, *, val_fraction: float = 0.1) -> TextData:
    """Open the text behind an address, for models of the next token; its last `val_fraction` is held out.

    address: see `regard.data.KINDS`. Raises RegardError.
    """
    parsed = parse_address_of("text", address)
    if parsed.kind == "pydoc":
        return open_pydoc(val_fraction)
    return open_text_files(Path(parsed.location), val_fraction)


def default_root() -> Path:
    """Where torchvision's sets are kept: `$XDG_CACHE_HOME/regard/torchvision`, else `~/.cache/regard/torchvision`."""
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "regard" / "torchvision"
