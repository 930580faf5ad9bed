"""One image file -> one uint8 tensor, whatever the mode, depth, orientation or transparency it was stored with.

Files come from anywhere: only the formats listed here are opened, by content; sizes are looked at before pixels are
decoded; and whatever goes wrong is one `BadImage`.
"""

import ctypes
import logging
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.util import find_spec
from io import BufferedReader, FileIO, IOBase
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from threading import RLock
from typing import IO, Any, Literal, cast

from jaxtyping import UInt8
from PIL import ExifTags, Image, UnidentifiedImageError, _imaging
from torch import Tensor

from regard.data.images.pixels import (
    AS_STORED,
    DEEP_MODES,
    LARGEST,
    MAX_MEGAPIXELS,
    Decoding,
    from_pil,
    largest_value,
    require_channels,
    scale_down,
)
from regard.data.images.walk import HEIF_EXTENSIONS, image_endings
from regard.errors import RegardError, one_line

# Pillow would also open formats that run other programs (a .png that is PostScript inside starts Ghostscript).
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "DIB", "TIFF", "WEBP", "PPM", "JPEG2000", "AVIF", "MPO", "HEIF")

# What happens at an image that cannot be read: an error, or it is left out and listed.
OnBadImage = Literal["stop", "skip"]

ImageFile = str | Path | IOBase

BYTES_A_PIXEL = 16  # of a file, at most: its text and its further frames would fill the memory just as well
MOST_MEASURED = 1000  # deep files that are decoded to find the depth that they use

# So that what Pillow logs of a damaged file does not reach stderr where nobody asked for a log.
logging.getLogger("PIL").addHandler(logging.NullHandler())
_pillow_limit = RLock()


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


def read_image(
    file: ImageFile, channels: int, decoding: Decoding = AS_STORED
) -> UInt8[Tensor, "channels height width"]:
    """Decode a file: upright (EXIF), 8 bits, without transparency, as `from_pil` says. Raises BadImage.

    file: a path, or a binary file that is open and can seek. Of several frames or pages it is the first.
    """
    require_channels(channels)
    with _open(file, decoding) as image:
        if decoding.integer_white < LARGEST and _is_deep_colour(image):
            image.load()
            with _open(file, decoding) as again:
                _read_lower_bytes(again)
                scale_down(image, again, decoding.integer_white)
        return from_pil(image, channels, decoding)


@dataclass(frozen=True)
class Header:
    """What is known of an image before its pixels are decoded."""

    size: tuple[int, int]
    """(height, width) as `read_image` will give them."""
    deep: bool
    """Whether a channel has more than 8 bits."""


def read_header(file: ImageFile, decoding: Decoding = AS_STORED) -> Header:
    """Raises BadImage."""
    with _open(file, decoding) as image:
        width, height = image.size
        # TIFF reports its size turned already; the others store a turn of 90 degrees as orientation 5 to 8.
        turned = "exif" in image.info and image.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
        return Header((width, height) if turned else (height, width), _is_deep(image))


def check_header(file: ImageFile, decoding: Decoding = AS_STORED) -> tuple[int, int]:
    """(height, width) as `read_image` will give them, without decoding the pixels. Raises BadImage."""
    return read_header(file, decoding).size


def has_deep_pixels(file: ImageFile) -> bool:
    """Whether the file holds more than 8 bits a channel. Raises BadImage."""
    return read_header(file).deep


