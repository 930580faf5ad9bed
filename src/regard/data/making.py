"""Embedded data written out as files, to try what one's own files would do."""

from collections import Counter
from pathlib import Path

from torch.nn.functional import interpolate

from regard.data.digits import open_digits
from regard.data.sources import Joined
from regard.errors import RegardError, unknown

MADE = ("digits",)


def make_folder(name: str, folder: Path, size: int) -> int:
    """Writes embedded images as PNG, one folder a class, resized to size × size; returns how many.

    Raises RegardError for an unknown name, or a folder that is not new.
    """
    from torchvision.io import write_png

    if name not in MADE:
        raise unknown("data to make", name, MADE)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RegardError(f"{folder}: exists already; choose a new folder")
    data = open_digits(channels=1, val_fraction=0.25, split_seed=0)
    images = Joined([data.train, data.val])
    count: Counter[int] = Counter()
    for index, label in enumerate(images.labels):
        image = images.read(index)
        if size != image.shape[-1]:
            resized = interpolate(image[None].float(), (size, size), mode="bicubic", antialias=True)
            image = resized[0].round().clamp(0, 255).byte()
        count[label] += 1
        file = folder / data.class_names[label] / f"{count[label] - 1:03d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_png(image, str(file))
    return len(images)
