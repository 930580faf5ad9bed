"""Image files that contenders answer from end to end."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from regard.errors import RegardError

if TYPE_CHECKING:
    from regard.tasks import Classifier, Detector


def image_files(predictor: "Classifier | Detector", run: str, data: str | None, count: int, folder: Path) -> list[str]:
    """Up to `count` images of the run's training data as PNG files in `folder`; random pixels where it has none."""
    from regard.api.evaluation import training_images
    from regard.data import BadImage
    from regard.export.random_images import usual_size

    found: list[np.ndarray] = []
    try:
        source, places = training_images(predictor, run, data)
        for place in places[:count]:
            found.append(source.read(place).permute(1, 2, 0).numpy())
    except BadImage:
        pass  # those before it will do
    except RegardError:
        if data is not None:
            raise
    if not found:
        shape = (*usual_size(predictor), predictor.preprocessing.channels)
        found = [np.random.default_rng(0).integers(256, size=shape).astype(np.uint8)]
    files = []
    for number, pixels in enumerate(found):
        file = folder / f"image-{number}.png"
        Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(file)
        files.append(str(file))
    return files