def measure_decoding(files: Sequence[Path], max_megapixels: float = MAX_MEGAPIXELS) -> Decoding:
    """The decoding that suits a set: white is the largest value of the fewest bits (8, 10, 12, 14, 16) that they need.

    files: those with deep pixels; of more than `MOST_MEASURED`, so many are decoded, evenly spaced. Floats up to 1 have
    1 as white. Files that cannot be read are passed over.
    """
    decoding = Decoding(max_megapixels)
    number = min(len(files), MOST_MEASURED)
    integers: list[float] = []
    floats: list[float] = []
    for index in range(number):
        try:
            with _open(files[index * len(files) // number], decoding) as image:
                if _is_deep_colour(image):  # of which Pillow reads the upper bytes
                    integers.append(max(high for _, high in _extrema(image)) * 256.0 + 255)
                elif image.mode in DEEP_MODES:
                    image.load()
                    (floats if image.mode == "F" else integers).append(largest_value(image))
        except BadImage:
            continue
    if integers:
        decoding = replace(decoding, integer_white=_white_of(max(integers)))
    if floats:
        decoding = replace(decoding, float_white=1 if max(floats) <= 1 else _white_of(max(floats)))
    return decoding


def _white_of(largest: float) -> int:
    return next((2**bits - 1 for bits in (8, 10, 12, 14) if largest < 2**bits), LARGEST)


def _extrema(image: Image.Image) -> list[tuple[int, int]]:
    bands: Any = image.getextrema()
    return [bands] if len(image.getbands()) == 1 else list(bands)


@contextmanager
def _open(file: ImageFile, decoding: Decoding) -> Iterator[Image.Image]:
    """The opened file; whatever goes wrong while it is in use becomes BadImage, and Pillow's warnings are kept in."""
    name = str(getattr(file, "name", "image") if isinstance(file, IOBase) else file)
    try:
        with warnings.catch_warnings(), _lifted(decoding.max_megapixels):
            warnings.simplefilter("ignore")
            # Not by its name: Pillow would map an uncompressed TIFF into memory, and scramble one lying on its side.
            with _regular(file, decoding) as opened, Image.open(opened, formats=_formats()) as image:
                _require_size(image, decoding)
                yield image
    except (MemoryError, BadImage):
        raise
    except Exception as error:  # on damaged bytes Pillow's decoders raise whatever their parsing ran into
        raise BadImage(name, _reason(file, error)) from error


@lru_cache(maxsize=1)
def _formats() -> tuple[str, ...]:
    """Those of `FORMATS` that this Pillow can read."""
    if find_spec("pillow_heif"):
        import pillow_heif

        pillow_heif.register_heif_opener()
    Image.init()
    with suppress(OSError, AttributeError):  # libtiff prints what is wrong with a file, without saying which
        ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler(None)
    return tuple(name for name in FORMATS if name in Image.OPEN)


@contextmanager
def _lifted(max_megapixels: float) -> Iterator[None]:
    """Within, Pillow's own limit of pixels does not count where ours was set above its default."""
    if max_megapixels <= MAX_MEGAPIXELS:
        yield
        return
    with _pillow_limit:  # a variable of Pillow's module: one thread at a time
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


@contextmanager
def _regular(file: ImageFile, decoding: Decoding) -> Iterator[IO[bytes]]:
    """The file, open; a pipe or a device would be waited for, or read, without end."""
    if isinstance(file, IOBase):
        yield cast("IO[bytes]", file)
        return
    status = Path(file).stat()
    if not S_ISREG(status.st_mode):
        raise RegardError("is a folder, not a file" if S_ISDIR(status.st_mode) else "is no regular file")
    most = max(BYTES_A_PIXEL * decoding.max_megapixels, 64)
    if status.st_size > most * 1e6:
        raise RegardError(f"too large: {status.st_size / 1e6:,.0f} MB; {_limit(decoding)}, in at most {most:,.0f} MB")
    with _Bounded(FileIO(file), status.st_size) as opened:
        yield opened


class _Bounded(BufferedReader):
    """A damaged length in a file asks for gigabytes, which Python would allocate before it reads."""

    def __init__(self, raw: FileIO, length: int) -> None:
        super().__init__(raw)
        self._length = length

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(size if size is None else min(size, self._length))


def _require_size(image: Image.Image, decoding: Decoding) -> None:
    width, height = image.size
    if min(width, height) < 1:
        raise RegardError("has no pixels")
    if width * height / 1e6 > decoding.max_megapixels:
        raise RegardError(f"too large: {width} × {height} pixels; {_limit(decoding)}")


def _limit(decoding: Decoding) -> str:
    return f"up to {decoding.max_megapixels:g} megapixels are read (data.max_megapixels, predict --max-megapixels)"


def _is_deep(image: Image.Image) -> bool:
    return image.mode in DEEP_MODES or _is_deep_colour(image)


def _is_deep_colour(image: Image.Image) -> bool:
    """Whether an image that is not loaded yet has colours of 16 bits, of which Pillow reads the upper bytes."""
    tiles: Any = getattr(image, "tile", ())
    return image.mode not in DEEP_MODES and any(";16" in _raw_mode(tile) for tile in tiles)


def _raw_mode(tile: Any) -> str:
    """How the file's bytes become Pillow's."""
    args = tile[3]
    first = args[0] if isinstance(args, tuple) and args else args
    return first if isinstance(first, str) else ""


def _read_lower_bytes(image: Image.Image) -> None:
    """Lets an image of 16-bit colours, not loaded yet, load the lower bytes: as if they were in the other order."""
    other = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
    opened: Any = image
    for number, tile in enumerate(opened.tile):
        raw, args = _raw_mode(tile), tile[3]
        # Grey with alpha in one pixel of four bytes: read as if those were red, green, blue, alpha.
        swapped = "RGBA" if raw.startswith("LA;16") else raw[:-1] + other[raw[-1]]
        opened.tile[number] = tile._replace(args=(swapped, *args[1:]) if isinstance(args, tuple) else swapped)
    image.load()
    if raw.startswith("LA;16"):
        grey, alpha = image.getchannel("G"), image.getchannel("A")
        image.paste(Image.merge("RGBA", (grey, grey, grey, alpha)))


def _reason(file: ImageFile, error: Exception) -> str:
    """One line for what Pillow raised."""
    if isinstance(error, UnidentifiedImageError):
        is_empty = not isinstance(file, IOBase) and not Path(file).stat().st_size
        if is_empty:
            return "the file is empty"
        if not isinstance(file, IOBase) and Path(file).suffix.lower() in HEIF_EXTENSIONS - image_endings():
            return "photographs of telephones are read with pip install 'regard[heif]'"
        return "not an image, or of a format that is not read"
    if isinstance(error, Image.DecompressionBombError):
        return f"too large: {one_line(error)}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return one_line(error)
