"""Errors that are meant for the person at the keyboard: one line that says what, where, and what is allowed."""

import difflib
from collections.abc import Iterable


class RegardError(ValueError):
    """What the user gave cannot be served. The command line prints the message alone and exits with status 1."""


def unknown(what: str, name: object, known: Iterable[str], where: str = "") -> RegardError:
    """The error for a name that is not in `known`: it offers the nearest name and lists all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    prefix = f"{where}: " if where else ""
    return RegardError(f"{prefix}unknown {what} {str(name)!r}{hint} Known: {', '.join(names)}")
