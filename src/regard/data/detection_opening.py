"""From a data address to images with boxes."""

from pathlib import Path

from regard.data.addresses import parse_address_of
from regard.data.coco import Annotations, open_coco
from regard.data.detection import DetectionData
from regard.data.images import OnBadImage, require_channels
from regard.data.scene_files import without_bad_images
from regard.data.scenes import open_digit_scenes
from regard.errors import RegardError


def open_detection(
    address: str,
    *,
    channels: int = 3,
    val_fraction: float = 0.25,
    split_seed: int = 0,
    on_bad_image: OnBadImage = "stop",
    annotations: Annotations | None = None,
) -> DetectionData:
    """Open the images with boxes behind an address.

    address: see `regard.data.KINDS`. channels: 1 (grey) or 3 (RGB).
    val_fraction, split_seed: how a validation part is split off where the data has none of its own.
    on_bad_image: whether an image that is missing, unreadable or of another size than stated is an error when it is
    read, or left out here and listed in `train.skipped` and `val.skipped`.
    annotations: COCO's files, where they are not where they are looked for.
    Raises RegardError.
    """
    require_channels(channels)
    parsed = parse_address_of("images with boxes", address)
    if annotations not in (None, Annotations()) and parsed.kind != "coco":
        raise RegardError(f"{address}: data.train_annotations and the like are for coco:PATH")
    if parsed.kind == "digit-scenes":
        return open_digit_scenes(channels)
    path = Path(parsed.location).expanduser()
    if parsed.kind == "coco":
        data = open_coco(
            path, channels=channels, annotations=annotations, val_fraction=val_fraction, split_seed=split_seed
        )
    elif parsed.kind == "yolo":
        from regard.data.yolo import open_yolo

        data = open_yolo(path, channels=channels, val_fraction=val_fraction, split_seed=split_seed)
    else:
        from regard.data.voc import open_voc

        data = open_voc(path, channels=channels, val_fraction=val_fraction, split_seed=split_seed)
    return without_bad_images(data) if on_bad_image == "skip" else data
