"""What a data set calls its images and classes, so that what is found can be written under its ids."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from regard.data import open_detection
from regard.data.images.paths import common_tail
from regard.errors import RegardError, first_few
from regard.reading import read_json

Id = int | str
LARGEST_MB = 2048


@dataclass(frozen=True)
class DataIds:
    """The ids of a data set's images, by their paths, and of its classes, by their names."""

    where: str
    """What errors call the data."""
    paths: Sequence[str]
    image_ids: Sequence[Id]
    category_ids: Mapping[str, Id]
    _places: Mapping[str, list[tuple[int, tuple[str, ...]]]] = field(init=False, repr=False)
    """By a file's own name: the images that have it, and their whole paths."""

    def __post_init__(self) -> None:
        places = defaultdict(list)
        for index, path in enumerate(self.paths):
            parts = _parts(path)
            places[parts[-1]].append((index, parts))
        object.__setattr__(self, "_places", places)

    @classmethod
    def of_data(cls, address: str) -> "DataIds":
        """Of the images with boxes behind an address. Data that have no ids count their images from 1."""
        found = open_detection(address, val_fraction=None, on_bad_image="skip", on_bad_annotation="skip")
        sources = [found.train] if found.val is found.train else [found.train, found.val]
        return cls(
            address,
            [source.name(index) for source in sources for index in range(len(source))],
            [image_id for source in sources for image_id in source.image_ids],
            dict(zip(found.class_names, found.category_ids, strict=True)),
        )

    @classmethod
    def of_annotations(cls, file: Path) -> "DataIds":
        """Of one of COCO's annotation files, of which only the lists of images and categories are read."""
        whole = read_json(file, most=LARGEST_MB * 2**20)
        images, categories = (_named(whole, key, name, file) for key, name in _LISTS.items())
        entries = whole.get("annotations")
        used = {str(entry.get("category_id")) for entry in entries or () if isinstance(entry, dict)}
        # Of two categories of one name, one is often the root of all and has no object: the other counts.
        by_name = dict(sorted(categories, key=lambda named: str(named[1]) in used))
        return cls(str(file), [name for name, _ in images], [own for _, own in images], by_name)

    def of_files(self, files: Sequence[Path]) -> tuple[list[Id], list[str]]:
        """The id of each image file, and those of the files that have no more than their own name in common with it.

        A file is the image whose path ends as its own does, with as many folders as agree. RegardError for one that is
        no image of the data, or may be several, and for two that would be one or have the same id.
        """
        chosen = [self._index(file) for file in files]
        taken: dict[Id, Path] = {}
        for file, (index, _) in zip(files, chosen, strict=True):
            other = taken.setdefault(self.image_ids[index], file)
            if other is not file:
                raise RegardError(
                    f"{file}: {self.where} gives it the id {self.image_ids[index]}, which {other} has; "
                    "predict them one by one, or name one --annotations file"
                )
        by_name_alone = [str(file) for file, (_, sure) in zip(files, chosen, strict=True) if not sure]
        return [self.image_ids[index] for index, _ in chosen], by_name_alone

    def of_classes(self, class_names: Sequence[str]) -> list[Id | None]:
        """The data's id of each class of a model; None for one that the data do not have."""
        return [self.category_ids.get(name) for name in class_names]

    def _index(self, file: Path) -> tuple[int, bool]:
        """The place of a file among the images, and whether its folder agrees too, as far as one is stated."""
        own = file.absolute().parts
        scored = [(common_tail(own, parts), index, parts) for index, parts in self._places.get(file.name, ())]
        best = max((score for score, _, _ in scored), default=0)
        nearest = [(index, parts) for score, index, parts in scored if score == best]
        if not nearest:
            raise RegardError(f"{file}: is no image of {self.where}, which has {first_few(self.paths)}")
        if len(nearest) > 1:
            several = first_few([self.paths[index] for index, _ in nearest])
            raise RegardError(f"{file}: may be any of these images of {self.where}: {several}")
        (index, parts) = nearest[0]
        return index, best > 1 or len(parts) == 1


_LISTS = {"images": "file_name", "categories": "name"}


def _named(whole: Any, key: str, name: str, file: Path) -> list[tuple[str, Id]]:
    """The name and the id of each entry of a list of COCO's file."""
    entries = whole.get(key) if isinstance(whole, dict) else None
    if not isinstance(entries, list):
        raise RegardError(f"{file}: has no list of {key}, as COCO's annotation files have")
    found = []
    for number, entry in enumerate(entries):
        called, own = (entry.get(name), entry.get("id")) if isinstance(entry, dict) else (None, None)
        if not isinstance(called, str) or not called or not isinstance(own, int | str) or isinstance(own, bool):
            raise RegardError(f"{file}: {key}[{number}] lacks a {name} or an id")
        found.append((called, own))
    return found


def _parts(path: str) -> tuple[str, ...]:
    """Of a path as any system writes it."""
    parts = (PureWindowsPath(path) if "\\" in path else PurePosixPath(path)).parts
    return parts or (path,)
