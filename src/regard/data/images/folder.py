"""`folder:PATH`: your own images, one sub-folder a class."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from jaxtyping import UInt8
from torch import Tensor
from torch.utils.data import get_worker_info

from regard.data.images.digests import digest_of_file
from regard.data.images.files import (
    MOST_MEASURED,
    BadImage,
    OnBadImage,
    measure_decoding,
    read_header,
    read_image,
)
from regard.data.images.folder_layout import (
    LAYOUT,
    WITHOUT_CLASSES,
    class_folders,
    existing,
    measured_folder,
    split_folders,
)
from regard.data.images.labels import Label, single_labels
from regard.data.images.names import told_alike
from regard.data.images.pixels import AS_STORED, Decoding
from regard.data.images.slabs import Slabs
from regard.data.images.sources import ImageClasses, ImageSource, split_indices, split_where_it_can
from regard.data.images.walk import entries_of, image_endings, image_files, is_image_file, passed_over_line
from regard.data.memory import available_memory, processes_here
from regard.errors import RegardError, first_of

# Decoded images are cached if those of the whole folder fit into this many bytes, over all worker processes, and into
# this fraction of the free memory.
CACHE_BYTES = 512 * 1024**2
CACHE_FRACTION = 0.4


class FolderImages(ImageSource):
    """Image files, decoded when they are read; only once where `folder_bytes`, those of all decoded images, are few."""

    def __init__(
        self,
        paths: tuple[Path, ...],
        labels: tuple[Label, ...],
        channels: int,
        folder_bytes: int,
        skipped: tuple[str, ...] = (),
        decoding: Decoding = AS_STORED,
        sizes: Sequence[tuple[int, int]] | None = None,
        num_classes: int | None = None,
    ) -> None:
        self.paths = paths
        self.sizes = sizes
        self.labels, self.num_classes = labels, num_classes
        self.channels = channels
        self.folder_bytes = folder_bytes
        self.skipped = skipped
        self.decoding = decoding
        self._allowed = CACHE_FRACTION * available_memory()
        self._cached = Slabs()

    def read(self, index: int) -> UInt8[Tensor, "channels height width"]:
        image = self._cached.get(index)
        if image is None:
            image = read_image(self.paths[index], self.channels, self.decoding)
            worker = get_worker_info()  # every worker process caches images of its own
            wanted = self.folder_bytes * (worker.num_workers if worker else 1)
            if wanted <= min(CACHE_BYTES // processes_here(), self._allowed):
                image = self._cached.put(index, image)
        return image

    def name(self, index: int) -> str:
        return str(self.paths[index])

    def digest(self, index: int) -> str:
        return digest_of_file(self.paths[index])

    def only(self, indices: Sequence[int]) -> "FolderImages":
        if len(indices) == len(self):
            return self
        return FolderImages(
            tuple(self.paths[index] for index in indices),
            tuple(self.labels[index] for index in indices),
            self.channels,
            self.folder_bytes,
            self.skipped,
            self.decoding,
            None if self.sizes is None else [self.sizes[index] for index in indices],
            self.num_classes,
        )

    def __getstate__(self) -> dict[str, object]:
        # A worker process that is spawned gets the paths, not the decoded images.
        return {**self.__dict__, "_cached": Slabs()}


@dataclass
class Scan:
    """The readable images of one part of the data, and what could not be read."""

    paths: list[Path] = field(default_factory=list)
    labels: list[Label] = field(default_factory=list)
    deep: list[bool] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    bad: list[BadImage] = field(default_factory=list)
    passed_over: Counter[str] = field(default_factory=Counter)

    def add(self, path: Path, label: Label, decoding: Decoding) -> None:
        """Reads the header of one more image."""
        try:
            header = read_header(path, decoding)
        except BadImage as error:
            self.bad.append(error)
            return
        self.paths.append(path)
        self.labels.append(label)
        self.deep.append(header.deep)
        self.sizes.append(header.size)

    @property
    def pixels(self) -> int:
        return sum(height * width for height, width in self.sizes)


def open_folder(
    path: Path,
    channels: int,
    val_fraction: float,
    split_seed: int,
    on_bad_image: OnBadImage,
    max_megapixels: float,
    decoding: Decoding | None = None,
    *,
    needs_classes: bool = True,
) -> ImageClasses:
    """Open `path/CLASS/...`, split by seed, or `path/train/CLASS/...` with a validation split beside it.

    Class names are the folders' names in Unicode's form NFC, sorted as the folders are. Files are found at any depth,
    sorted, as `image_files` says. All headers are read here, the pixels later; only those of images with more than 8
    bits are looked at, where `decoding` is None, for the depth that the training images use.
    needs_classes: whether there must be two, with two images each; otherwise one will do, a folder without images is
    no class, and a class may have one image.
    Raises RegardError if the layout is another one, and BadImage for unreadable files under "stop".
    """
    address, path = f"folder:{path}", existing(path)
    limit = decoding or Decoding(max_megapixels)
    train_folder, val_folder = split_folders(path, address)
    folders = class_folders(train_folder)
    class_names = _class_names(train_folder, folders, address) if needs_classes else tuple(folders)
    train = _scan([folders[name] for name in class_names], limit, beside=train_folder)
    val = Scan()
    if val_folder:
        val_folders = _known_classes(val_folder, class_names, address)
        val = _scan([val_folders.get(name, []) for name in class_names], limit, beside=val_folder)
    require_readable([*train.bad, *val.bad], on_bad_image)
    if train.paths and not needs_classes:
        class_names = _filled(class_names, train, val)
    else:
        _require_images(train, class_names, address)
    if val_folder and not val.paths:
        raise RegardError(f"{address}: no images{_unreadable(val)} in {val_folder}; {LAYOUT}")
    indices = list(range(len(train.paths))), list(range(len(val.paths)))
    if not val_folder:
        split = split_indices if needs_classes else split_where_it_can
        indices = split(
            single_labels(train.labels),
            class_names,
            val_fraction=val_fraction,
            split_seed=split_seed,
            where=address,
            files=train.paths,
        )
    deep = [train.paths[index] for index in indices[0] if train.deep[index]]
    decoding = decoding or measure_decoding(deep, max_megapixels)
    folder_bytes = (train.pixels + val.pixels) * channels
    return ImageClasses(
        address,
        class_names,
        source_of(train, indices[0], channels, folder_bytes, decoding),
        source_of(val if val_folder else replace(train, bad=[]), indices[1], channels, folder_bytes, decoding),
        has_val=val_folder is not None,
        decoding=decoding,
        remarks=_remarks(train.passed_over + val.passed_over, folders, deep, len(indices[0]), decoding),
    )


def open_folder_to_measure(
    path: Path, channels: int, on_bad_image: OnBadImage, max_megapixels: float, decoding: Decoding | None = None
) -> ImageClasses:
    """All images that a set offers for evaluation as `val`, and none to train on: it need not be fit for training.

    These are its validation split, or else its test split, or else all images. A class may have a single image; only
    classes with images count. Raises RegardError as `open_folder` does.
    """
    address, path = f"folder:{path}", existing(path)
    limit = decoding or Decoding(max_megapixels)
    folder = measured_folder(path, address)
    folders = class_folders(folder)
    if not folders:
        raise RegardError(f"{address}: {folder} holds no folder; {LAYOUT}")
    scan = _scan(list(folders.values()), limit, beside=folder)
    require_readable(scan.bad, on_bad_image)
    if not scan.paths:
        _require_images(scan, tuple(folders), address)
    names = _filled(list(folders), scan)
    indices = list(range(len(scan.paths)))
    deep = [path for path, is_deep in zip(scan.paths, scan.deep, strict=True) if is_deep]
    decoding = decoding or measure_decoding(deep, max_megapixels)
    return ImageClasses(
        address,
        names,
        FolderImages((), (), channels, 0),
        source_of(scan, indices, channels, scan.pixels * channels, decoding),
        has_val=True,
        decoding=decoding,
        remarks=_remarks(scan.passed_over, folders, deep, len(indices), decoding),
    )


def source_of(
    scan: Scan,
    indices: Sequence[int],
    channels: int,
    folder_bytes: int,
    decoding: Decoding,
    num_classes: int | None = None,
) -> FolderImages:
    """Some of the images of a scan; all that could not be read is skipped."""
    return FolderImages(
        tuple(scan.paths[index] for index in indices),
        tuple(scan.labels[index] for index in indices),
        channels,
        folder_bytes,
        tuple(str(error) for error in scan.bad),
        decoding,
        [scan.sizes[index] for index in indices],
        num_classes,
    )


def _remarks(
    passed_over: Counter[str], folders: Mapping[str, Sequence[Path]], deep: list[Path], count: int, decoding: Decoding
) -> tuple[str, ...]:
    remarks = [passed_over_line(passed_over), told_alike(folders)]
    for name, own in folders.items():
        if len(own) > 1:
            remarks.append(f"{len(own)} folders are one class, {name!r}: their names differ in Unicode's form alone")
    remarks.append(deep_remark(deep, count, decoding))
    return tuple(remark for remark in remarks if remark)


def deep_remark(deep: Sequence[Path], count: int, decoding: Decoding) -> str:
    """How the `deep` ones of `count` images become 8 bits; "" where nothing has to be said."""
    if not deep or decoding == Decoding(decoding.max_megapixels):
        return ""
    some = f"{len(deep)} of {count} images have" if len(deep) < count else "the images have"
    measured = f", measured on {MOST_MEASURED} of them" if len(deep) > MOST_MEASURED else ""
    return f"{some} more than 8 bits: {decoding}{measured}"


def _class_names(folder: Path, classes: Mapping[str, Sequence[Path]], address: str) -> tuple[str, ...]:
    names = list(classes)
    if len(names) < 2:
        folders = f"one folder, {names[0]!r}," if names else "no folder"
        loose = sum(is_image_file(file) for file in entries_of(folder))
        way_on = f"; {WITHOUT_CLASSES}" if names or loose else ""
        raise RegardError(
            f"{address}: two classes are needed; {folder} holds {folders} and {loose} images; {LAYOUT}{way_on}"
        )
    return tuple(names)


def _known_classes(val_folder: Path, class_names: tuple[str, ...], address: str) -> dict[str, list[Path]]:
    """The folders of each class, after a check that the validation split has no other classes."""
    folders = class_folders(val_folder)
    surplus = sorted(folders.keys() - set(class_names))
    if surplus:
        absent = sorted(set(class_names) - folders.keys())
        alike = told_alike([*surplus, *absent])
        raise RegardError(
            f"{address}: the classes differ; only in {val_folder.name}/: {', '.join(surplus)}; "
            f"only in train/: {', '.join(absent) or 'none'}{f'; {alike}' if alike else ''}"
        )
    return folders


def _filled(class_names: Sequence[str], *scans: Scan) -> tuple[str, ...]:
    """The classes with images; the labels in the scans become numbers of these."""
    filled = sorted({label for scan in scans for label in single_labels(scan.labels)})
    for scan in scans:
        scan.labels = [filled.index(label) for label in single_labels(scan.labels)]
    return tuple(class_names[label] for label in filled)


def require_readable(bad: Sequence[BadImage], on_bad_image: OnBadImage) -> None:
    """Raises the first of the errors under "stop", with the way on."""
    if bad and on_bad_image == "stop":
        reason = first_of([error.reason for error in bad], "more that cannot be read")
        leaves = "leaves them out" if len(bad) > 1 else "leaves it out"
        raise BadImage(bad[0].path, f"{reason}; --set data.on_bad_image=skip {leaves}")


def _unreadable(scan: Scan) -> str:
    if not scan.bad:
        return ""
    return f" that can be read ({len(scan.bad)} cannot: {scan.bad[0]})"


def _require_images(train: Scan, class_names: tuple[str, ...], address: str) -> None:
    if not train.paths:
        known = " ".join(sorted(image_endings()))
        passed_over = f"; {passed_over_line(train.passed_over)}" if train.passed_over else ""
        raise RegardError(
            f"{address}: no images{_unreadable(train)} in {len(class_names)} folders; known endings: {known}"
            f"{passed_over}"
        )
    filled = set(train.labels)
    empty = [name for label, name in enumerate(class_names) if label not in filled]
    if empty:
        raise RegardError(
            f"{address}: a class without images that can be read: {', '.join(empty)}; put some there, or take the "
            "folder away"
        )


def _scan(classes: Sequence[Sequence[Path]], decoding: Decoding, *, beside: Path) -> Scan:
    """Read the header of every image below the folders of each class, which lie in `beside`. A class may have none."""
    scan = Scan()
    loose = [file for file in entries_of(beside) if is_image_file(file)]
    scan.passed_over.update(f"{file.suffix.lower()} (beside the folders of the classes)" for file in loose)
    for label, folders in enumerate(classes):
        for folder in folders:
            images, passed_over = image_files(folder)
            scan.passed_over += passed_over
            for path in images:
                scan.add(path, label, decoding)
    return scan
