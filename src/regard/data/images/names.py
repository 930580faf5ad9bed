"""Names of classes as people write them."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from unicodedata import normalize


def normal(name: str) -> str:
    """The name in Unicode's form NFC: macOS writes an accent as a character of its own, others do not."""
    return normalize("NFC", name)


def alike(names: Iterable[str]) -> Sequence[Sequence[str]]:
    """The groups of different names that differ only by case or by spaces."""
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for name in sorted(set(names)):
        groups[" ".join(normal(name).casefold().split())].append(name)
    return [group for group in groups.values() if len(group) > 1]


def told_alike(names: Iterable[str]) -> str:
    """ "'Cat' and 'cat' differ only by case or spaces", or ""."""
    groups = [" and ".join(map(repr, group)) for group in alike(names)]
    return f"{'; '.join(groups)} differ only by case or spaces" if groups else ""
