"""Whether a folder and a file can be run from: whoever may write them may run anything as this user."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path


def tells_owners() -> bool:
    """Whether this system says whose a file is; Windows does not, in this way."""
    return hasattr(os, "geteuid")


def why_not_private(path: Path) -> str | None:
    """None if `path`, a folder or a file, belongs to this user and nobody else can change it or put another in its
    place; else what is wrong, in a few words.

    That holds if its owner is this user, no other has the right to write it, it is no link, and each folder above it,
    and above what links on the way lead to, is this user's or root's and not open to others; in a folder with the
    sticky bit, as /tmp is, nobody can move what is another's. OSError where `path` does not exist. For a system that
    `tells_owners`.
    """
    me, of_path = os.geteuid(), path.lstat()
    if stat.S_ISLNK(of_path.st_mode):
        return f"{path} is a link"
    if of_path.st_uid != me:
        return f"{path} belongs to another user"
    if _open_to_others(of_path):
        return f"{path} can be written by others (chmod go-w makes it yours alone)"
    path.resolve(strict=True)  # no links in a circle
    for above in _way(path.absolute().parent):
        status = above.lstat()
        if status.st_uid not in (me, 0):
            return f"{above} belongs to another user"
        if not stat.S_ISLNK(status.st_mode) and _open_to_others(status) and not status.st_mode & stat.S_ISVTX:
            return f"{above} can be written by others"
    return None


def _open_to_others(status: os.stat_result) -> bool:
    return bool(status.st_mode & (stat.S_IWGRP | stat.S_IWOTH))


def _way(path: Path) -> Iterator[Path]:
    """Every folder and every link that decides where `path` leads."""
    for part in (path, *path.parents):
        yield part
        if part.is_symlink():
            yield from _way(part.parent / part.readlink())
