"""The image files of a set with boxes: whether they exist, can be read, and have the stated size."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from torch import Tensor

from regard.data.boxes.coco import CocoImages, other_size
from regard.data.boxes.sources import DetectionData, DetectionSource, FileDetectionSource, SelectedDetectionSource
from regard.data.checks.issue import Issue, Severity, group
from regard.data.checks.seen import See, see_nothing
from regard.data.checks.suspect_images import DRAWN, Suspect
from regard.data.images.doubles import shared
from regard.data.images.files import BadImage, OnBadImage, check_header, measure_decoding, read_header
from regard.data.images.pixels import ANY_SIZE, Decoding
from regard.data.images.walk import DEEP_EXTENSIONS
from regard.errors import RegardError, first_few

MISSING = "are missing"
UNREADABLE = "cannot be read"
OTHER_SIZE = "are of another size than stated"


def origin(source: DetectionSource) -> tuple[DetectionSource, Sequence[int]]:
    """The source that selected images come from, and their indices in it."""
    indices: Sequence[int] = range(len(source))
    while isinstance(source, SelectedDetectionSource):
        indices, source = [source.indices[index] for index in indices], source.source
    return source, indices


def files_of(source: DetectionSource) -> list[Path]:
    """The file of each image; [] for images that are drawn."""
    whole, indices = origin(source)
    if isinstance(whole, CocoImages):
        return [whole.file.file(index) for index in indices]
    return [whole.files[index] for index in indices] if isinstance(whole, FileDetectionSource) else []


def without_bad_images(data: DetectionData) -> DetectionData:
    """Data without the images that are missing, unreadable by their header, or of another size than stated.

    Each split lists its own in `skipped`. Images whose pixels are damaged stay: only headers are read here. Raises
    RegardError where no image is left.
    """
    train = _readable(data.train, f"{data.address}: none of the images to train on can be read")
    val = train if data.val is data.train else _readable(data.val, f"{data.address}: no held-out image can be read")
    return replace(data, train=train, val=val)


def decoded_alike(data: DetectionData, decoding: Decoding | None, max_megapixels: float) -> DetectionData:
    """Data whose files become 8 bits as `decoding` says; None: as the training images need it, which is measured."""
    if decoding is None:
        candidates = [file for file in files_of(data.train) if file.suffix.lower() in DEEP_EXTENSIONS]
        decoding = measure_decoding([file for file in candidates if _is_deep(file)], max_megapixels)
    for source in (data.train, data.val):
        origin(source)[0].decoding = decoding
    return replace(data, decoding=decoding)


def _is_deep(file: Path) -> bool:
    try:
        return read_header(file, ANY_SIZE).deep
    except BadImage:  # which is reported, or left out, elsewhere
        return False


def _readable(source: DetectionSource, otherwise: str) -> DetectionSource:
    bad = {index: message for index, _, message in _faults(source, pixels=False)}
    if not bad:
        return source
    if len(bad) == len(source):
        raise RegardError(f"{otherwise}: {first_few(list(bad.values()))}")
    kept = SelectedDetectionSource(source, [index for index in range(len(source)) if index not in bad])
    kept.skipped = (*source.skipped, *bad.values())
    return kept


def check_files(
    where: str,
    source: DetectionSource,
    *,
    pixels: bool,
    on_bad_image: OnBadImage = "stop",
    part: str = "train",
    see: See = see_nothing,
) -> tuple[list[Issue], list[Suspect]]:
    """Issues for images that are missing, unreadable, of another size than stated, or left out; images to look at.

    pixels: whether every image is decoded, and given to `see` with its part and index; else only headers are read.
    on_bad_image: whether a fault is an error or a warning.
    """
    severity: Severity = "error" if on_bad_image == "stop" else "warning"
    way_on = "; --set data.on_bad_image=skip takes the others" if severity == "error" else "; they are left out"
    issues: list[Issue] = []
    suspects: list[Suspect] = []
    if source.skipped:
        few, count = first_few(source.skipped), len(source.skipped)
        left_out = f"{count} images are left out: {few}"
        what = left_out if severity == "warning" else f"{count} images cannot be used: {few}{way_on}"
        issues.append(group(severity, what, where, [message.partition(": ")[0] for message in source.skipped]))
    faults = list(_faults(source, pixels=pixels, see=partial(see, part)))
    for kind in (MISSING, UNREADABLE, OTHER_SIZE):
        faulty = [(index, message) for index, of_kind, message in faults if of_kind == kind]
        if not faulty:
            continue
        what = f"{len(faulty)} of {len(source)} images {kind}: {first_few([message for _, message in faulty])}"
        whole, indices = origin(source)
        if kind == MISSING and isinstance(whole, CocoImages):
            if len(faulty) == len(source):
                what += "; data.train_images and data.val_images say where they are"
            what += f"; {whole.file.hint(indices[faulty[0][0]])}"
        issues.append(group(severity, what + way_on, where, [source.name(index) for index, _ in faulty]))
        if kind == OTHER_SIZE:
            suspects += [Suspect(source, index, source.objects[index].boxes_xyxy, kind) for index, _ in faulty[:DRAWN]]
    return issues, suspects


def _faults(
    source: DetectionSource, *, pixels: bool, see: Callable[[int, Tensor], object] | None = None
) -> Iterator[tuple[int, str, str]]:
    """(index, kind, message) of each image that cannot be used."""
    decoding = origin(source)[0].decoding
    for index, file in enumerate(files_of(source)):
        try:
            size, stated = check_header(file, decoding), source.sizes[index]
            if size != stated:
                yield index, OTHER_SIZE, f"{source.name(index)} {other_size(size, stated)}"
            elif pixels:
                image = source.read(index)
                if see is not None:
                    see(index, image)
        except BadImage as error:
            yield index, UNREADABLE if file.exists() else MISSING, str(error)


def shared_files(train: DetectionSource, val: DetectionSource) -> list[tuple[str, str]]:
    """(validation image, training image), by name, for each held-out file with the bytes of one that is trained on."""
    return [(val.name(index), train.name(twin)) for index, twin in shared(files_of(train), files_of(val))]
