"""What reaches the terminal: names as text that cannot act on it, in any encoding; no word of other libraries' own."""

import json
import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

# What would move the cursor, set colours or titles, break the line or turn the direction of writing; and what is no
# character at all, as in names that are not UTF-8.
_ACTING = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_ACTING_IN_TEXT = re.compile(f"(?![\n\t]){_ACTING.pattern}")


def plain(text: object) -> str:
    """A line of text; what would act on a terminal is written as Python writes it: \\x1b, \\n, \\u202e, \\udcff."""
    return _ACTING.sub(_escaped, str(text))


def plain_text(text: str) -> str:
    """The same of a text of several lines."""
    return _ACTING_IN_TEXT.sub(_escaped, text)


def say(*lines: object, err: bool = False) -> None:
    """Prints lines, on stderr with `err`."""
    write("".join(f"{plain(line)}\n" for line in lines), err=err)


def write(text: str, *, err: bool = False) -> None:
    """Prints a text as it is."""
    stream = sys.stderr if err else sys.stdout
    if stream is not None:  # a process may be started without
        stream.write(text)
        stream.flush()


def write_json(values: Any) -> None:
    """Prints JSON that is valid in the encoding of stdout, whatever names are in it."""
    from regard.files import json_text

    utf8 = (getattr(sys.stdout, "encoding", None) or "utf-8").lower().replace("-", "") == "utf8"
    text = json_text(values, indent=2)
    if not utf8:
        text = json.dumps(json.loads(text), indent=2)
    write(_ACTING_IN_TEXT.sub(lambda found: f"\\u{ord(found[0]):04x}", text) + "\n")


def write_content(text: str) -> None:
    """Prints a table or a model's text: as it is into a file or another program, as plain text on a terminal."""
    write(plain_text(text) if sys.stdout is not None and sys.stdout.isatty() else text)


@contextmanager
def quiet_and_encodable() -> Iterator[None]:
    """Within, nothing that is printed fails for its encoding, and warnings and logs are one line each."""
    before = warnings.formatwarning, logging.lastResort
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    warnings.formatwarning = lambda message, *_, **__: f"warning: {plain(message)}\n"
    logging.lastResort = _OneLine(logging.WARNING)
    hub = logging.getLogger("huggingface_hub")
    level = hub.level
    hub.setLevel(logging.ERROR)  # it tells each of its retries; what came of them is told by us
    try:
        yield
    finally:
        warnings.formatwarning, logging.lastResort = before
        hub.setLevel(level)


class _OneLine(logging.StreamHandler[Any]):
    """What is logged and nobody handles: the message on stderr, without a traceback."""

    def __init__(self, level: int) -> None:
        logging.Handler.__init__(self, level)

    @property
    def stream(self) -> Any:
        return sys.stderr

    def format(self, record: logging.LogRecord) -> str:
        return plain(record.getMessage())


def flush_output() -> None:
    """OSError where stdout cannot be written, now and not after all has ended, when it would be a traceback."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        drop_output()
        raise


def drop_output() -> None:
    """Nobody reads stdout any more, or it cannot be written: what is left of it must not fail again at the exit."""
    with suppress(OSError, ValueError, AttributeError):
        handle = os.open(os.devnull, os.O_WRONLY)
        os.dup2(handle, sys.stdout.fileno())
        os.close(handle)


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode("ascii")
