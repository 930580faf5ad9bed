"""The image files below a folder: one set of rules for training, checking, predicting and explaining."""

import os
from collections import Counter, deque
from importlib.util import find_spec
from pathlib import Path

from regard.errors import RegardError, first_few
from regard.files import printable

# The endings of image files that Pillow alone reads; `image_endings` has those of pillow-heif too.
IMAGE_EXTENSIONS = frozenset(
    {".avif", ".bmp", ".dib", ".gif", ".jp2", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
    | {".jfif", ".jpe", ".jpeg", ".jpg"}
)
HEIF_EXTENSIONS = frozenset((".heic", ".heif"))
# Those that may hold more than 8 bits a channel after Pillow has read them.
DEEP_EXTENSIONS = frozenset((".jp2", ".pgm", ".png", ".ppm", ".tif", ".tiff"))

# What systems and tools put beside files, in lower case; and every name that begins with a dot, such as `._a.jpg`.
_NOT_OURS = frozenset(("__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir", "$recycle.bin", "icon\r"))


def image_endings() -> frozenset[str]:
    """The endings of files that can be read, in lower case; .heic and .heif where pillow-heif is installed."""
    return IMAGE_EXTENSIONS | HEIF_EXTENSIONS if find_spec("pillow_heif") else IMAGE_EXTENSIONS


def left_out(name: str) -> bool:
    """Whether a file or folder of this name belongs to a system or a tool: hidden, `__MACOSX`, `Thumbs.db`, ..."""
    return name.startswith(".") or name.lower() in _NOT_OURS


def is_image_file(path: Path) -> bool:
    """Whether a path is a regular file (or a link to one) with the ending of an image, and not `left_out`."""
    return path.suffix.lower() in image_endings() and not left_out(path.name) and path.is_file()


def entries_of(folder: Path) -> list[Path]:
    """What lies in a folder. RegardError where it cannot be read."""
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise _unreadable(folder, error) from None


def _unreadable(folder: Path, error: OSError) -> RegardError:
    return RegardError(f"{folder}: the folder cannot be read: {error.strerror or error}")


def image_files(folder: Path) -> tuple[list[Path], Counter[str]]:
    """The images below a folder at any depth, sorted; and how many other files there are of each ending.

    What is `left_out` is in neither. Links are followed; a folder that can be reached in several ways is read once.
    Pipes, devices and links that lead nowhere count as other files. Raises RegardError for a folder that cannot be
    read.
    """
    endings = image_endings()
    images: list[Path] = []
    passed_over: Counter[str] = Counter()
    folders, visited = deque([folder]), set()
    while folders:
        parent = folders.popleft()
        try:
            status = parent.stat()
            if (status.st_dev, status.st_ino) in visited:
                continue
            visited.add((status.st_dev, status.st_ino))
            entries = sorted((entry for entry in os.scandir(parent) if not left_out(entry.name)), key=lambda e: e.name)
        except OSError as error:
            raise _unreadable(parent, error) from None
        for entry in entries:
            path = Path(entry.path)
            if path.is_dir() if entry.is_symlink() else entry.is_dir():
                # Folders before links to folders, so that images are found under their own names.
                folders.append(path) if entry.is_symlink() else folders.appendleft(path)
            elif path.suffix.lower() not in endings:
                passed_over[_kind(path.suffix.lower())] += 1
            elif path.is_file():
                images.append(path)
            else:
                why = "no regular files" if path.exists() else "links that lead nowhere"
                passed_over[f"{path.suffix.lower()} ({why})"] += 1
    return sorted(images), passed_over


def files_below(folder: Path, ending: str) -> list[Path]:
    """The files below a folder that have an ending, sorted; what belongs to a system or a tool is left out."""
    found: list[Path] = []
    visited: set[tuple[int, int]] = set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        status = Path(parent).stat()
        if (status.st_dev, status.st_ino) in visited:  # a link that leads back
            folders.clear()
            continue
        visited.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not left_out(name))
        found += [Path(parent, name) for name in names if not left_out(name) and name.lower().endswith(ending)]
    return sorted(found)


def passed_over_line(passed_over: Counter[str]) -> str:
    """ "35 files were passed over: 20 .heic (pip install pillow-heif), 15 .txt"; "" where there is none."""
    if not passed_over:
        return ""
    kinds = sorted(passed_over.items(), key=lambda item: (-item[1], item[0]))
    number = sum(passed_over.values())
    files = "1 file was" if number == 1 else f"{number} files were"
    return f"{files} passed over: {first_few([f'{count} {printable(kind)}' for kind, count in kinds], 6)}"


def _kind(ending: str) -> str:
    if ending in HEIF_EXTENSIONS:
        return f"{ending} (pip install pillow-heif)"
    if len(ending) > 12 or not ending.isprintable():
        return "of other endings"
    return ending or "without an ending"
