"""How the demo's page begins: its parts, the one that is being made, and a picture to look at meanwhile."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from regard import __version__
from regard.compare.page import render
from regard.files import write_whole


class Picture(NamedTuple):
    """A picture in a report, with its title and text."""

    title: str
    text: str
    uri: str
    alt: str
    """What is seen, in words."""
    verdict: str = ""
    """Whether the map in it is true, in a line."""


class Part(NamedTuple):
    """A part of the page."""

    title: str
    says: str
    """What it shows."""
    anchor: str
    """The id of its section."""


@dataclass(frozen=True)
class Opening:
    """The head of a page that grows part by part."""

    title: str
    parts: Sequence[Part]
    done: int = 0
    """How many of the parts are on the page, the first of them."""
    picture: Picture | None = None
    stopped: bool = False
    """Whether it ended before its last part."""
    lesson: str = ""
    """The address of the lesson, where it is there."""

    @property
    def grows(self) -> bool:
        """Whether a later page takes this one's place: it is read again by itself."""
        return not self.stopped and self.done < len(self.parts)

    def state(self, number: int) -> str:
        """Of a part that is not there, what becomes of it."""
        if number < self.done:
            return ""
        if self.stopped:
            return "not finished" if number == self.done else "not made"
        return "being made now" if number == self.done else "comes later"


def write_opening(path: Path, opening: Opening) -> None:
    """Writes the page before there is more to show than its head and its picture."""
    html = render("opening_page.html.j2", script=False, opening=opening, version=__version__)
    write_whole(path, lambda beside: beside.write_text(html, encoding="utf-8"))
