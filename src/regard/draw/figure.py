"""A matplotlib figure that shows itself in a notebook. Importing this file imports matplotlib."""

import matplotlib.figure

from regard.draw.png import png_bytes


class Figure(matplotlib.figure.Figure):
    """matplotlib's figure, which a notebook shows as PNG without pyplot."""

    def _repr_png_(self) -> bytes:
        return png_bytes(self)
