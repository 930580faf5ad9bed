"""How long a COCO file of 100,000 boxes takes to open, beside pycocotools, which reads the same file.

Run: .venv/bin/python benchmarks/coco_loading.py
"""

import contextlib
import io
import json
import random
import tempfile
from pathlib import Path

from pycocotools.coco import COCO

from peer import interleaved, save
from regard.data import open_detection

BOXES, IMAGES, CLASSES = 100_000, 15_000, 80
TURNS = 5


def write(file: Path) -> None:
    draw = random.Random(0)
    images = [{"id": i, "file_name": f"{i:012d}.jpg", "width": 640, "height": 480} for i in range(1, IMAGES + 1)]
    annotations = []
    for number in range(1, BOXES + 1):
        width, height = draw.uniform(5, 200), draw.uniform(5, 200)
        box = [round(value, 2) for value in (draw.uniform(0, 440), draw.uniform(0, 280), width, height)]
        annotations.append(
            {"id": number, "image_id": draw.randint(1, IMAGES), "category_id": draw.randint(1, CLASSES)}
            | {"bbox": box, "area": round(width * height, 2), "iscrowd": 0, "segmentation": [box * 4]}
        )
    categories = [{"id": i, "name": f"class {i}"} for i in range(1, CLASSES + 1)]
    whole = {"images": images, "annotations": annotations, "categories": categories}
    file.write_text(json.dumps(whole), encoding="utf-8")


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "annotations").mkdir()
        file = folder / "annotations" / "instances_train.json"
        write(file)

        def theirs() -> COCO:
            with contextlib.redirect_stdout(io.StringIO()):
                return COCO(str(file))

        ways = {"pycocotools": theirs, "regard": lambda: open_detection(f"coco:{folder}")}
        seconds = interleaved(ways, repetitions=TURNS, warm_up=1)
        size = file.stat().st_size / 2**20
    found = {name: round(sorted(times)[len(times) // 2], 2) for name, times in seconds.items()}
    print(f"{BOXES} boxes, {size:.0f} MB: " + ", ".join(f"{name} {time} s" for name, time in found.items()))
    results = {"boxes": BOXES, "images": IMAGES, "megabytes": round(size, 1), "median_s": found}
    print(f"saved to {save('coco_loading', results, ('pycocotools',))}")


if __name__ == "__main__":
    main()
