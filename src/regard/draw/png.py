"""Figures as PNG: in a file, or inline in a page."""

import base64
import io
import warnings
from pathlib import Path


def to_data_uri(figure: "matplotlib.figure.Figure", dpi: int = 150) -> str:
    """The PNG as an address that holds it, for `<img src>`."""
    return "data:image/png;base64," + base64.b64encode(png_bytes(figure, dpi)).decode()


def save_png(figure: "matplotlib.figure.Figure", path: Path, dpi: int = 150) -> None:
    """Writes a PNG file, whole or not at all. RegardError where it cannot be written."""
    from regard.files import write_whole

    png = png_bytes(figure, dpi)
    write_whole(path, lambda beside: beside.write_bytes(png))


def png_bytes(figure: "matplotlib.figure.Figure", dpi: int = 150) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # a title's letter becomes a box: no harm
        FigureCanvasAgg(figure).print_figure(buffer, format="png", dpi=dpi)
    return buffer.getvalue()
