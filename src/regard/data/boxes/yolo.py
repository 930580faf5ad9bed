"""YOLO's folders: a data.yaml, images, and beside them labels, a text file an image. Read by supervision."""

import warnings
from pathlib import Path
from typing import Any

import torch
import yaml

from regard.data.boxes.sources import DetectionData, FileDetectionSource, Objects, in_two_splits
from regard.data.images.files import check_header
from regard.errors import RegardError, one_line

SPLITS = {"train": ("train",), "val": ("val", "valid")}


def open_yolo(path: Path, *, channels: int, val_fraction: float = 0.25, split_seed: int = 0) -> DetectionData:
    """PATH/data.yaml (or another *.yaml there) with `names`, `train` and `val`.

    The folders of images have `labels` where their paths have `images`; without such a word the text files lie beside
    the images. An image without a text file holds no object; polygons become the boxes around them. Without `val`, a
    split is drawn by seed. Raises RegardError, also where supervision is not installed.
    """
    address = f"yolo:{path}"
    if not path.is_dir():
        raise RegardError(f"{address}: is not a folder" if path.exists() else f"{address}: does not exist")
    config_file = next((file for file in (path / "data.yaml", *sorted(path.glob("*.y*ml"))) if file.exists()), None)
    if config_file is None:
        raise RegardError(f"{address}: has no data.yaml, which names the classes and the folders")
    config = _config(config_file)
    folders = {split: _images(path, config, config_file, split) for split in SPLITS}
    if folders["train"] is None:
        raise RegardError(f"{config_file}: names no folder of images under 'train'")
    read = {split: _read(folder, config_file, channels) for split, folder in folders.items() if folder is not None}
    names, train = read["train"]
    val = read["val"][1] if "val" in read else None
    return in_two_splits(address, names, train, val, val_fraction=val_fraction, split_seed=split_seed)


def _config(file: Path) -> dict[str, Any]:
    try:
        config = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RegardError(f"{file}: is not YAML: {one_line(error)}") from None
    if not isinstance(config, dict) or "names" not in config:
        raise RegardError(f"{file}: should be a table with 'names', 'train' and 'val'")
    return config


def _images(path: Path, config: dict[str, Any], file: Path, split: str) -> Path | None:
    """The folder of a split's images; None where there is none."""
    stated = config.get(split)
    if stated is None:
        usual = [path / name / "images" for name in SPLITS[split]] + [path / "images" / name for name in SPLITS[split]]
        return next((folder for folder in usual if folder.is_dir()), None)
    if not isinstance(stated, str):
        raise RegardError(f"{file}: {split!r} is {stated!r}; it must be one folder of images")
    # As others do: from `path` in the file, from the file, and, for Roboflow's ../train/images, from the file's folder.
    base = path / str(config.get("path", ""))
    tried = [base / stated, path / stated, path / stated.removeprefix("../")]
    folder = next((folder for folder in tried if folder.is_dir()), None)
    if folder is None:
        raise RegardError(f"{file}: {split!r} is {stated!r}, but {tried[1]} is not a folder")
    return folder


def _read(folder: Path, config_file: Path, channels: int) -> tuple[list[str], FileDetectionSource]:
    names = list(folder.parts)
    if "images" in names:
        place = len(names) - 1 - names[::-1].index("images")
        names[place] = "labels"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it runs without OpenCV, which is not needed here
            from supervision import DetectionDataset

            read = DetectionDataset.from_yolo(str(folder), str(Path(*names)), str(config_file))
    except ImportError:
        raise RegardError("yolo: is read by supervision; install it with: pip install 'regard[supervision]'") from None
    except (ValueError, OSError) as error:
        raise RegardError(f"yolo: {one_line(error)}") from None
    files, sizes, stated = [], [], []
    for image, detections in sorted(read.annotations.items()):
        classes = detections.class_id
        labels = torch.zeros(0, dtype=torch.int64) if classes is None else torch.from_numpy(classes.astype("int64"))
        boxes = torch.from_numpy(detections.xyxy.astype("float32")).view(-1, 4)
        areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
        files.append(Path(image))
        sizes.append(check_header(image))
        stated.append(Objects(boxes, labels, areas, torch.zeros(len(labels), dtype=torch.bool)))
    if not files:
        raise RegardError(f"yolo: {folder}: holds no images")
    return list(read.classes), FileDetectionSource(files, sizes, stated, channels)
