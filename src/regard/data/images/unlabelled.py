"""Images for what learns without labels: a folder with classes or without, and image files from anywhere."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from regard.data.images.files import OnBadImage, measure_decoding
from regard.data.images.folder import (
    FolderImages,
    Scan,
    deep_remark,
    open_folder,
    open_folder_to_measure,
    require_readable,
    source_of,
)
from regard.data.images.folder_layout import class_folders, existing, flat_parts, holds_images
from regard.data.images.pixels import Decoding
from regard.data.images.sources import ImageClasses, split_by_seed
from regard.data.images.walk import entries_of, image_endings, image_files, is_image_file, passed_over_line
from regard.errors import RegardError, first_few

NUM_CLASSES = 0  # of images without labels, each of which has the label ()


def open_any_folder(
    path: Path,
    channels: int,
    val_fraction: float,
    split_seed: int,
    on_bad_image: OnBadImage,
    max_megapixels: float,
    decoding: Decoding | None = None,
    *,
    for_evaluation: bool = False,
) -> ImageClasses:
    """As `open_folder`, for what needs no labels: images that lie in the folder itself are read without any.

    These may also lie in `path/train` and `path/val`. Beside folders, all images are read, at any depth, and none has a
    label. for_evaluation: all that the set holds out, or else all of it, is `val`.
    """
    address, whole = f"folder:{path}", existing(path)
    parts = flat_parts(whole, address)
    if parts is None and for_evaluation:
        return open_folder_to_measure(path, channels, on_bad_image, max_megapixels, decoding)
    if parts is None:
        given = (path, channels, val_fraction, split_seed, on_bad_image, max_megapixels, decoding)
        return open_folder(*given, needs_classes=False)
    limit = decoding or Decoding(max_megapixels)
    folders = [folder for folder in parts if folder is not None]
    scans = [_below(folder, limit) for folder in (folders[-1:] if for_evaluation else folders)]
    remarks = [passed_over_line(sum((scan.passed_over for scan in scans), Scan().passed_over)), *map(_mixed, folders)]
    return without_labels(
        address,
        scans,
        channels=channels,
        split=None if for_evaluation else (val_fraction, split_seed),
        on_bad_image=on_bad_image,
        max_megapixels=max_megapixels,
        decoding=decoding,
        remarks=remarks,
    )


def without_labels(
    address: str,
    scans: Sequence[Scan],
    *,
    channels: int,
    split: tuple[float, int] | None,
    on_bad_image: OnBadImage,
    max_megapixels: float,
    decoding: Decoding | None,
    remarks: Sequence[str] = (),
) -> ImageClasses:
    """Scanned images without labels: those to train on and those held out, or one scan.

    split: the fraction and the seed by which one scan is split; None: it is all held out. Raises RegardError.
    """
    require_readable([error for scan in scans for error in scan.bad], on_bad_image)
    for scan in scans:
        if not scan.paths:
            known = " ".join(sorted(image_endings()))
            bad = f" that can be read ({len(scan.bad)} cannot: {scan.bad[0]})" if scan.bad else ""
            part = "" if len(scans) == 1 else " to train on" if scan is scans[0] else " that are held out"
            told = f"; {passed_over_line(scan.passed_over)}" if scan.passed_over else ""
            raise RegardError(f"{address}: no images{part}{bad}; known endings: {known}{told}")
    has_val = len(scans) == 2 or split is None
    first, last = scans[0], scans[-1]
    indices = list(range(len(first.paths))), list(range(len(last.paths)))
    if len(scans) == 1 and split is not None:
        fraction, seed = split
        files, last = first.paths, replace(first, bad=[])
        indices = split_by_seed(len(files), val_fraction=fraction, split_seed=seed, where=address, files=files)
    deep = [first.paths[index] for index in indices[0] if first.deep[index]]
    decoding = decoding or measure_decoding(deep, max_megapixels)
    pixels = channels * (sum(scan.pixels for scan in scans))
    val = source_of(last, indices[1], channels, pixels, decoding, NUM_CLASSES)
    train = FolderImages((), (), channels, 0, decoding=decoding, num_classes=NUM_CLASSES)
    if len(scans) == 2 or split is not None:
        train = source_of(first, indices[0], channels, pixels, decoding, NUM_CLASSES)
    said = tuple(remark for remark in (*remarks, deep_remark(deep, len(indices[0]), decoding)) if remark)
    return ImageClasses(address, (), train, val, has_val, decoding=decoding, remarks=said)


def scan_of(files: Sequence[Path], decoding: Decoding) -> Scan:
    """Reads the header of every file."""
    scan = Scan()
    for file in files:
        scan.add(file, (), decoding)
    return scan


def _below(folder: Path, decoding: Decoding) -> Scan:
    images, passed_over = image_files(folder)
    scan = scan_of(images, decoding)
    scan.passed_over = passed_over
    return scan


def _mixed(folder: Path) -> str:
    """What is said of images beside folders; "" where all are on one level."""
    if not holds_images(folder):
        return ""
    folders = [name for name, own in class_folders(folder).items() if any(image_files(one)[0] for one in own)]
    if not folders:
        return ""
    loose = sum(is_image_file(file) for file in entries_of(folder))
    return (
        f"{loose} images lie beside {len(folders)} folders of images ({first_few(folders)}), so that none has a label; "
        "move them elsewhere, and the folders are classes"
    )
