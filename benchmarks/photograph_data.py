"""Parts of the photographs' data sets, laid out as folders of their own: links to the files, and lists of their own."""

import random
from pathlib import Path

SUBSET_SEED = 0


def voc_subset(source: Path, folder: Path, number: int, *, held_out: int | None = None) -> Path:
    """`number` of the training images, drawn at random, so that a smaller subset is part of a larger one.

    All held-out images stay, or the first `held_out` of them. The draw is always the same.
    """
    lists = {name: (source / "ImageSets" / "Main" / f"{name}.txt").read_text().split() for name in ("train", "val")}
    drawn = random.Random(SUBSET_SEED).sample(lists["train"], len(lists["train"]))[:number]
    (folder / "ImageSets" / "Main").mkdir(parents=True)
    for name, stems in (("train", sorted(drawn)), ("val", lists["val"][:held_out])):
        (folder / "ImageSets" / "Main" / f"{name}.txt").write_text("".join(f"{stem}\n" for stem in stems))
    for part in ("Annotations", "JPEGImages"):
        (folder / part).symlink_to((source / part).resolve())
    return folder


def tiny_classes(source: Path, folder: Path, classes: int = 3, images: int = 6) -> Path:
    """The first images of the first classes, which is no data set but enough to try a training."""
    for kind in sorted(path for path in source.iterdir() if path.is_dir())[:classes]:
        (folder / kind.name).mkdir(parents=True)
        for image in sorted(kind.iterdir())[:images]:
            (folder / kind.name / image.name).symlink_to(image.resolve())
    return folder
