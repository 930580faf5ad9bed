"""A matplotlib figure for names of any kind, which shows itself in a notebook. Importing this imports matplotlib."""

import warnings
from typing import Any

import matplotlib.figure
from matplotlib import rc_context
from matplotlib.text import Text

from regard.draw.png import png_bytes

# Letters that the font lacks become boxes in a PNG; in an SVG the reader's browser draws them.
_HARMLESS = ("Glyph .* missing from", "Matplotlib currently does not support")


class Figure(matplotlib.figure.Figure):
    """matplotlib's figure, in which no text is mathematics: a class "$5-$10" stands as it is, on every axis and legend.

    Hence the numbers of a logarithmic axis, which matplotlib writes as mathematics, need a formatter of their own.
    A notebook shows it as PNG without pyplot.
    """

    def draw(self, renderer: Any) -> None:
        # Some texts exist already, and others (numbers of an axis) are made while the figure is drawn.
        for text in self.findobj(Text):
            text.set_parse_math(False)
            text.set_usetex(False)
        with rc_context({"text.parse_math": False, "text.usetex": False}), warnings.catch_warnings():
            for message in _HARMLESS:
                warnings.filterwarnings("ignore", message)
            super().draw(renderer)

    def _repr_png_(self) -> bytes:
        return png_bytes(self)
