"""The folders that `folder:PATH` takes for classes, and for a training and a validation split."""

from collections.abc import Sequence
from pathlib import Path

from regard.data.images.names import normal
from regard.data.images.walk import entries_of, is_image_file, left_out
from regard.errors import RegardError
from regard.files import expanded

# Names of a validation split. `test` is one only where there is no other: a test set is not for choosing models.
VAL_NAMES = ("val", "valid", "validation")

LAYOUT = "expected PATH/CLASS/image.jpg, or PATH/train/CLASS/image.jpg and PATH/val/CLASS/image.jpg"
WITHOUT_CLASSES = "images without classes can be pre-trained on: `regard pretrain`"


def existing(path: Path) -> Path:
    whole = expanded(path)
    if not whole.exists():
        raise RegardError(f"folder:{path}: no such folder")
    if not whole.is_dir():
        raise RegardError(f"folder:{path}: is a file; {LAYOUT}")
    return whole


def split_folders(path: Path, address: str) -> tuple[Path, Path | None]:
    """The folder whose sub-folders are the classes, and the one of the validation split if there is one."""
    names = subfolders(path)
    held_out = held_out_names(names)
    if "train" not in names:
        return path, None
    if holds_images(path / "train"):
        if held_out:  # otherwise "train" is a class, beside "bus" and "tram"
            raise RegardError(
                f"{address}: images lie in train/ itself, where one folder a class is needed; {LAYOUT}; "
                f"{WITHOUT_CLASSES}"
            )
        return path, None
    require_one(held_out, address)
    return path / "train", path / held_out[0] if held_out else None


def measured_folder(path: Path, address: str) -> Path:
    """The folder of classes that an evaluation takes: without `train`, a part is one if nothing else lies beside it."""
    names = subfolders(path)
    held_out = held_out_names(names)
    if not held_out:
        return path / "train" if names == ["train"] and class_folders(path / "train") else path
    require_one(held_out, address)
    parts = {"train", "test", *VAL_NAMES}
    loose = any(holds_images(path / name) for name in names)
    if "train" in names or (parts.issuperset(names) and not loose):
        return path / held_out[0]
    return path


def held_out_names(names: Sequence[str]) -> list[str]:
    return [name for name in VAL_NAMES if name in names] or [name for name in ("test",) if name in names]


def require_one(held_out: Sequence[str], address: str) -> None:
    if len(held_out) > 1:
        raise RegardError(f"{address}: has {' and '.join(held_out)}; keep one of them as the validation split")


def class_folders(folder: Path) -> dict[str, list[Path]]:
    """The folders of each class, in their order: two whose names differ in Unicode's form alone are one class."""
    classes: dict[str, list[Path]] = {}
    for name in subfolders(folder):
        classes.setdefault(normal(name), []).append(folder / name)
    return classes


def flat_parts(path: Path, address: str) -> tuple[Path, Path | None] | None:
    """The folders of a training and a validation split of images without labels: some lie in these folders themselves.

    None where all images are in folders of classes. A folder `train` that is alone is no class.
    """
    names = subfolders(path)
    held_out = held_out_names(names)
    if "train" in names and (held_out or names == ["train"] or not holds_images(path / "train")):
        require_one(held_out, address)
        train, val = path / "train", path / held_out[0] if held_out else None
    else:
        train, val = path, None
    parts = [train] if val is None else [train, val]
    if not any(holds_images(part) for part in parts) and all(map(class_folders, parts)):
        return None
    return train, val


def holds_images(folder: Path) -> bool:
    """Whether images lie in a folder itself."""
    return any(is_image_file(file) for file in entries_of(folder))


def subfolders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in entries_of(folder) if entry.is_dir() and not left_out(entry.name))
