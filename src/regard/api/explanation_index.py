"""`index.html` beside the pictures of several images: each one small, with its words, as a link to its file."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

from regard import __version__
from regard.compare.page import render
from regard.draw.png import small_uri
from regard.errors import RegardError
from regard.explain.faithfulness import BEATS_BOTH
from regard.files import write_whole

if TYPE_CHECKING:
    import PIL.Image

NAME = "index.html"
SIDE = 480  # pixels of a small picture, at most


class Entry(NamedTuple):
    """A picture that was written, and what is said of it."""

    name: str
    href: str
    uri: str
    lines: Sequence[str]
    verdict: str


def require_free(folder: Path) -> None:
    """RegardError where the folder has an index.html that is somebody else's."""
    path = folder / NAME
    if path.is_file() and 'name="generator" content="regard ' not in path.read_text("utf-8", errors="replace"):
        raise RegardError(f"{path}: is there, and is not an index of explanations; name another folder with -o")


def entry(name: str, picture: Path, found: Any) -> Entry:
    """Of an `Explanation`, or of a `Picture` without a map, which was written to `picture`."""
    from PIL import Image

    from regard.explain import Explanation

    href = quote(picture.name)
    if not isinstance(found, Explanation):
        with Image.open(picture) as image:
            return Entry(name, href, shown_uri(image), (), "")
    judged = found.faithfulness
    lines = [line for line in (*found.caption[:1], found.verdict) if line]
    return Entry(name, href, shown_uri(found.overlay()), lines, "" if judged is None else judged.verdict)


def write_index(folder: Path, run: str, method: str, entries: Sequence[Entry], bad: Sequence[str]) -> Path:
    """Writes the index, and returns its path. bad: what is said of each image that could not be read."""
    verdicts = Counter(one.verdict for one in entries if one.verdict)
    counted = [f"{count} {_says(verdict, count)}" for verdict, count in verdicts.most_common()]
    html = render(
        "explanations.html.j2",
        script=False,
        version=__version__,
        run=run,
        method=method[:1].upper() + method[1:],
        entries=entries,
        summary=f"Beside chance and the centre, {', '.join(counted)}." if counted else "None is judged.",
        bad=bad,
    )
    path = folder / NAME
    write_whole(path, lambda beside: beside.write_text(html, encoding="utf-8"))
    return path


def _says(verdict: str, count: int) -> str:
    if verdict == BEATS_BOTH:
        return "beats both" if count == 1 else "beat both"
    return f"{'is' if count == 1 else 'are'} {verdict}"


def shown_uri(picture: "PIL.Image.Image") -> str:
    """A data: address of a picture of up to `SIDE` pixels; one of a few pixels is enlarged."""
    larger = SIDE // max(picture.size)
    if larger > 1:  # an image of a few pixels
        picture = picture.resize((picture.width * larger, picture.height * larger), resample=0)
    return small_uri(picture, SIDE)
