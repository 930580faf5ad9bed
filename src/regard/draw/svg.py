"""Figures as SVG inside an HTML page."""

import io
import re
from hashlib import sha256
from html import escape
from typing import TYPE_CHECKING

from regard.draw.colours import INK

TAG = re.compile("<[^>]*>")
# What matplotlib gives each figure for the whole page around it. The page itself says it, for the lines of figures: its
# policy allows no other style.
STYLE = re.compile(r"<defs>\s*<style[^>]*>[^<]*</style>\s*</defs>")

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
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "regard"}):
        FigureCanvasSVG(figure).print_figure(buffer, format="svg", dpi=dpi, facecolor="none", metadata=nothing)
    text = buffer.getvalue()
    text = STYLE.sub("", text[text.index("<svg") :])
    # An id may occur only once in a page: ids without a reference are removed, the others get a prefix of this figure.
    # Only tags are looked at: a class may be called like an id, or like a colour.
    referenced = set(re.findall(r'(?:href="|url\()#([^")]*)', "".join(TAG.findall(text))))
    prefix = sha256(text.encode()).hexdigest()[:8]

    def of_page(tag: re.Match[str]) -> str:
        words = tag[0].replace(INK, "currentColor")
        words = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in referenced else "", words)
        return re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{prefix}-", words)

    return TAG.sub(of_page, text).strip()


def described(svg: str, title: str, description: str) -> str:
    """An `<svg>` element with a title, and a description that says in words what it shows."""
    name = sha256(svg.encode()).hexdigest()[:8]
    head, _, rest = svg.partition(">")
    labels = f' role="img" aria-labelledby="{name}-title {name}-about">'
    words = f'<title id="{name}-title">{escape(title)}</title><desc id="{name}-about">{escape(description)}</desc>'
    return f"{head}{labels}{words}{rest}"
