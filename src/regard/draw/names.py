"""Names of classes, files and runs, as a page or a picture can hold them."""

import re

from regard.files import printable

# Control characters, those that turn the direction of the text behind them, and two that are no characters at all.
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufffe\uffff]")
_BREAKS = re.compile("[\t\n\u2028\u2029]")


def readable(text: str) -> str:
    """Text for a page: a character that cannot be seen becomes U+FFFD, and what is not UTF-8 is written as \\udcff."""
    return _UNSEEN.sub("\ufffd", printable(text))


def in_one_line(text: str, longest: int | None = None) -> str:
    """Text for a picture: as for a page, without line breaks and tabs, and cut to `longest` letters."""
    line = _BREAKS.sub(" ", readable(text))
    return line if longest is None or len(line) <= longest else line[: longest - 1] + "…"
