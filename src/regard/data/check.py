"""`regard data check`: from a data address to the issues that would spoil a training on it."""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from regard.data.addresses import SORTS, parse_address
from regard.data.boxes.coco_layout import Annotations
from regard.data.boxes.sources import DetectionData
from regard.data.checks.boxes import Checked, DetectionSummary, check_opened_detection
from regard.data.checks.images import Summary, check_opened_images
from regard.data.checks.issue import Issue
from regard.data.checks.seen import See, see_nothing
from regard.data.checks.texts import PairSummary, TextSummary, check_opened_pairs, check_opened_text
from regard.data.images.csv_rows import CsvOptions
from regard.data.images.files import BadImage, OnBadImage
from regard.data.images.pixels import MAX_MEGAPIXELS
from regard.data.images.sources import ImageClasses
from regard.data.open import open_detection, open_images, open_pairs, open_text
from regard.data.repairs import OnBadAnnotation
from regard.data.text.pairs import OnBadLine
from regard.errors import RegardError

# Is called with the data when they are open.
Look = Callable[[ImageClasses | DetectionData], See]

AnySummary = Summary | DetectionSummary | PairSummary | TextSummary


def check_data(address: str, *, root: Path | None = None) -> tuple[list[Issue], AnySummary]:
    """Read all data of an address, of any sort: as `check_images`, `check_detection`, `check_pairs` and `check_text`.

    The summary, as a string, says in one line how much there is.
    """
    try:
        kind = parse_address(address).kind
    except RegardError as error:
        return [Issue("error", str(error), address)], Summary(0, 0, {}, {})
    if kind in SORTS["images with boxes"]:
        issues, summary, _ = check_detection(address)
        return issues, summary
    if kind in SORTS["pairs of texts"]:
        return check_pairs(address)
    if kind in SORTS["text"]:
        return check_text(address)
    return check_images(address, root=root, unlabelled=True)


def check_images(
    address: str,
    *,
    channels: int = 3,
    val_fraction: float = 0.25,
    split_seed: int = 0,
    root: Path | None = None,
    on_bad_image: OnBadImage = "stop",
    max_megapixels: float = MAX_MEGAPIXELS,
    strict: bool = False,
    leave_out: str | Path | None = None,
    look: Look | None = None,
    on_bad_annotation: OnBadAnnotation = "stop",
    csv: CsvOptions | None = None,
    unlabelled: bool = False,
) -> tuple[list[Issue], Summary]:
    """Decode all images of an address, split as a training with these arguments would.

    on_bad_image: whether unreadable images are errors or, under "skip", warnings. strict: whether held-out images that
    are trained on too, in a split that the data bring, are an error. leave_out: as `open_images` takes it. look: is
    called with the opened data, and returns what sees each image. on_bad_annotation, csv: of a CSV file, as in
    `open_images`. unlabelled: whether a folder of images without labels is a warning, and its images are checked. A set
    that cannot be opened at all is one error, with an empty summary; a bad address, too.
    """
    try:
        images = _opened(
            address,
            unlabelled,
            channels=channels,
            val_fraction=val_fraction,
            split_seed=split_seed,
            on_bad_image="skip",
            root=root,
            max_megapixels=max_megapixels,
            leave_out=leave_out,
            on_bad_annotation="skip",
            csv=csv,
        )
    except RegardError as error:
        return [Issue("error", str(error), address)], Summary(0, 0, {}, {})
    see = see_nothing if look is None else look(images)
    return check_opened_images(
        images, strict=strict, on_bad_image=on_bad_image, on_bad_annotation=on_bad_annotation, see=see
    )


def _opened(address: str, unlabelled: bool, **given: Any) -> ImageClasses:
    """With labels if there are any; else, under `unlabelled`, a folder without them."""
    try:
        return open_images(address, **given)
    except RegardError:
        if unlabelled and parse_address(address).kind == "folder":
            with suppress(RegardError):  # what is said of labels is told
                found = open_images(address, unlabelled=True, **given)
                if found.unlabelled:
                    return found
        raise


def check_detection(
    address: str | DetectionData,
    *,
    num_queries: int | None = None,
    annotations: Annotations | None = None,
    val_fraction: float = 0.25,
    split_seed: int = 0,
    on_bad_image: OnBadImage = "stop",
    on_bad_annotation: OnBadAnnotation = "stop",
    max_megapixels: float = MAX_MEGAPIXELS,
    strict: bool = False,
    pixels: bool = True,
    leave_out: str | Path | None = None,
    look: Look | None = None,
) -> Checked:
    """Read all images and boxes of an address, or of opened data, as `check_opened_detection` does.

    annotations, val_fraction, split_seed, on_bad_image, max_megapixels, leave_out: how an address is opened.
    Annotations that cannot be used are left out, so that all faults are found at once; they are errors unless
    `on_bad_annotation` is "skip". look: is called with the opened data, and returns what sees each image.
    Data that cannot be opened at all are one error, with an empty summary.
    """
    as_wanted = partial(
        check_opened_detection,
        num_queries=num_queries,
        pixels=pixels,
        strict=strict,
        on_bad_image=on_bad_image,
        on_bad_annotation=on_bad_annotation,
    )
    if isinstance(address, DetectionData):
        return as_wanted(address, see=see_nothing if look is None else look(address))
    opened = partial(
        open_detection,
        address,
        val_fraction=val_fraction,
        split_seed=split_seed,
        on_bad_annotation="skip",
        annotations=annotations,
        max_megapixels=max_megapixels,
        leave_out=leave_out,
    )
    try:
        try:
            data = opened(on_bad_image=on_bad_image)
        except BadImage:  # YOLO's boxes need each image's size; what is left out is an error under "stop" all the same
            data = opened(on_bad_image="skip")
    except RegardError as error:
        return [Issue("error", str(error), address)], DetectionSummary(0, 0, 0, 0, 0, {}), []
    return as_wanted(data, see=see_nothing if look is None else look(data))


def check_pairs(
    address: str, *, val_fraction: float = 0.1, split_seed: int = 0, on_bad_line: OnBadLine = "stop"
) -> tuple[list[Issue], PairSummary]:
    """Read all pairs of an address, split as a training with these arguments would.

    Data that cannot be opened at all are one error, with an empty summary.
    """
    try:
        pairs = open_pairs(address, val_fraction=val_fraction, split_seed=split_seed, on_bad_line="skip")
    except RegardError as error:
        return [Issue("error", str(error), address)], PairSummary(0, 0, ())
    return check_opened_pairs(pairs, on_bad_line=on_bad_line)


def check_text(
    address: str, *, val_fraction: float = 0.1, on_bad_line: OnBadLine = "stop"
) -> tuple[list[Issue], TextSummary]:
    """Read the text of an address, split as a training with this argument would.

    Text that cannot be opened is one error, with an empty summary.
    """
    try:
        text = open_text(address, val_fraction=val_fraction, on_bad_line="skip")
    except RegardError as error:
        return [Issue("error", str(error), address)], TextSummary(0, 0)
    return check_opened_text(text, on_bad_line=on_bad_line)
