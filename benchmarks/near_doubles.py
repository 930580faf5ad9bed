"""How many planted near-doubles are found, and how many pairs of other images are named.

Run: .venv/bin/python benchmarks/near_doubles.py [--photos FOLDER]
Each image of the three sets of photographs is planted once for each kind of change. Wanted: at least 95% are found, at
most one in a thousand other pairs is named, and at most two in 2,000 distinct images. Real near-doubles of the sets,
which were looked at, are listed in `REAL` and count as neither. Also: seconds for 2,000 images.
"""

import argparse
import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageOps

from peer import save
from regard.data import image_files, look_of, near_doubles
from regard.files import expanded

PHOTOS = Path(__file__).resolve().parents[2] / "shared" / "photos"
SETS = ("raccoon", "bccd", "signdigits")
# Copies, or views of the same slide, by the stems of their files.
REAL = {
    frozenset(pair.split())
    for pair in (
        "raccoon-65 raccoon-98",
        "raccoon-52 raccoon-74",
        "raccoon-50 raccoon-74",
        "raccoon-50 raccoon-52",
        "raccoon-120 raccoon-83",
        "raccoon-11 raccoon-116",
        "raccoon-21 raccoon-45",
        "raccoon-51 raccoon-85",
        "BloodImage_00037 BloodImage_00038",
    )
}


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def scaled(image: Image.Image, factor: float) -> Image.Image:
    return image.resize((max(round(image.width * factor), 1), max(round(image.height * factor), 1)))


def brightened(factor: float) -> Callable[[Image.Image], Image.Image]:
    return lambda image: ImageEnhance.Brightness(image).enhance(factor)


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG, quality 60": lambda image: jpeg(image, 60),
    "JPEG, quality 30": lambda image: jpeg(image, 30),
    "half the size": lambda image: scaled(image, 0.5),
    "a third of the size": lambda image: scaled(image, 1 / 3),
    "1.7 times the size": lambda image: scaled(image, 1.7),
    "brightness × 0.6": brightened(0.6),
    "brightness × 1.2": brightened(1.2),
    "brightness × 1.4": brightened(1.4),
    "brightness × 1.6": brightened(1.6),
    "mirrored": ImageOps.mirror,
    "upside down": ImageOps.flip,
    "mirrored, half the size, brightness × 1.3, JPEG": lambda image: jpeg(
        brightened(1.3)(scaled(ImageOps.mirror(image), 0.5)), 50
    ),
}


def tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image).transpose(2, 0, 1).copy())


def measured(folder: Path) -> dict[str, Any]:
    """Of one set: found of each kind of change, pairs that are named wrongly, and seconds."""
    files = image_files(folder)[0]
    images = [Image.open(file).convert("RGB") for file in files]
    start = time.perf_counter()
    looks = [look_of(tensor(image)) for image in images]
    named = near_doubles(looks)
    seconds = time.perf_counter() - start
    wrong = [[files[i].name, files[j].name] for i, j in named if frozenset((files[i].stem, files[j].stem)) not in REAL]
    found = {}
    other = others = 0
    for name, change in CHANGES.items():
        pairs = near_doubles([*looks, *(look_of(tensor(change(image))) for image in images)])
        planted = [(i, j) for i, j in pairs if i < len(images) <= j]
        found[name] = round(sum(j - i == len(images) for i, j in planted) / len(images), 4)
        real = {frozenset((i, j)) for i, j in named}
        other += sum(j - i != len(images) and frozenset((i, j - len(images))) not in real for i, j in planted)
        others += len(images) * (len(images) - 1)
    return {
        "images": len(images),
        "found": found,
        "found_of_all": round(sum(found.values()) / len(found), 4),
        "named_wrongly": wrong,
        "other_pairs_named": other,
        "other_pairs": others,
        "seconds": round(seconds, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=expanded, default=PHOTOS, help="the folder of the data sets (%(default)s)")
    photos = parser.parse_args().photos
    results = {}
    for name in SETS:
        results[name] = found = measured(photos / name)
        print(f"{name}: {found['found_of_all']:.1%} of {found['images']} images found, over all kinds of change")
        for kind, fraction in found["found"].items():
            print(f"  {kind}: {fraction:.1%}")
        print(f"  named wrongly: {found['named_wrongly']}; of {found['other_pairs']} other pairs: ", end="")
        print(f"{found['other_pairs_named']}; {found['seconds']} s")
    save("near_doubles", results)


if __name__ == "__main__":
    main()
