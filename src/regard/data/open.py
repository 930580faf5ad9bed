"""From a data address to images, images with boxes, pairs of texts, or text."""

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from regard.data.addresses import SORTS, parse_address, parse_address_of
from regard.data.boxes.coco import open_coco
from regard.data.boxes.coco_layout import Annotations
from regard.data.boxes.digit_scenes import open_digit_scenes
from regard.data.boxes.sources import DetectionData, DetectionSource, SelectedDetectionSource
from regard.data.checks.image_files import decoded_alike, without_bad_images
from regard.data.images.csv_classes import open_csv
from regard.data.images.csv_rows import CsvOptions
from regard.data.images.digits import open_digits
from regard.data.images.files import OnBadImage
from regard.data.images.folder import open_folder, open_folder_to_measure
from regard.data.images.labels import classes_of
from regard.data.images.leave_out import LeaveOut
from regard.data.images.pixels import MAX_MEGAPIXELS, Decoding, require_channels
from regard.data.images.sources import ImageClasses, Joined
from regard.data.images.torchvision import open_torchvision
from regard.data.images.unlabelled import open_any_folder
from regard.data.repairs import OnBadAnnotation
from regard.data.text.corpus import TextData, open_pydoc, open_text_files
from regard.data.text.numbers import open_numbers
from regard.data.text.pairs import OnBadLine, TextPairs, open_pair_lines
from regard.data.without_boxes import without_boxes
from regard.errors import RegardError
from regard.files import cache_folder, expanded


def open_images(
    address: str,
    *,
    channels: int,
    val_fraction: float = 0.25,
    split_seed: int = 0,
    on_bad_image: OnBadImage = "stop",
    root: Path | None = None,
    max_megapixels: float = MAX_MEGAPIXELS,
    decoding: Decoding | None = None,
    for_evaluation: bool = False,
    leave_out: str | Path | None = None,
    on_bad_annotation: OnBadAnnotation = "stop",
    csv: CsvOptions | None = None,
    unlabelled: bool = False,
) -> ImageClasses:
    """Open the images behind an address, for classification, or for what learns without labels.

    address: see `regard.data.KINDS`.
    channels: 1 (grey) or 3 (RGB).
    val_fraction, split_seed: how a validation split is drawn where the data has none of its own.
    on_bad_image: whether an unreadable file in a folder is an error, or left out and listed in `train.skipped`.
    root: where torchvision's sets are kept; by default the user's cache folder.
    max_megapixels: files with more pixels count as unreadable.
    decoding: how a run's images became 8 bits; unless given, the depth that the training images use is measured.
    for_evaluation: a set that is measured only. `val` is what it holds out itself, or else all of it, and it need not
    be fit for training: it may have one class, or one image in a class.
    leave_out: a file with the names of images that are taken out of both parts.
    on_bad_annotation: whether a row of a CSV file without a meaning is an error, or left out and counted in `repairs`.
    csv: the columns of a CSV file, where they are not called `file` and `label`.
    unlabelled: whether images without labels are opened too: those in a folder itself, files of a table without the
    column of labels, and images with boxes, which are left out of account. They have no `class_names`, and each has the
    label (). Labels that are there are kept, and need not be fit for training.
    Raises RegardError.
    """
    require_channels(channels)
    if unlabelled and parse_address(address).kind in SORTS["images with boxes"]:
        parsed = parse_address(address)
    else:
        parsed = parse_address_of("images", address)
    path = Path(parsed.location)
    if csv not in (None, CsvOptions()) and parsed.kind != "csv":
        raise RegardError(f"{address}: data.file_column, data.multi_label and the like are for csv:PATH")
    if parsed.kind == "csv":
        images = open_csv(
            path,
            csv or CsvOptions(),
            channels=channels,
            val_fraction=val_fraction,
            split_seed=split_seed,
            on_bad_image=on_bad_image,
            on_bad_annotation=on_bad_annotation,
            max_megapixels=max_megapixels,
            decoding=decoding,
            for_evaluation=for_evaluation,
            unlabelled=unlabelled,
        )
    elif parsed.kind in SORTS["images with boxes"]:
        # A fault of the annotations spoils no image. YOLO's are read with their images' sizes.
        boxes = open_detection(
            address,
            channels=channels,
            val_fraction=val_fraction,
            split_seed=split_seed,
            on_bad_image=on_bad_image if parsed.kind == "yolo" else "stop",
            on_bad_annotation="skip",
            max_megapixels=max_megapixels,
            decoding=decoding,
        )
        images = without_boxes(boxes, channels=channels, on_bad_image=on_bad_image, for_evaluation=for_evaluation)
    elif parsed.kind == "folder" and unlabelled:
        given = (path, channels, val_fraction, split_seed, on_bad_image, max_megapixels, decoding)
        images = open_any_folder(*given, for_evaluation=for_evaluation)
    elif parsed.kind == "folder" and for_evaluation:
        images = open_folder_to_measure(path, channels, on_bad_image, max_megapixels, decoding)
    elif parsed.kind == "folder":
        images = open_folder(path, channels, val_fraction, split_seed, on_bad_image, max_megapixels, decoding)
    else:
        if parsed.kind == "digits":
            images = open_digits(channels, val_fraction, split_seed)
        else:
            folder = root or default_root()
            images = open_torchvision(parsed.location, channels, val_fraction, split_seed, folder, max_megapixels)
        if for_evaluation and not images.has_val:
            images = replace(images, val=Joined([images.train, images.val]), has_val=True)
    return images if leave_out is None else _images_without(images, LeaveOut.read(leave_out, place_of(address)))


