"""One value of a COCO file, as exports write it: what it means, or None where it has no one meaning."""

import re
from collections.abc import Iterable
from itertools import chain
from typing import Any

import numpy as np

LARGEST = 1e15  # of a number; an area has to fit into float32
LARGEST_SIDE = 2**20  # pixels
_INTEGER = re.compile(r"[+-]?[0-9]{1,19}(\.0*)?")
_APART = re.compile(r"[\s,;]+")


def as_key(value: Any) -> int | str | None:
    """An id: an integer of 64 bits, which may be written as 7.0 or "7"; else a text, which is a name."""
    if type(value) is float and value.is_integer():
        value = int(value)
    if type(value) is str:
        if not _INTEGER.fullmatch(value.strip()):
            return value.strip() or None
        value = int(value.strip().partition(".")[0])
    return value if type(value) is int and -(2**63) <= value < 2**63 else None


def as_number(value: Any) -> float | None:
    """A finite number, which may be written as text."""
    if type(value) is str:
        try:
            value = float(value)
        except ValueError:
            return None
    return float(value) if type(value) in (int, float) and -LARGEST <= value <= LARGEST else None


def as_side(value: Any) -> int | None:
    """A whole number of pixels."""
    number = as_number(value)
    return int(number) if number is not None and number.is_integer() and 1 <= number <= LARGEST_SIDE else None


def as_flag(value: Any) -> bool | None:
    """`iscrowd`: 0 or 1, which may be written as a float, a text or null."""
    if type(value) is str:
        value = {"0": 0, "1": 1, "false": 0, "true": 1, "": 0}.get(value.strip().lower().removesuffix(".0"))
        return None if value is None else bool(value)
    if value is None:
        return False
    return bool(value) if type(value) in (int, float, bool) and value in (0, 1) else None


def as_name(value: Any) -> str | None:
    """The name of a class, which may be a number."""
    if type(value) in (int, float):
        return str(value) if -LARGEST <= value <= LARGEST else None
    return value if isinstance(value, str) and value.strip() else None


def as_box(value: Any) -> list[float] | None:
    """Four finite numbers, which may be written as text, each by itself or all in one."""
    if type(value) is str:
        value = [part for part in _APART.split(value.strip(" []()")) if part]
    if type(value) is not list or len(value) != 4:
        return None
    numbers = [number for number in map(as_number, value) if number is not None]
    return numbers if len(numbers) == 4 else None


def box_of_segments(segmentation: Any) -> list[float] | None:
    """(left, top, width, height) around polygons or a run-length mask; None where they enclose nothing."""
    if isinstance(segmentation, dict):
        return _box_of_runs(segmentation.get("counts"), segmentation.get("size"))
    if not isinstance(segmentation, list) or not segmentation:
        return None
    polygons: Iterable[Any] = [segmentation] if not isinstance(segmentation[0], list) else segmentation
    points = [_numbers(polygon) for polygon in polygons]
    if not all(len(polygon) >= 4 and len(polygon) % 2 == 0 for polygon in points):
        return None
    across, down = (list(chain.from_iterable(polygon[first::2] for polygon in points)) for first in (0, 1))
    left, top = min(across), min(down)
    width, height = max(across) - left, max(down) - top
    return [left, top, width, height] if width > 0 and height > 0 else None


def _numbers(polygon: Any) -> list[float]:
    """x0, y0, x1, y1, ...; [] where something else is among them."""
    numbers = [as_number(value) for value in polygon] if isinstance(polygon, list) else []
    return [] if None in numbers else [number for number in numbers if number is not None]


def _box_of_runs(counts: Any, size: Any) -> list[float] | None:
    """Runs of 0 and 1 by turns, down the columns, of a mask of (height, width); the mask itself is not made."""
    if not isinstance(size, list) or len(size) != 2 or None in (sides := [as_side(side) for side in size]):
        return None
    height, width = (side or 0 for side in sides)
    if isinstance(counts, str):
        counts = _unpacked(counts)
    if not isinstance(counts, list) or not all(type(run) is int and 0 <= run <= height * width for run in counts):
        return None
    ends = np.cumsum(np.array([0, *counts], dtype=np.float64))
    if ends[-1] > height * width:
        return None
    start, end = ends[1:-1:2].astype(np.int64), ends[2::2].astype(np.int64)
    start, end = start[end > start], end[end > start]
    if not len(start):
        return None
    first, last = start // height, (end - 1) // height
    inner = first == last  # a run that goes on in the next column touches the upper and the lower edge
    top = np.where(inner, start % height, 0).min()
    bottom = np.where(inner, (end - 1) % height + 1, height).max()
    return [float(first.min()), float(top), float(last.max() + 1 - first.min()), float(bottom - top)]


def _unpacked(text: str) -> list[int] | None:
    """COCO's compressed runs: five bits a character, lowest first; from the fourth run on the difference to the one
    two before."""
    runs: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 60:
            return None
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (1 << shift) if bits & 16 else 0
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    return None if shift else runs


def is_sound(numbers: np.ndarray) -> np.ndarray:
    """Which of the numbers are finite and of a size that float32 holds."""
    return np.abs(numbers) <= LARGEST
