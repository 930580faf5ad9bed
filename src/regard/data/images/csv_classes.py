"""`csv:PATH`: images that a CSV file lists, with one class each, or with several."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from regard.data.images.csv_rows import CsvOptions, Labelled, read_labels
from regard.data.images.doubles import doubles
from regard.data.images.files import OnBadImage, measure_decoding
from regard.data.images.folder import Scan, deep_remark, require_readable, source_of
from regard.data.images.labels import classes_of, single_labels
from regard.data.images.names import told_alike
from regard.data.images.pixels import Decoding
from regard.data.images.sources import ImageClasses, split_by_seed, split_indices, split_where_it_can
from regard.data.images.stratify import split_label_sets
from regard.data.images.walk import entries_of
from regard.data.repairs import OnBadAnnotation
from regard.errors import RegardError, first_few
from regard.files import expanded


def open_csv(
    path: Path,
    options: CsvOptions,
    *,
    channels: int,
    val_fraction: float,
    split_seed: int,
    on_bad_image: OnBadImage,
    on_bad_annotation: OnBadAnnotation,
    max_megapixels: float,
    decoding: Decoding | None = None,
    for_evaluation: bool = False,
    unlabelled: bool = False,
) -> ImageClasses:
    """Open the images of a CSV file, split as one of its columns says, or else by seed.

    Classes are in the order of their names, numbers in that of their values. A set is multi-label where a label holds
    `options.label_separator`; the split by seed is stratified, and keeps files of the same bytes together. All headers
    are read here, the pixels later. for_evaluation: `val` is the part that the set holds out, or else all of it.
    unlabelled: whether labels are not needed: without their column no image has one, one class will do, and a class may
    have one image.
    Raises RegardError for what cannot be read, and BadImage for unreadable files under "stop".
    """
    address = f"csv:{path}"
    labelled, multi_label, repairs, remarks = read_labels(
        _csv_file(expanded(path)), options, address, unlabelled=unlabelled
    )
    repairs.require(address, on_bad_annotation, also="")
    train, val, passed_over = _parts(labelled, address, for_evaluation=for_evaluation)
    class_names = _class_names(train if train and not for_evaluation else val)
    known = set(class_names)
    for one in val:
        if not known.issuperset(one.labels):
            repairs.leave_out("held-out files are of a class that no file is trained on", str(one.file))
    val = [one for one in val if known.issuperset(one.labels)]
    repairs.require(address, on_bad_annotation, also="")
    limit = decoding or Decoding(max_megapixels)
    scans = [_scanned(part, class_names, limit, multi_label=multi_label) for part in (train, val)]
    require_readable([error for scan in scans for error in scan.bad], on_bad_image)
    of_train, of_val = scans
    has_val = bool(val) or for_evaluation
    measured = of_val if for_evaluation else of_train
    _require_images(measured, class_names, address, multi_label=multi_label, trains=not (for_evaluation or unlabelled))
    indices = list(range(len(of_train.paths))), list(range(len(of_val.paths)))
    if not has_val:
        of_val = replace(of_train, bad=[])
        split = (val_fraction, split_seed, address)
        indices = _split(of_train, class_names, *split, multi_label=multi_label, unlabelled=unlabelled)
    elif not of_val.paths:
        raise RegardError(f"{address}: none of the held-out images can be read")
    deep = [of_train.paths[index] for index in indices[0] if of_train.deep[index]]
    deep = deep or [path for path, is_deep in zip(of_val.paths, of_val.deep, strict=True) if is_deep and for_evaluation]
    decoding = decoding or measure_decoding(deep, max_megapixels)
    pixels = (of_train.pixels + (of_val.pixels if has_val else 0)) * channels
    num_classes = len(class_names) if multi_label else None
    sources = (
        source_of(of_train, indices[0], channels, pixels, decoding, num_classes),
        source_of(of_val, indices[1], channels, pixels, decoding, num_classes),
    )
    remarks += [passed_over, told_alike(class_names), deep_remark(deep, len(indices[0]) or len(indices[1]), decoding)]
    return ImageClasses(
        address,
        class_names,
        *sources,
        has_val,
        decoding=decoding,
        remarks=tuple(remark for remark in remarks if remark),
        repairs=repairs,
    )


def _csv_file(path: Path) -> Path:
    """The file; of a folder, the one CSV file in it."""
    if not path.is_dir():
        if not path.exists():
            raise RegardError(f"csv:{path}: no such file")
        return path
    files = sorted(file for file in entries_of(path) if file.suffix.lower() == ".csv" and file.is_file())
    if len(files) != 1:
        names = f"{len(files)}: {first_few([file.name for file in files])}" if files else "none"
        raise RegardError(f"csv:{path}: is a folder; name the CSV file, or keep one in it; it has {names}")
    return files[0]


def _parts(
    labelled: Sequence[Labelled], address: str, *, for_evaluation: bool
) -> tuple[Sequence[Labelled], Sequence[Labelled], str]:
    """(what is trained on, what is held out by the data themselves, what is not used)."""
    if not labelled:
        raise RegardError(f"{address}: no row of it can be used")
    of_part = {part: [one for one in labelled if one.part == part] for part in ("", "train", "val", "test")}
    held_out = of_part["val"] or of_part["test"]
    if for_evaluation:
        return [], held_out or labelled, ""
    train = of_part["train"] or of_part[""]
    if not train:
        raise RegardError(f"{address}: none of its {len(labelled)} files is of the part train")
    number = len(of_part["test"]) if of_part["val"] else 0
    return train, held_out, f"{number} files of the part test are not used; val is what is held out" if number else ""


def _class_names(labelled: Sequence[Labelled]) -> tuple[str, ...]:
    names = {name for one in labelled for name in one.labels}
    if all(name.isdecimal() for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))


def _scanned(
    labelled: Sequence[Labelled], class_names: Sequence[str], decoding: Decoding, *, multi_label: bool
) -> Scan:
    """Reads the header of every image."""
    scan, number = Scan(), {name: index for index, name in enumerate(class_names)}
    for one in labelled:
        labels = tuple(sorted(number[name] for name in one.labels))
        scan.add(one.file, labels if multi_label else labels[0], decoding)
    return scan


def _require_images(scan: Scan, class_names: Sequence[str], address: str, *, multi_label: bool, trains: bool) -> None:
    if not scan.paths:
        raise RegardError(f"{address}: none of its images can be read")
    if not trains:
        return
    if not class_names:
        raise RegardError(f"{address}: no image has a label")
    if len(class_names) < 2 and not multi_label:
        raise RegardError(
            f"{address}: two classes are needed, and all {len(scan.paths)} images are {class_names[0]!r}; "
            "data.multi_label=true learns whether an image has it"
        )
    filled = {index for label in scan.labels for index in classes_of(label)}
    empty = [name for index, name in enumerate(class_names) if index not in filled]
    if empty:
        raise RegardError(f"{address}: a class without images that can be read: {first_few(empty)}")


def _split(
    scan: Scan,
    class_names: Sequence[str],
    val_fraction: float,
    split_seed: int,
    address: str,
    *,
    multi_label: bool,
    unlabelled: bool,
) -> tuple[list[int], list[int]]:
    if not class_names:
        return split_by_seed(
            len(scan.paths), val_fraction=val_fraction, split_seed=split_seed, where=address, files=scan.paths
        )
    if multi_label:
        sets = [classes_of(label) for label in scan.labels]
        groups = doubles(scan.paths)
        return split_label_sets(sets, fraction=val_fraction, seed=split_seed, where=address, groups=groups)
    split = split_where_it_can if unlabelled else split_indices
    return split(
        single_labels(scan.labels),
        class_names,
        val_fraction=val_fraction,
        split_seed=split_seed,
        where=address,
        files=scan.paths,
    )
