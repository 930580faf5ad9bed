"""An image of Pillow -> 8 bits, grey or RGB, without transparency: block by block, in bounded memory."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import ExifTags, Image, ImageOps
from torch import Tensor

from regard.errors import RegardError, one_line

MAX_MEGAPIXELS = 64.0

# Pillow's modes with more than 8 bits a pixel, all of them grey; colours of 16 bits it reads as their upper bytes.
DEEP_MODES = frozenset({"I;16", "I;16L", "I;16B", "I;16N", "I", "F"})

BLOCK = 2**20  # pixels that are converted at a time
SATURATED = 4  # times `white`: values beyond are no light that was too bright, but another scale
LARGEST = 65535  # of a pixel


@dataclass(frozen=True)
class Decoding:
    """How image files become 8 bits. Predictions take what the training took: it is stored with the run.

    max_megapixels: an image with more pixels is not decoded. integer_white, float_white: the values of deep pixels that
    become 255. A camera's 12 bits in a file of 16 have 4095 as white. None: each image of floats is taken as it looks,
    in 0..1 where no value is above 1, and else in 0..255.
    """

    max_megapixels: float = MAX_MEGAPIXELS
    integer_white: int = LARGEST
    float_white: int | None = None

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value is not None and not 0 < value < float("inf"):
                raise RegardError(f"{name} is {value}; it must be a number above 0")

    def to_dict(self) -> dict[str, float | None]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Any) -> "Decoding":
        """The inverse of `to_dict`; what is not there keeps its default. Raises RegardError."""
        known = {field.name for field in fields(cls)}
        if not isinstance(values, Mapping) or not set(values) <= known:
            raise RegardError(f"decoding is {values!r}; it must be a table of {', '.join(sorted(known))}")
        for name, value in values.items():
            if type(value) not in (int, float) and not (name == "float_white" and value is None):
                raise RegardError(f"{name} is {value!r}; it must be a number above 0")
        return cls(**values)

    def __str__(self) -> str:
        floats = "" if self.float_white is None else f", and of floats the value {self.float_white}"
        return f"the value {self.integer_white} becomes white{floats}"


AS_STORED = Decoding()
ANY_SIZE = Decoding(max_megapixels=1e9)  # for headers alone


def from_pil(
    image: Image.Image, channels: int, decoding: Decoding = AS_STORED
) -> UInt8[Tensor, "channels height width"]:
    """An image of Pillow as 0..255, grey (`channels` 1, colours by luma) or RGB (3, grey repeated).

    It is turned as its EXIF orientation says. 16-bit grey is scaled by 255 / `decoding.integer_white` (Pillow itself
    would clip it at 255), 32-bit integers likewise, floats by 255 / `decoding.float_white`; values above white become
    white. Transparency is laid over white. Of several frames this is the current one.
    Raises RegardError for another number of channels, for an image that cannot be decoded, for negative values and NaN,
    and for values far above white.
    """
    require_channels(channels)
    try:
        image.load()
    except Exception as error:  # on damaged bytes Pillow's decoders raise whatever their parsing ran into
        raise RegardError(f"the image cannot be decoded: {one_line(error)}") from error
    image = _upright(image)
    width, height = image.size
    white = _white(image, decoding) if image.mode in DEEP_MODES else 0
    pixels = np.empty((channels, height, width), np.uint8)
    for block, place in _blocks(image):
        pixels[:, *place] = _to_8_bits(block, white) if white else _flat(block, channels)
    return torch.from_numpy(pixels)


def require_channels(channels: int) -> None:
    """Raise RegardError unless an image can have that many channels."""
    if channels not in (1, 3):
        raise RegardError(f"channels is {channels}; an image can be read with 1 (grey) or 3 (RGB)")


def largest_value(image: Image.Image) -> float:
    """The largest pixel of a deep image; RegardError for negative values and NaN."""
    largest = 0.0
    for block, _ in _blocks(image):
        values = np.asarray(block)
        low, high = values.min(), values.max()
        if not low >= 0:  # also where it is NaN
            raise RegardError(f"{image.mode!r} pixels from {low:g} to {high:g}; expected 0 to {LARGEST}")
        largest = max(largest, float(high))
    return largest


def scale_down(high: Image.Image, low: Image.Image, white: int) -> None:
    """Colours of 16 bits, given as images of their upper and of their lower bytes, become 8 bits in `high`."""
    for block, place in _blocks(high):
        top, left = place[0].start, place[1].start
        lower = low.crop((left, top, left + block.width, top + block.height))
        values = np.asarray(block).astype(np.uint16) * 256 + np.asarray(lower)
        high.paste(Image.fromarray(_scaled(values, white), high.mode), (left, top))


def _blocks(image: Image.Image) -> Iterator[tuple[Image.Image, tuple[slice, slice]]]:
    """Parts of at most `BLOCK` pixels, each with its place (rows, columns)."""
    width, height = image.size
    across = min(width, BLOCK)
    down = min(height, max(BLOCK // across, 1))
    if (across, down) == (width, height):
        yield image, (slice(0, height), slice(0, width))
        return
    for top in range(0, height, down):
        for left in range(0, width, across):
            bottom, right = min(top + down, height), min(left + across, width)
            yield image.crop((left, top, right, bottom)), (slice(top, bottom), slice(left, right))


def _upright(image: Image.Image) -> Image.Image:
    try:
        if image.getexif().get(ExifTags.Base.Orientation, 1) == 1:
            return image
        return ImageOps.exif_transpose(image)
    except Exception:  # the pixels are loaded, so it is the EXIF block that is damaged: the image stays as stored
        return image


def _white(image: Image.Image, decoding: Decoding) -> int:
    largest = largest_value(image)
    if image.mode != "F":
        white, limit = decoding.integer_white, min(decoding.integer_white * SATURATED, LARGEST)
    elif decoding.float_white is None:
        # Floats beyond 1 are taken as 0..255: an image in 0..255 that never exceeds 1 would be black anyway.
        white = limit = 1 if largest <= 1 else 255
    else:
        white, limit = decoding.float_white, decoding.float_white * SATURATED
    if largest > limit:
        told = "" if white == limit else f" ({white} is white in the data of this run)"
        raise RegardError(f"{image.mode!r} pixels up to {largest:g}; expected 0 to {limit}{told}")
    return white


def _to_8_bits(image: Image.Image, white: int) -> np.ndarray:
    return _scaled(np.asarray(image), white)


def _scaled(values: np.ndarray, white: int) -> np.ndarray:
    return np.minimum(np.rint(values.astype(np.float64) * (255 / white)), 255).astype(np.uint8)


def _flat(image: Image.Image, channels: int) -> np.ndarray:
    """(channels, height, width) of an image of 8 bits."""
    if image.has_transparency_data:
        image = _over_white(image)
    if image.mode not in ("1", "L"):
        image = image.convert("RGB")  # some modes turn grey only by way of it
    pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"))
    return pixels.reshape(*pixels.shape[:2], channels).transpose(2, 0, 1)


def _over_white(image: Image.Image) -> Image.Image:
    if image.mode == "La":  # Pillow turns premultiplied grey into nothing but LA
        image = image.convert("LA")
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
