"""One training of a YOLO of Ultralytics, from random weights, by the program `yolo` that the user has installed.

photographs.py starts it: photograph_yolo.py yolo ADDRESS MINUTES SEED FILE. Nothing of that package is imported (its
licence is the AGPL): the data are written in its format, its program trains and predicts in processes of its own, and
what it predicts is read from its text files and evaluated as all others are.
"""

import argparse
import math
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor

from regard.data import DetectionData, DetectionSource, open_detection
from regard.files import write_json
from regard.tasks import DetectionEvaluation, Detections

START = time.monotonic() - (time.time() - psutil.Process().create_time())
MODEL, SIDE, BATCH = "yolov8n.yaml", 320, 16
AFTER = 40.0  # seconds for its last evaluation, its prediction and the start of its program
TUNED = "its own settings; its schedule is fitted to the time by its option `time`"


def train(data: DetectionData, folder: Path, end: float, seed: int, *, smoke: bool) -> dict[str, Any]:
    for part, source in (("train", data.train), ("val", data.val)):
        write_part(source, folder, part)
    names = "\n".join(f"  {label}: {name!r}" for label, name in enumerate(data.class_names))
    (folder / "data.yaml").write_text(f"path: {folder}\ntrain: images/train\nval: images/val\nnames:\n{names}\n")
    hours = max(end - time.monotonic() - AFTER, 1) / 3600
    length = {"epochs": 1} if smoke else {"time": round(hours, 5)}
    shared = {"imgsz": 96 if smoke else SIDE, "device": "cpu", "project": folder, "exist_ok": True}
    yolo("train", **shared, **length, data=folder / "data.yaml", model=MODEL, name="train", seed=seed, batch=BATCH,
         workers=0, pretrained=False, val=False, plots=False, amp=False)  # fmt: skip
    last = folder / "train" / "weights" / "last.pt"
    yolo("predict", **shared, model=last, name="predict", source=folder / "images" / "val", conf=0.001,
         iou=0.7, save=False, save_txt=True, save_conf=True)  # fmt: skip
    figures = evaluated(data, folder / "predict" / "labels").metrics()
    steps = figures_of_epochs(folder / "train" / "results.csv", len(data.train))
    return {"ap": figures["ap"], "ap50": figures["ap50"], "nms": "its own", "figures": figures, **steps}


def yolo(mode: str, **settings: Any) -> None:
    words = [f"{key}={value}" for key, value in settings.items()]
    subprocess.run(["yolo", "detect", mode, *words], check=True)


def write_part(source: DetectionSource, folder: Path, part: str) -> None:
    """images/PART/N.jpg, links, and labels/PART/N.txt: class, centre and sides as fractions."""
    for kind in ("images", "labels"):
        (folder / kind / part).mkdir(parents=True)
    for index, (objects, (height, width)) in enumerate(zip(source.objects, source.sizes, strict=True)):
        image = Path(source.name(index)).resolve()
        (folder / "images" / part / f"{index:05}{image.suffix.lower()}").symlink_to(image)
        boxes, labels = objects.boxes_xyxy[~objects.crowd], objects.labels[~objects.crowd]
        corners = boxes / torch.tensor([width, height, width, height])
        rows = torch.cat([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], 1).tolist()
        lines = [
            f"{label} {' '.join(f'{x:.6f}' for x in row)}\n" for label, row in zip(labels.tolist(), rows, strict=True)
        ]
        (folder / "labels" / part / f"{index:05}.txt").write_text("".join(lines))


def evaluated(data: DetectionData, labels: Path) -> DetectionEvaluation:
    """What its text files hold (class, centre, sides, score), beside the held-out objects. An image without a file has
    no detection."""
    source = data.val
    found = []
    for index, (height, width) in enumerate(source.sizes):
        file = labels / f"{index:05}.txt"
        rows = [[float(x) for x in line.split()] for line in file.read_text().splitlines()] if file.exists() else []
        table: Tensor = torch.tensor(rows).view(-1, 6)
        table = table[table[:, 5].argsort(descending=True, stable=True)[:100]]
        centre, sides = table[:, 1:3], table[:, 3:5]
        boxes = torch.cat([centre - sides / 2, centre + sides / 2], 1).clamp(0, 1)
        boxes = boxes * torch.tensor([width, height, width, height])
        own = table[:, 0].long(), table[:, 5]
        found.append(Detections(source.name(index), (height, width), boxes, *own, data.class_names, data.category_ids))
    ids = tuple(source.image_ids)
    return DetectionEvaluation(tuple(found), tuple(source.objects), ids, data.class_names, math.nan)


def figures_of_epochs(file: Path, images: int) -> dict[str, Any]:
    """Steps and images per second, from its table of epochs (whose last line has the seconds so far)."""
    rows = [line.split(",") for line in file.read_text().splitlines()] if file.exists() else []
    if len(rows) < 2:
        return {"steps": None, "images_per_second": None}
    names, last = [name.strip() for name in rows[0]], [value.strip() for value in rows[-1]]
    epochs, seconds = int(float(last[names.index("epoch")])), float(last[names.index("time")])
    speed = round(epochs * images / max(seconds, 1e-9), 1)
    return {"steps": epochs * math.ceil(images / BATCH), "images_per_second": speed}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("way")
    parser.add_argument("address")
    parser.add_argument("minutes", type=float)
    parser.add_argument("seed", type=int)
    parser.add_argument("file", type=Path)
    parser.add_argument("--smoke", action="store_true", help="one epoch of small images")
    given = parser.parse_args()
    if shutil.which("yolo") is None:
        parser.error("`yolo` is not installed")
    with tempfile.TemporaryDirectory() as folder:
        end = START + 60 * given.minutes
        record = train(open_detection(given.address), Path(folder), end, given.seed, smoke=given.smoke)
    write_json(
        given.file, {**record, "pixels": str(SIDE), "batch_size": BATCH, "began": "random weights", "tuned": TUNED}
    )


if __name__ == "__main__":
    main()
