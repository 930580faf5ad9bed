"""One image file -> one uint8 tensor, whatever the mode, depth, orientation or transparency it was stored with."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from regard.data.images.walk import IMAGE_EXTENSIONS as IMAGE_EXTENSIONS
from regard.data.images.walk import image_files as image_files
from regard.errors import RegardError, one_line

# What happens at an image that cannot be read: an error, or it is left out and listed.
OnBadImage = Literal["stop", "skip"]

# Pillow's modes with more than 8 bits a pixel, all of them grey.
_DEEP_MODES = frozenset({"I;16", "I;16L", "I;16B", "I;16N", "I", "F"})


class BadImage(RegardError):  # noqa: N818 (a caller reads: except BadImage)
    """An image that cannot be read: `path` says which (or names the sample), `reason` why."""

    def __init__(self, path: str, reason: str | None = None) -> None:
        # A DataLoader carries a worker's exception over as its printed traceback, and pickle as its message: then
        # there is one argument, and what we need is on its last line.
        if reason is None:
            path, _, reason = path.strip().rpartition("BadImage: ")[2].partition(": ")
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


def read_image(path: str | Path, channels: int) -> UInt8[Tensor, "channels height width"]:
    """Decode a file: upright (EXIF), 8 bits, without transparency, as `from_pil` says. Raises BadImage."""
    require_channels(channels)
    with _open(path) as image:
        return from_pil(image, channels)


def from_pil(image: Image.Image, channels: int) -> UInt8[Tensor, "channels height width"]:
    """An image of Pillow as 0..255, grey (`channels` 1, colours by luma) or RGB (3, grey repeated).

    It is turned as its EXIF orientation says. 16-bit grey is scaled by 255/65535 (Pillow itself would clip it at 255),
    32-bit integers likewise, floats by 255 when they lie in [0, 1]; transparency is laid over white.
    Raises RegardError for another number of channels and for 32-bit values outside of these ranges.
    """
    require_channels(channels)
    image.load()
    image = _upright(image)
    if image.mode in _DEEP_MODES:
        image = _to_8_bits(image)
    elif image.has_transparency_data:
        image = _over_white(image)
    if image.mode not in ("1", "L"):
        image = image.convert("RGB")  # some modes turn grey only by way of it
    pixels = np.array(image.convert("L" if channels == 1 else "RGB"))
    return torch.from_numpy(pixels.reshape(*pixels.shape[:2], channels)).permute(2, 0, 1).contiguous()


def check_header(path: str | Path) -> tuple[int, int]:
    """(height, width) as `read_image` will give them, without decoding the pixels. Raises BadImage."""
    with _open(path) as image:
        width, height = image.size
        # TIFF reports its size turned already; the others store a turn of 90 degrees as orientation 5 to 8.
        turned = "exif" in image.info and image.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
        return (width, height) if turned else (height, width)


def has_deep_pixels(path: str | Path) -> bool:
    """Whether the file holds grey with more than 8 bits. Raises BadImage."""
    with _open(path) as image:
        return image.mode in _DEEP_MODES


def require_channels(channels: int) -> None:
    """Raise RegardError unless an image can have that many channels."""
    if channels not in (1, 3):
        raise RegardError(f"channels is {channels}; an image can be read with 1 (grey) or 3 (RGB)")


@contextmanager
def _open(path: str | Path) -> Iterator[Image.Image]:
    """The opened file; whatever goes wrong while it is in use becomes BadImage, and Pillow's warnings are kept in."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Not by its name: Pillow would map an uncompressed TIFF into memory, and scramble one lying on its side.
            with Path(path).open("rb") as file, Image.open(file) as image:
                yield image
    except MemoryError:
        raise
    except Exception as error:  # on damaged bytes Pillow's decoders raise whatever their parsing ran into
        raise BadImage(str(path), _reason(path, error)) from error


def _reason(path: str | Path, error: Exception) -> str:
    """One line for what Pillow raised."""
    if isinstance(error, UnidentifiedImageError):
        return "not an image that Pillow can read" if Path(path).stat().st_size else "the file is empty"
    if isinstance(error, Image.DecompressionBombError):
        return f"too large: {error}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return one_line(error)


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # the pixels are loaded, so it is the EXIF block that is damaged: the image stays as stored
        return image


def _to_8_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.float64)
    low, high = values.min(), values.max()
    # Floats beyond 1 are taken as 0..255: an image in 0..255 that never exceeds 1 would be black anyway.
    limit = 65535 if image.mode != "F" else 1 if high <= 1 else 255
    if not (low >= 0 and high <= limit):  # also where they are NaN
        raise RegardError(f"{image.mode!r} pixels from {low:g} to {high:g}; expected 0 to {limit}")
    return Image.fromarray(np.rint(values * (255 / limit)).astype(np.uint8))


def _over_white(image: Image.Image) -> Image.Image:
    if image.mode == "La":  # Pillow turns premultiplied grey into nothing but LA
        image = image.convert("LA")
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
