"""Figures as PNG, in a file or in an HTML page; images in a page, as PNG or JPEG."""

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from jaxtyping import UInt8
from torch import Tensor

from regard.files import write_whole

if TYPE_CHECKING:
    import matplotlib.figure
    from PIL import Image

# Pixels of the longer side: a larger image is shrunk to it, so that a report of photographs stays small.
THUMBNAIL = 112
SMALL = 40  # pixels of the longer side up to which an image is shown pixel by pixel


def png_bytes(figure: "matplotlib.figure.Figure", dpi: int = 150) -> bytes:
    """The figure as the contents of a PNG file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_figure(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def save_png(figure: "matplotlib.figure.Figure", path: Path, dpi: int = 150) -> None:
    """Writes a PNG file, whole or not at all. RegardError where it cannot be written."""
    png = png_bytes(figure, dpi)
    write_whole(path, lambda beside: beside.write_bytes(png))


def figure_uri(figure: "matplotlib.figure.Figure", dpi: int = 150) -> str:
    """A data: address for `<img src>` that holds the figure as PNG."""
    return _data_uri(png_bytes(figure, dpi), "png")


def image_uri(image: UInt8[Tensor, "channels height width"]) -> str:
    """A data: address that holds a grey or colour image: as PNG, or as JPEG if it had to be shrunk to `THUMBNAIL`."""
    from PIL import Image

    pixels = image.permute(1, 2, 0)
    picture = Image.fromarray(pixels.squeeze(2).numpy() if image.shape[0] == 1 else pixels.contiguous().numpy())
    if max(picture.size) <= THUMBNAIL:
        return picture_uri(picture, "png")
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    return picture_uri(picture, "jpeg")


def thumbnail_uri(image: UInt8[Tensor, "channels height width"], side: int = THUMBNAIL) -> str:
    """A data: address that holds a grey or colour image for a page of many: as JPEG, at most `side` pixels long.

    One of `SMALL` pixels or less is a PNG, since each of its pixels is seen.
    """
    from PIL import Image

    pixels = image.cpu().expand(3, -1, -1).permute(1, 2, 0).contiguous()
    picture = Image.fromarray(pixels.numpy())
    return picture_uri(picture, "png") if max(picture.size) <= SMALL else small_uri(picture, side)


def small_uri(picture: "Image.Image", side: int) -> str:
    """A data: address that holds the picture as JPEG, its longer side at most so many pixels."""
    picture = picture.convert("RGB")
    picture.thumbnail((side, side))
    return picture_uri(picture, "jpeg")


def picture_uri(picture: "Image.Image", kind: Literal["png", "jpeg"]) -> str:
    """A data: address that holds the picture as it is."""
    buffer = io.BytesIO()
    picture.save(buffer, format=kind)
    return _data_uri(buffer.getvalue(), kind)


def _data_uri(contents: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(contents).decode()}"
