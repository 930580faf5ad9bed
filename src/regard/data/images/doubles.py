"""Files with the same bytes: found without reading most files, and kept on one side of a split."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from stat import S_ISREG

from regard.data.images.digests import digest_of_file
from regard.data.images.files import BadImage

PROBE = 4096  # bytes from the middle of a file: of photographs no two are alike there


def doubles(files: Sequence[Path]) -> list[list[int]]:
    """The indices of files with the same bytes, in groups of two or more; groups and indices are sorted."""
    return _same(files, lambda group: len(group) > 1)


def shared(train: Sequence[Path], val: Sequence[Path]) -> list[tuple[int, int]]:
    """(index in `val`, index in `train`) of each held-out file with the bytes of a file that is trained on."""
    start = len(train)
    groups = _same([*train, *val], lambda group: min(group) < start <= max(group))
    return sorted((index - start, group[0]) for group in groups for index in group if index >= start)


def kept_together(
    train: Sequence[int],
    val: Sequence[int],
    groups: Sequence[Sequence[int]],
    labels: Sequence[int] | None = None,
) -> tuple[list[int], list[int]]:
    """A split in which no group is on both sides: it moves to the side of its first index. Both sides are sorted.

    labels: every class that was trained on still is. Where nothing would be left on one side, the last images that can
    be spared move there; where all images are copies of one, the split stays as it is, and a check of the data says so.
    """
    whole, held_out = {*train, *val}, set(val)
    for group in groups:
        if group[0] in held_out:
            held_out.update(group)
        else:
            held_out.difference_update(group)
    if held_out == set(val):
        return sorted(train), sorted(val)
    doubled = {index: group for group in groups for index in group}
    classes = [0] * (max(whole) + 1) if labels is None else labels
    lost = {classes[index] for index in train} - {classes[index] for index in whole - held_out}
    for label in sorted(lost):
        if label not in {classes[index] for index in whole - held_out}:
            first = next(index for index in sorted(held_out) if classes[index] == label)
            held_out.difference_update(doubled.get(first, [first]))
    for index in sorted(whole, reverse=True):
        unit, kept = set(doubled.get(index, [index])), whole - held_out
        if not held_out and {classes[i] for i in unit} <= {classes[i] for i in kept - unit}:
            held_out.update(unit)
    if not held_out or held_out == whole:
        return sorted(train), sorted(val)
    return sorted(whole - held_out), sorted(held_out)


def _same(files: Sequence[Path], wanted: Callable[[list[int]], bool]) -> list[list[int]]:
    """Groups of files with the same bytes: by size, then by a probe, then by all bytes; only `wanted` ones go on."""
    groups = [list(range(len(files)))]
    for key in (_size, _probe, _digest):
        finer: list[list[int]] = []
        for group in groups:
            parts: defaultdict[Hashable, list[int]] = defaultdict(list)
            for index in group:
                value = key(files[index])
                if value is not None:
                    parts[value].append(index)
            finer += [part for part in parts.values() if wanted(part)]
        groups = finer
    return sorted(groups)


def _size(file: Path) -> int | None:
    """None for what is missing, empty or no regular file."""
    try:
        status = file.stat()
    except (OSError, ValueError):
        return None
    return status.st_size or None if S_ISREG(status.st_mode) else None


def _probe(file: Path) -> bytes | None:
    try:
        with file.open("rb") as opened:
            opened.seek(max(file.stat().st_size - PROBE, 0) // 2)
            return opened.read(PROBE)
    except OSError:
        return None


def _digest(file: Path) -> str | None:
    try:
        return digest_of_file(file)
    except BadImage:
        return None