def open_pairs(
    address: str, *, val_fraction: float | None = 0.1, split_seed: int = 0, on_bad_line: OnBadLine = "stop"
) -> TextPairs:
    """Open the pairs of texts behind an address, for sequence to sequence.

    address: see `regard.data.KINDS`.
    val_fraction, split_seed: how a validation split is drawn where the data has none of its own. No number of the
    validation split is trained on in any language, and no source of it with any target. None: the data are only
    evaluated on, and of a file nothing is held out.
    on_bad_line: whether an unreadable line of a file is an error, or left out and listed in `skipped`.
    Raises RegardError.
    """
    parsed = parse_address_of("pairs of texts", address)
    if parsed.kind == "numbers":
        return open_numbers(0.1 if val_fraction is None else val_fraction, split_seed)
    return open_pair_lines(Path(parsed.location), val_fraction, split_seed, on_bad_line)


def open_text(address: str, *, val_fraction: float | None = 0.1, on_bad_line: OnBadLine = "stop") -> TextData:
    """Open the text behind an address, for models of the next token; its last `val_fraction` is held out, or nothing.

    address: see `regard.data.KINDS`. on_bad_line: whether a file that cannot be read is an error, or left out and
    listed in `skipped`. Raises RegardError.
    """
    parsed = parse_address_of("text", address)
    if parsed.kind == "pydoc":
        return open_pydoc(0.1 if val_fraction is None else val_fraction)
    return open_text_files(Path(parsed.location), val_fraction, on_bad_line)


def default_root() -> Path:
    """Where torchvision's sets are kept: `regard/torchvision` in the user's cache folder."""
    return cache_folder() / "torchvision"


