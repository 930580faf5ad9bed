"""`folder:PATH`: your own images, one sub-folder a class."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from jaxtyping import UInt8
from torch import Tensor
from torch.utils.data import get_worker_info

from regard.data.images.files import BadImage, OnBadImage, check_header, read_image
from regard.data.images.sources import ImageClasses, ImageSource, split_indices
from regard.data.images.walk import image_endings, image_files, is_image_file, left_out
from regard.errors import RegardError, first_of

# Decoded images are cached if those of the whole folder fit into this many bytes, over all worker processes.
CACHE_BYTES = 512 * 1024**2

# Names of a validation split. `test` is one only where there is no other: a test set is not for choosing models.
VAL_NAMES = ("val", "valid", "validation")

LAYOUT = "expected PATH/CLASS/image.jpg, or PATH/train/CLASS/image.jpg and PATH/val/CLASS/image.jpg"


class FolderImages(ImageSource):
    """Image files, decoded when they are read; only once where `folder_bytes`, those of all decoded images, are few."""

    def __init__(
        self,
        paths: tuple[Path, ...],
        labels: tuple[int, ...],
        channels: int,
        folder_bytes: int,
        skipped: tuple[str, ...] = (),
    ) -> None:
        self.paths = paths
        self.labels = labels
        self.channels = channels
        self.folder_bytes = folder_bytes
        self.skipped = skipped
        self._cached: dict[int, Tensor] = {}

    def read(self, index: int) -> UInt8[Tensor, "channels height width"]:
        image = self._cached.get(index)
        if image is None:
            image = read_image(self.paths[index], self.channels)
            worker = get_worker_info()  # every worker process caches images of its own
            if self.folder_bytes * (worker.num_workers if worker else 1) <= CACHE_BYTES:
                self._cached[index] = image
        return image

    def name(self, index: int) -> str:
        return str(self.paths[index])

    def __getstate__(self) -> dict[str, object]:
        # A worker process that is spawned gets the paths, not the decoded images.
        return {**self.__dict__, "_cached": {}}


@dataclass
class _Scan:
    """The readable images below one folder of classes, and what could not be read."""

    paths: list[Path] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    pixels: int = 0
    bad: list[BadImage] = field(default_factory=list)
    passed_over: Counter[str] = field(default_factory=Counter)


def open_folder(
    path: Path, channels: int, val_fraction: float, split_seed: int, on_bad_image: OnBadImage
) -> ImageClasses:
    """Open `path/CLASS/...`, split by seed, or `path/train/CLASS/...` with a validation split beside it.

    Class names are the folders' names, sorted. Files are found at any depth, sorted; hidden ones and those that are
    no images by their extension are ignored. All headers are read here, the pixels later.
    Raises RegardError if the layout is another one, and BadImage for unreadable files under "stop".
    """
    address = f"folder:{path}"
    path = path.expanduser()
    if not path.exists():
        raise RegardError(f"{address}: no such folder")
    if not path.is_dir():
        raise RegardError(f"{address}: is a file; {LAYOUT}")
    train_folder, val_folder = _split_folders(path, address)
    class_names = _class_names(train_folder, address)
    train = _scan(train_folder, class_names)
    val = _scan(val_folder, _known_classes(val_folder, class_names, address)) if val_folder else _Scan()
    bad = train.bad + val.bad
    if bad and on_bad_image == "stop":
        raise BadImage(bad[0].path, first_of([error.reason for error in bad], "more that cannot be read"))
    _require_images(train, class_names, address)
    if val_folder and not val.paths:
        raise RegardError(f"{address}: no images in {val_folder}; {LAYOUT}")
    folder_bytes = (train.pixels + val.pixels) * channels

    def source(scan: _Scan, indices: list[int], skipped: list[BadImage]) -> FolderImages:
        paths = tuple(scan.paths[index] for index in indices)
        labels = tuple(scan.labels[index] for index in indices)
        return FolderImages(paths, labels, channels, folder_bytes, tuple(str(error) for error in skipped))

    if val_folder:
        train_source = source(train, list(range(len(train.paths))), train.bad)
        val_source = source(val, list(range(len(val.paths))), val.bad)
    else:
        train_indices, val_indices = split_indices(
            train.labels, class_names, val_fraction=val_fraction, split_seed=split_seed, where=address
        )
        train_source = source(train, train_indices, train.bad)
        val_source = source(train, val_indices, [])
    return ImageClasses(address, class_names, train_source, val_source, has_val=val_folder is not None)


def _split_folders(path: Path, address: str) -> tuple[Path, Path | None]:
    """The folder whose sub-folders are the classes, and the one of the validation split if there is one."""
    names = _subfolders(path)
    held_out = [name for name in VAL_NAMES if name in names] or [name for name in ("test",) if name in names]
    if "train" not in names:
        return path, None
    if any(is_image_file(file) for file in (path / "train").iterdir()):
        if held_out:  # otherwise "train" is a class, beside "bus" and "tram"
            raise RegardError(f"{address}: images lie in train/ itself, where one folder a class is needed; {LAYOUT}")
        return path, None
    if len(held_out) > 1:
        raise RegardError(f"{address}: has {' and '.join(held_out)}; keep one of them as the validation split")
    return path / "train", path / held_out[0] if held_out else None


def _class_names(folder: Path, address: str) -> tuple[str, ...]:
    names = _subfolders(folder)
    if len(names) < 2:
        folders = f"one folder, {names[0]!r}," if names else "no folder"
        loose = sum(is_image_file(file) for file in folder.iterdir())
        raise RegardError(f"{address}: two classes are needed; {folder} holds {folders} and {loose} images; {LAYOUT}")
    return tuple(names)


def _known_classes(val_folder: Path, class_names: tuple[str, ...], address: str) -> tuple[str, ...]:
    """The training classes, after a check that the validation split has no others."""
    val_names = _subfolders(val_folder)
    surplus = sorted(set(val_names) - set(class_names))
    if surplus:
        absent = sorted(set(class_names) - set(val_names))
        raise RegardError(
            f"{address}: the classes differ; only in {val_folder.name}/: {', '.join(surplus)}; "
            f"only in train/: {', '.join(absent) or 'none'}"
        )
    return class_names


def _require_images(train: _Scan, class_names: tuple[str, ...], address: str) -> None:
    if not train.paths:
        unreadable = f" that can be read ({len(train.bad)} cannot)" if train.bad else ""
        known = " ".join(sorted(image_endings()))
        raise RegardError(f"{address}: no images{unreadable} in {len(class_names)} folders; known endings: {known}")
    filled = set(train.labels)
    empty = [name for label, name in enumerate(class_names) if label not in filled]
    if empty:
        raise RegardError(f"{address}: a class without images that can be read: {', '.join(empty)}")


def _scan(folder: Path, class_names: tuple[str, ...]) -> _Scan:
    """Read the header of every image below `folder/CLASS`. A class may have no folder here."""
    scan = _Scan()
    for label, name in enumerate(class_names):
        if not (folder / name).is_dir():
            continue
        images, passed_over = image_files(folder / name)
        scan.passed_over += passed_over
        for path in images:
            try:
                height, width = check_header(path)
            except BadImage as error:
                scan.bad.append(error)
                continue
            scan.paths.append(path)
            scan.labels.append(label)
            scan.pixels += height * width
    return scan


def _subfolders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not left_out(entry.name))
