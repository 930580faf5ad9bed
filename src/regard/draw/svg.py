"""Figures as SVG inside an HTML page."""

import io
import re
import warnings
from hashlib import sha256
from typing import TYPE_CHECKING

from regard.draw.colours import INK

if TYPE_CHECKING:
    import matplotlib.figure


def inline_svg(figure: "matplotlib.figure.Figure", dpi: int = 110) -> str:
    """The figure as an `<svg>` element without a background; its lines and letters take the page's text colour.

    `dpi` is the resolution of images in it.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    buffer = io.StringIO()
    nothing: dict[str, None] = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with warnings.catch_warnings(), matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "regard"}):
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # the reader's browser may well have it
        FigureCanvasSVG(figure).print_figure(buffer, format="svg", dpi=dpi, facecolor="none", metadata=nothing)
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    # An id may occur only once in a page: ids without a reference are removed, the others get a prefix of this figure.
    referenced = set(re.findall(r'(?:href="|url\()#([^")]*)', text))
    text = re.sub(r' id="([^"]*)"', lambda found: found.group() if found.group(1) in referenced else "", text)
    prefix = sha256(text.encode()).hexdigest()[:8]
    return re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{prefix}-", text).strip()
