"""Smaller pictures, for a page that must not be large."""

import base64
import io
import re

PICTURE = re.compile(r"data:image/(?:png|jpeg);base64,\s*([A-Za-z0-9+/=\s]+)")
LARGEST = 240
"""Pixels of the longer side."""
LIGHT = 4_000
"""Letters of a picture that is left as it is: of digits, for instance."""


def lighter(html: str, keep: str = "") -> str:
    """The same with each picture at most `LARGEST` pixels long, as JPEG, where that is smaller; `keep` stays."""
    parts = html.split(keep) if keep else [html]
    return keep.join(PICTURE.sub(_smaller, part) for part in parts)


def _smaller(found: re.Match[str]) -> str:
    if len(found[0]) <= LIGHT:
        return found[0]
    from PIL import Image

    picture = Image.open(io.BytesIO(base64.b64decode(found[1])), formats=("png", "jpeg"))
    if picture.mode in ("RGBA", "LA", "PA") and picture.getchannel("A").getextrema() != (255, 255):
        return found[0]  # JPEG knows no transparency
    small = picture.convert("RGB")
    small.thumbnail((LARGEST, LARGEST))
    buffer = io.BytesIO()
    small.save(buffer, "jpeg", quality=72)
    written = f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return written if len(written) < len(found[0]) else found[0]
