"""The object that a COCO file holds, and its three lists, which are read key by key."""

import gc
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import compress, count
from pathlib import Path
from reprlib import repr as shortened
from typing import Any

import numpy as np

from regard.data.boxes.coco_values import as_key
from regard.data.repairs import Repairs
from regard.errors import RegardError, one_line
from regard.reading import require_file

LARGEST_FILE = 2 * 2**30  # bytes; a file is read whole, and takes some ten times as much memory
LISTS = "images, annotations and categories"
ABSENT = object()  # in the place of a key that an entry lacks

Key = int | str
"""An id as it is written: a number, or a text that is none."""


@contextmanager
def collecting_no_cycles() -> Iterator[None]:
    """Millions of values without a cycle are read in a third of the time if Python does not look for cycles in them."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def read_json(path: Path) -> dict[str, Any]:
    """The object that a file holds. RegardError for what is no JSON, no object, too large or no regular file."""
    try:
        size = require_file(path)
        if size > LARGEST_FILE:
            raise RegardError(
                f"{path}: is a file of {size / 2**30:.1f} GiB; up to {LARGEST_FILE / 2**30:g} GiB are read: leave out "
                "the segmentations, which are not used, or cut it into parts"
            )
        whole = json.loads(path.read_bytes())
    except RegardError:
        raise
    except ValueError as error:  # of JSON, of UTF-8, or a number of thousands of digits
        raise RegardError(f"{path}: is not JSON: {one_line(error)}") from None
    except OSError as error:
        raise RegardError(f"{path}: cannot be read: {error.strerror}") from None
    except RecursionError:
        raise RegardError(f"{path}: is not COCO's: its values are nested too deeply") from None
    if not isinstance(whole, dict):
        raise RegardError(
            f"{path}: holds a {type(whole).__name__}; COCO's files hold an object of three lists, {LISTS}"
        )
    return whole


class Table:
    """One of the file's lists, which is read key by key; `kept` is False for entries that are left out."""

    def __init__(self, path: Path, label: str, whole: dict[str, Any], name: str, repairs: Repairs) -> None:
        entries = whole[name]
        if not isinstance(entries, list):
            raise RegardError(f"{path}: {name} is {shortened(entries)}; it must be a list")
        self.label, self.name, self.repairs = label, name, repairs
        self.rows = list(range(len(entries)))
        if not set(map(type, entries)) <= {dict}:
            self.rows = [row for row, entry in enumerate(entries) if type(entry) is dict]
            for row, entry in enumerate(entries):
                if type(entry) is not dict:
                    repairs.leave_out(f"{name} are no objects", f"{label} {name}[{row}] = {shortened(entry)}")
            entries = [entries[row] for row in self.rows]
        self.entries: list[dict[str, Any]] = entries
        self.kept = np.ones(len(entries), dtype=bool)
        self.keys_of_own: list[Key | None] = []
        self.numbers: dict[str, int] = {}
        """What ids that are texts are numbered as."""

    def values(self, key: str) -> list[Any]:
        """ABSENT where an entry lacks the key."""
        return [entry.get(key, ABSENT) for entry in self.entries]

    def heal(self, kind: str, index: int, key: str) -> None:
        self.repairs.heal(kind, f"{self.label} {self.name}[{self.rows[index]}].{key}")

    def leave_out(self, kind: str, index: int, key: str) -> None:
        """An entry that is left out already is not counted again."""
        if self.kept[index]:
            self.kept[index] = False
            value = self.entries[index].get(key, ABSENT)
            stated = "" if value is ABSENT else f".{key} = {shortened(value)}"
            self.repairs.leave_out(kind, f"{self.label} {self.name}[{self.rows[index]}]{stated}")

    def keys(self, key: str) -> list[Key | None]:
        values = self.values(key)
        if set(map(type, values)) == {int} and min(values) >= -(2**63) and max(values) < 2**63:
            return values
        keys = [as_key(value) for value in values]
        for index, (value, found) in enumerate(zip(values, keys, strict=True)):
            if type(value) is str and type(found) is int:
                self.heal(f"{self.name} have a number for {key} that is written as text", index, key)
        return keys

    def own_ids(self) -> list[int]:
        """The entries' ids. Texts are numbered; so are annotations without an id, which nothing refers to."""
        self.keys_of_own = self.keys("id")
        if set(map(type, self.keys_of_own)) == {int}:
            return self.keys_of_own  # type: ignore[return-value]
        used = {key for key in self.keys_of_own if type(key) is int}
        fresh = (number for number in count(1) if number not in used)
        ids = []
        for index, key in enumerate(self.keys_of_own):
            if type(key) is int:
                ids.append(key)
            elif type(key) is str:
                if key not in self.numbers:
                    self.numbers[key] = next(fresh)
                ids.append(self.numbers[key])
                self.heal(f"{self.name} have a text for id, and are numbered", index, "id")
            elif self.name == "annotations":
                ids.append(next(fresh))
                self.heal("annotations have no id, and are numbered", index, "id")
            else:
                ids.append(0)
                self.leave_out(f"{self.name} have no id that can be read", index, "id")
        return ids

    def settle(self, ids: list[int], values: Sequence[Any], what: str) -> None:
        """Entries of one id are one if they have the same value; where not, nobody knows which is meant."""
        if len(set(ids)) == len(ids):
            return
        first: dict[int, int] = {}
        ambiguous = set()
        for index in np.flatnonzero(self.kept).tolist():
            other = first.setdefault(ids[index], index)
            if other != index and values[other] == values[index]:
                self.kept[index] = False
                self.heal(f"{self.name} are listed twice", index, "id")
            elif other != index:
                ambiguous.add(ids[index])
        for index in np.flatnonzero(self.kept).tolist() if ambiguous else ():
            if ids[index] in ambiguous:
                self.leave_out(f"{self.name} share their id with other {what}", index, "id")

    def references(self, key: str, other: "Table") -> list[int]:
        """The ids that entries of another table have. What refers to an entry that is left out goes with it."""
        keys = self.keys(key)
        kept = set(compress(other.keys_of_own, other.kept))
        gone = set(compress(other.keys_of_own, ~other.kept)) - kept - {None}
        if set(map(type, keys)) == {int} and not gone:
            return keys  # type: ignore[return-value]
        ids = []
        for index, found in enumerate(keys):
            ids.append(found if type(found) is int else other.numbers.get(found, 0) if type(found) is str else 0)
            if found in gone:
                self.kept[index] = False
            elif found is None:
                self.leave_out(f"annotations have no {key} that can be read", index, key)
            elif type(found) is str and found not in kept:
                self.leave_out(f"annotations have the {key} of no entry", index, key)
        return ids

    def kept_rows(self) -> list[int]:
        return self.rows if self.kept.all() else list(compress(self.rows, self.kept))
