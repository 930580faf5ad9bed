"""The images of a set with boxes, without these: for what learns from images alone."""

from collections.abc import Sequence
from dataclasses import replace

from jaxtyping import UInt8
from torch import Tensor

from regard.data.boxes.sources import DetectionData, DetectionSource
from regard.data.checks.image_files import files_of
from regard.data.images.files import OnBadImage
from regard.data.images.sources import ImageClasses, ImageSource, Joined
from regard.data.images.unlabelled import NUM_CLASSES, scan_of, without_labels


class WithoutBoxes(ImageSource):
    """The images of a source with boxes; none has a label."""

    num_classes = NUM_CLASSES

    def __init__(self, source: DetectionSource) -> None:
        self.source, self.sizes, self.skipped = source, source.sizes, source.skipped
        self.labels = ((),) * len(source)

    def read(self, index: int) -> UInt8[Tensor, "channels height width"]:
        return self.source.read(index)

    def name(self, index: int) -> str:
        return self.source.name(index)

    def digest(self, index: int) -> str:
        return self.source.digest(index)


def without_boxes(
    data: DetectionData,
    *,
    channels: int,
    on_bad_image: OnBadImage,
    for_evaluation: bool = False,
) -> ImageClasses:
    """The images that are listed, with boxes or without, in the parts that `data` have.

    Files are read as those of a folder are: what cannot be read is found by its header, here. for_evaluation: `val` is
    what the set holds out, or else all of it. Raises RegardError, and BadImage for unreadable files under "stop".
    """
    parts: Sequence[DetectionSource] = [data.train, data.val]
    files = [files_of(part) for part in parts]
    if not any(files):  # they are drawn
        train, val = map(WithoutBoxes, parts)
        found = ImageClasses(data.address, (), train, val, data.has_val)
    else:
        found = without_labels(
            data.address,
            [scan_of(own, data.decoding) for own in files],
            channels=channels,
            split=None,
            on_bad_image=on_bad_image,
            max_megapixels=data.decoding.max_megapixels,
            decoding=data.decoding,
        )
        for images, part in zip((found.train, found.val), parts, strict=True):
            images.skipped = (*part.skipped, *images.skipped)
    if for_evaluation and not data.has_val:
        return replace(found, val=Joined([found.train, found.val]), has_val=True, repairs=data.repairs)
    return replace(found, has_val=data.has_val, repairs=data.repairs)
