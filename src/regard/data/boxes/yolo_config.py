"""data.yaml of a YOLO folder, or what other tools write in its place: the classes, and where the parts are."""

from pathlib import Path
from typing import Any
from unicodedata import normalize

from regard.data.repairs import Repairs
from regard.errors import RegardError, first_few
from regard.reading import read_text, read_yaml

SPLITS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}


def config_of(path: Path, address: str) -> tuple[Path, dict[str, Any]]:
    """The file that names the classes and the parts, and what it says; where there is none, what is usual."""
    file = next((file for file in (path / "data.yaml", *sorted(path.glob("*.y*ml"))) if file.exists()), None)
    if file is not None:
        config = read_yaml(file)
        if not isinstance(config, dict) or "names" not in config:
            raise RegardError(f"{file}: should be a table with 'names', 'train' and 'val'")
        return file, config
    file = next((path / name for name in ("classes.txt", "obj.names") if (path / name).is_file()), None)
    if file is None:  # Label Studio and CVAT write these two
        raise RegardError(f"{address}: has no data.yaml (nor classes.txt), which names the classes and the folders")
    config = {"names": [line.strip() for line in read_text(file).splitlines() if line.strip()]}
    lists = {split: f"{split}.txt" for split in SPLITS if (path / f"{split}.txt").is_file()}
    if not lists and not (path / "images" / "train").is_dir() and not (path / "train" / "images").is_dir():
        lists = {"train": "images" if (path / "images").is_dir() else "."}
    return file, {**lists, **config}


def names_of(file: Path, config: dict[str, Any], repairs: Repairs) -> list[str]:
    """The classes in the order of their numbers."""
    stated = config["names"]
    if isinstance(stated, dict):
        numbers = {number: name for key, name in stated.items() if (number := integer(key)) is not None}
        if len(numbers) < len(stated) or sorted(numbers) != list(range(len(numbers))):
            got = first_few([str(key)[:20] for key in stated], 8)
            raise RegardError(f"{file}: 'names' must number the classes 0, 1, 2, ..., got {got}")
        stated = [numbers[number] for number in range(len(numbers))]
    if isinstance(stated, list) and not any(isinstance(name, list | dict) for name in stated):
        names = [normalize("NFC", str(name).strip()) for name in stated]
        twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
        if not names or not all(names):
            raise RegardError(f"{file}: 'names' has {'an empty name' if names else 'no class'}")
        if twice:
            raise RegardError(f"{file}: 'names' has {', '.join(map(repr, twice))} more than once")
        if (count := integer(config.get("nc", ""))) not in (None, len(names)):
            repairs.heal(f"class counts (nc) differ from the {len(names)} names, which hold", f"{file}: nc is {count}")
        return names
    raise RegardError(f"{file}: 'names' must be a list of the classes' names, or a table of number and name")


def integer(text: Any) -> int | None:
    """0 for "0" and "0.0"; None for what is no integer of at most nine digits."""
    try:
        value = float(str(text))
    except ValueError:
        return None
    return int(value) if value.is_integer() and abs(value) < 1e9 else None
