"""`pydoc` and `text:PATH`: running text for models of the next token."""

import math
import re
from dataclasses import dataclass, replace
from pathlib import Path

from regard.data.images.walk import files_below
from regard.data.text.pairs import LARGEST_FILE, OnBadLine, require_fraction
from regard.errors import RegardError, first_of
from regard.files import expanded
from regard.reading import read_bytes

TEXT_EXTENSIONS = (".txt", ".md")
BETWEEN = "\n\n"  # what stands between topics, paragraphs and files


@dataclass(frozen=True)
class TextData:
    """A text to train on, and the text after it, which is held out."""

    address: str
    train: str
    val: str
    skipped: tuple[str, ...] = ()
    """The files that were left out because they cannot be read, each with the reason."""


def open_pydoc(val_fraction: float) -> TextData:
    """Python's own reference manual as `help()` shows it: topics in the order of their names, split at the end.

    Topics quote one another: a paragraph that came up before, however indented, is left out, or held-out text would
    have been trained on. Every version of Python carries the text of its own version.
    """
    from pydoc_data.topics import topics

    seen: set[str] = set()
    kept = []
    for _, topic in sorted(topics.items()):
        for paragraph in paragraphs(topic):
            words = " ".join(paragraph.split())
            if words not in seen:
                seen.add(words)
                kept.append(paragraph)
    return split_text("pydoc", BETWEEN.join(kept), val_fraction)


def open_text_files(path: Path, val_fraction: float | None, on_bad_line: OnBadLine = "stop") -> TextData:
    """Open a file, or all *.txt and *.md in a folder at any depth, in the order of their paths.

    A file that cannot be read is an error, or left out and listed in `skipped`. Raises RegardError.
    """
    address = f"text:{path}"
    path = expanded(path)
    if path.is_dir():
        files = _text_files(path)
        if not files:
            raise RegardError(f"{address}: no text in this folder; known endings: {' '.join(TEXT_EXTENSIONS)}")
    elif path.exists():
        files = [path]
    else:
        raise RegardError(f"{address}: no such file or folder; expected a text, or a folder of texts")
    texts, bad = [], []
    for file in files:
        try:
            texts.append(_read(file))
        except RegardError as error:
            bad.append(str(error))
    if bad and (on_bad_line == "stop" or not texts):
        more = "; --set data.on_bad_line=skip leaves such files out" if len(files) > 1 else ""
        raise RegardError(f"{first_of(bad, 'more such files')}{more}")
    return replace(split_text(address, BETWEEN.join(texts), val_fraction), skipped=tuple(bad))


def split_text(address: str, text: str, val_fraction: float | None) -> TextData:
    """Hold out the end of a text: `val_fraction` of its characters, rounded up; for None nothing. RegardError."""
    if val_fraction is not None:
        require_fraction(val_fraction, address)
    if not text.strip():
        raise RegardError(f"{address}: the text is empty")
    if val_fraction is None:
        return TextData(address, text, "")
    cut = len(text) - math.ceil(len(text) * val_fraction)
    if cut < 1:
        raise RegardError(f"{address}: the text is too short to hold out {val_fraction} of it ({len(text)} characters)")
    return TextData(address, text[:cut], text[cut:])


def paragraphs(text: str) -> list[str]:
    """A text, cut at its empty lines."""
    return [paragraph.strip("\n") for paragraph in re.split(r"\n(?:[^\S\n]*\n)+", text) if paragraph.strip()]


def _read(path: Path) -> str:
    content = read_bytes(path, most=LARGEST_FILE)
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise RegardError(f"{path}: is not UTF-8: byte {error.start} of the file") from error
    return text.removeprefix("\ufeff").replace("\r\n", "\n")


def _text_files(folder: Path) -> list[Path]:
    return sorted(file for ending in TEXT_EXTENSIONS for file in files_below(folder, ending))