def open_detection(
    address: str,
    *,
    channels: int = 3,
    val_fraction: float | None = 0.25,
    split_seed: int = 0,
    on_bad_image: OnBadImage = "stop",
    on_bad_annotation: OnBadAnnotation = "stop",
    annotations: Annotations | None = None,
    max_megapixels: float = MAX_MEGAPIXELS,
    decoding: Decoding | None = None,
    leave_out: str | Path | None = None,
) -> DetectionData:
    """Open the images with boxes behind an address.

    address: see `regard.data.KINDS`. channels: 1 (grey) or 3 (RGB).
    val_fraction, split_seed: how a validation split is drawn where the data has none of its own; None draws none, and
    `val` is then empty, as for data that are only evaluated on.
    on_bad_image: whether an image that is missing, unreadable or of another size than stated is an error when it is
    read, or left out here and listed in `train.skipped` and `val.skipped`.
    on_bad_annotation: whether a box, label, entry or file of annotations without a meaning is an error, or left out
    here and counted in `repairs`.
    annotations: COCO's files, where they are not where they are looked for.
    max_megapixels, decoding, leave_out: as in `open_images`.
    Raises RegardError.
    """
    require_channels(channels)
    parsed = parse_address_of("images with boxes", address)
    if annotations not in (None, Annotations()) and parsed.kind != "coco":
        raise RegardError(f"{address}: data.train_annotations and the like are for coco:PATH")
    if parsed.kind == "digit-scenes":
        return _digit_scenes(channels)
    path = expanded(parsed.location)
    if parsed.kind == "coco":
        data = open_coco(
            path,
            channels=channels,
            annotations=annotations,
            val_fraction=val_fraction,
            split_seed=split_seed,
            on_bad_annotation=on_bad_annotation,
        )
    elif parsed.kind == "yolo":
        from regard.data.boxes.yolo import open_yolo

        data = open_yolo(
            path,
            channels=channels,
            val_fraction=val_fraction,
            split_seed=split_seed,
            on_bad_image=on_bad_image,
            on_bad_annotation=on_bad_annotation,
        )
    else:
        from regard.data.boxes.voc import open_voc

        data = open_voc(
            path,
            channels=channels,
            val_fraction=val_fraction,
            split_seed=split_seed,
            on_bad_annotation=on_bad_annotation,
        )
    data = decoded_alike(data, decoding, max_megapixels)
    data = without_bad_images(data) if on_bad_image == "skip" else data
    return data if leave_out is None else _boxes_without(data, LeaveOut.read(leave_out, place_of(address)))


def place_of(address: str) -> Path | None:
    """The folder that the names of an address's images begin with; None for data without a place."""
    parsed = parse_address(address)
    if not parsed.location or parsed.kind == "torchvision":
        return None
    path = expanded(parsed.location)
    return path.parent if path.is_file() else path


def _images_without(images: ImageClasses, out: LeaveOut) -> ImageClasses:
    parts = {"to train on": images.train, "to evaluate on": images.val}
    remark = out.remark([source.name(index) for source in parts.values() for index in range(len(source))])
    train, val = (
        source.only(out.kept([source.name(index) for index in range(len(source))], what))
        for what, source in parts.items()
    )
    before, after = ({index for label in part.labels for index in classes_of(label)} for part in (images.train, train))
    lost = sorted(before - after)
    if lost:
        names = ", ".join(images.class_names[label] for label in lost)
        raise RegardError(f"{out.file}: leaves nothing to train on of: {names}")
    return replace(images, train=train, val=val, remarks=(*images.remarks, remark) if remark else images.remarks)


def _boxes_without(data: DetectionData, out: LeaveOut) -> DetectionData:
    def without(source: DetectionSource, what: str) -> DetectionSource:
        kept = out.kept([source.name(index) for index in range(len(source))], what)
        return source if len(kept) == len(source) else SelectedDetectionSource(source, kept)

    both = (data.train,) if data.val is data.train else (data.train, data.val)
    if remark := out.remark([source.name(index) for source in both for index in range(len(source))]):
        data.repairs.pass_over("lists of images to leave out name images that are not there", remark)
    train = without(data.train, "to train on")
    return replace(data, train=train, val=train if len(both) == 1 else without(data.val, "to evaluate on"))


@lru_cache(maxsize=2)
def _digit_scenes(channels: int) -> DetectionData:
    """Laid out once a process: it takes seconds, and a comparison opens its data for each mixer."""
    return open_digit_scenes(channels)
