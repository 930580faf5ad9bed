"""A template and what it shows -> one HTML file that runs its own script and no other."""

import base64
from hashlib import sha256
from pathlib import Path
from typing import Any

from regard.draw.chart import STYLE_FILE as CHARTS
from regard.draw.names import readable
from regard.files import printable

HERE = Path(__file__).parent


def render(template: str, *, script: bool, **values: Any) -> str:
    """The page. Text in it is escaped, and what cannot be seen is written so that it can.

    Its policy allows the style (report.css and chart.css) and the script report.js by their hashes, and nothing else: a
    script that a name brought into the page would not run. Attributes may hold styles, since those of SVG do.
    """
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: readable(value) if type(value) is str else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style, marks, code = (
        file.read_text(encoding="utf-8") for file in (HERE / "report.css", CHARTS, HERE / "report.js")
    )
    style += marks
    policy = {
        "default-src": "'none'",
        "img-src": "data:",
        "style-src": "'unsafe-inline'",
        "style-src-elem": _hash(style),
        "script-src": _hash(code) if script else "'none'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    html = environment.get_template(template).render(
        **values,
        policy="; ".join(f"{name} {value}" for name, value in policy.items()),
        style=Markup(style),
        script=Markup(code) if script else "",
    )
    return printable(html)


def _hash(text: str) -> str:
    """As a Content-Security-Policy names what an element holds."""
    return f"'sha256-{base64.b64encode(sha256(text.encode()).digest()).decode()}'"
