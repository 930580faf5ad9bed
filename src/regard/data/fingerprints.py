"""What data are, without their pixels: names and labels of both parts, so that a run can tell them from others."""

import hashlib
import os
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from regard.data.addresses import parse_address
from regard.data.boxes.sources import DetectionData, DetectionSource, Objects
from regard.data.images.labels import label_text
from regard.data.images.sources import ImageClasses, ImageSource
from regard.data.text.corpus import TextData
from regard.data.text.numbers import NumberPairs
from regard.data.text.pairs import PairSource, TextPairs
from regard.errors import first_few
from regard.files import expanded, json_text, printable

AnyData = ImageClasses | DetectionData | TextPairs | TextData


@dataclass(frozen=True)
class Part:
    """The samples of one part of the data.

    labels: by name, in their order: the class of an image ("cat;dog" where it has several), else a hash of the boxes or
    of the pair. None for running
    text, and for pairs that the package makes itself: there the digest says all.
    """

    samples: int
    digest: str
    labels: dict[str, int | str] | None = None


@dataclass(frozen=True)
class Fingerprint:
    class_names: tuple[str, ...]
    train: Part
    val: Part

    @property
    def parts(self) -> dict[str, Part]:
        return {"train": self.train, "val": self.val}

    def named(self) -> dict[str, str]:
        """The class, or the hash of the boxes or of the pair, of each sample of both parts, by name."""
        labels = {**(self.train.labels or {}), **(self.val.labels or {})}
        return {name: self.class_names[x] if isinstance(x, int) else x for name, x in labels.items()}

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Fingerprint":
        return cls(tuple(values["class_names"]), Part(**values["train"]), Part(**values["val"]))


def fingerprint(data: AnyData) -> Fingerprint:
    """Names are relative to the data's address, so that data that were moved have the same fingerprint."""
    if isinstance(data, TextData):
        return Fingerprint((), *(Part(len(text), _digest(text)) for text in (data.train, data.val)))
    root = data_root(data.address)
    if isinstance(data, TextPairs):
        return Fingerprint((), *(_pairs(source, root) for source in (data.train, data.val)))
    return Fingerprint(data.class_names, *(_part(source, root, data.class_names) for source in (data.train, data.val)))


def data_root(address: str) -> str:
    """What names of samples begin with and a fingerprint leaves out; "" for data without a place."""
    parsed = parse_address(address)
    if parsed.kind == "torchvision" or not parsed.location:
        return ""
    path = expanded(parsed.location)
    if parsed.kind == "csv":
        return os.path.normpath(path if path.is_dir() else path.parent)
    return str(path)


def relative_name(name: str, root: str) -> str:
    """The name of a sample without the place of the data: "/data/pets/cat/1.jpg" -> "cat/1.jpg"."""
    inside = bool(root) and name.startswith(root) and name[len(root) : len(root) + 1] in tuple("/\\:")
    return name[len(root) :].lstrip("/\\") if inside else name


def differences(old: Fingerprint, new: Fingerprint) -> list[str]:
    """What differs: a text for each kind of difference, with numbers and the first names; none where all is equal."""
    if old == new:
        return []
    found = []
    if old.class_names != new.class_names:
        gone = [name for name in old.class_names if name not in new.class_names]
        come = [name for name in new.class_names if name not in old.class_names]
        found.append(f"classes: {_sides(gone, come) or 'in another order'}")
    parts = (("training", old.train, new.train), ("held-out", old.val, new.val))
    if any(part.labels is None for _, *both in parts for part in both):
        found += [
            f"{what} part: {before.samples:,} -> {after.samples:,} samples"
            + ("" if before.samples != after.samples else ", other content")
            for what, before, after in parts
            if before != after
        ]
        return found
    a, b = old.named(), new.named()
    other = [name for name, label in a.items() if name in b and b[name] != label]
    sides = _sides([name for name in a if name not in b], [name for name in b if name not in a], other)
    counts = [f"{what} part {before.samples:,} -> {after.samples:,}" for what, before, after in parts]
    found.append(f"{', '.join(counts)}: {sides or 'the same samples in another order, or in the other part'}")
    return [printable(text) for text in found]


def _sides(gone: list[str], come: list[str], relabelled: Sequence[str] = ()) -> str:
    """Both sides of a difference."""
    parts = (("no more", gone), ("new", come), ("with other labels", relabelled))
    return "; ".join(f"{len(names):,} {what} ({first_few(names)})" for what, names in parts if names)


def _part(source: ImageSource | DetectionSource, root: str, class_names: Sequence[str]) -> Part:
    if isinstance(source, ImageSource):
        labels: list[int | str] = [
            label if isinstance(label, int) else label_text(label, class_names) for label in source.labels
        ]
    else:
        labels = [_of_objects(objects) for objects in source.objects]
    names = [relative_name(source.name(index), root) for index in range(len(source))]
    return _labelled(dict(zip(names, labels, strict=True)), len(source))


def _pairs(source: PairSource, root: str) -> Part:
    if isinstance(source, NumberPairs):  # half a million pairs, which follow from the numbers
        return Part(len(source), _digest(repr(source.numbers)))
    labels: dict[str, int | str] = {
        relative_name(source.name(index), root): pair_hash(*source.pair(index)) for index in range(len(source))
    }
    return _labelled(labels, len(source))


def _labelled(labels: dict[str, int | str], samples: int) -> Part:
    return Part(samples, _digest(json_text(list(labels.items()))), labels)


def pair_hash(source: str, target: str) -> str:
    return _digest(f"{source}\t{target}")


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def _of_objects(objects: Objects) -> str:
    tensors = (objects.boxes_xyxy, objects.labels, objects.areas, objects.crowd)
    crc = 0
    for tensor in tensors:
        crc = zlib.crc32(tensor.contiguous().numpy().data, crc) if len(tensor) else crc
    return f"{crc:08x}"
