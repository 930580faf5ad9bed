"""Embedded data written out as files, to try what one's own files would do."""

from collections import Counter
from pathlib import Path

from PIL import Image
from torch.nn.functional import interpolate

from regard.data.boxes.digit_scenes import write_digit_scenes
from regard.data.images.digits import open_digits
from regard.data.images.labels import single_labels
from regard.data.images.sources import Joined
from regard.errors import RegardError, unknown

MADE = ("digits", "digit-scenes")


def make_folder(name: str, folder: Path, size: int | None = None) -> tuple[int, str]:
    """Writes embedded images as files; returns how many there are, and the address to train on them with.

    `digits` are PNG of size × size (8 × 8 unless given), one folder a class; `digit-scenes`, which have a size of
    their own, are in COCO's format. Raises RegardError for an unknown name, or a folder that is not new.
    """
    if name not in MADE:
        raise unknown("data to make", name, MADE)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RegardError(f"{folder}: exists already; choose a new folder")
    if name == "digit-scenes":
        if size is not None:
            raise RegardError("digit-scenes have a size of their own; leave out --size")
        return write_digit_scenes(folder), f"coco:{folder}"
    return _write_digits(folder, 8 if size is None else size), f"folder:{folder}"


def _write_digits(folder: Path, size: int) -> int:
    data = open_digits(channels=1, val_fraction=0.25, split_seed=0)
    images = Joined([data.train, data.val])
    count: Counter[int] = Counter()
    for index, label in enumerate(single_labels(images.labels)):
        image = images.read(index)
        if size != image.shape[-1]:
            resized = interpolate(image[None].float(), (size, size), mode="bicubic", antialias=True)
            image = resized[0].round().clamp(0, 255).byte()
        count[label] += 1
        file = folder / data.class_names[label] / f"{count[label] - 1:03d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[0].numpy()).save(file)
    return len(images)
