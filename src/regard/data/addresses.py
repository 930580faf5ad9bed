"""A data address is one string that says what data a run uses: `digits`, `folder:PATH`, `coco:PATH`, `numbers`, ..."""

from dataclasses import dataclass
from pathlib import Path

from regard.errors import RegardError, unknown
from regard.files import expanded

# What `regard data list` shows: the kinds of address, one line each.
KINDS: dict[str, str] = {
    "digits": "scikit-learn's 1,797 handwritten digits, 8×8 pixels, 10 classes; they come with the package",
    "folder": "folder:PATH, your own images: PATH/CLASS/*.jpg, or PATH/train/CLASS/*.jpg and PATH/val/CLASS/*.jpg",
    "csv": "csv:FILE.csv, your own images: columns file and label, several labels of an image with ; between them",
    "torchvision": "torchvision:NAME, a standard set (CIFAR10, MNIST, Flowers102, ...), downloaded on first use",
    "digit-scenes": "1,800 scenes of 128×128 pixels, made of handwritten digits on photographs, with their boxes",
    "coco": "coco:PATH, images with boxes: PATH/train, PATH/val, PATH/annotations/instances_*.json; or coco:FILE.json",
    "yolo": "yolo:PATH, images with boxes: PATH/data.yaml, images/ and labels/",
    "voc": "voc:PATH, images with boxes: PATH/JPEGImages, Annotations/*.xml and ImageSets/Main/{train,val}.txt",
    "numbers": "numbers below 100,000 in words, in English, Dutch, French, German and Spanish, and their digits",
    "pairs": "pairs:PATH, your own pairs of texts: lines of SOURCE<TAB>TARGET, or PATH/train.tsv and PATH/val.tsv",
    "pydoc": "the reference manual that comes with Python, English text of some 370,000 characters",
    "text": "text:PATH, your own text: a file in UTF-8, or a folder of *.txt and *.md",
}

# The sorts of data, and the kinds of address that give each; each `open_...` takes one sort.
SORTS: dict[str, tuple[str, ...]] = {
    "images": ("digits", "csv", "folder", "torchvision"),
    "images with boxes": ("digit-scenes", "coco", "yolo", "voc"),
    "pairs of texts": ("numbers", "pairs"),
    "text": ("pydoc", "text"),
}

# What follows the colon; a kind that is not here takes nothing.
_LOCATIONS: dict[str, str] = {
    **dict.fromkeys(("folder", "csv", "coco", "yolo", "voc", "pairs", "text"), "PATH"),
    "torchvision": "NAME",
}


@dataclass(frozen=True)
class Address:
    """A kind of data (a key of `KINDS`) and where it is: a path, a name, or "" for a kind that needs neither."""

    kind: str
    location: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.location}" if self.location else self.kind


def parse_address(text: str) -> Address:
    """Read `kind` or `kind:location`.

    Raises RegardError for an unknown kind, a location that is missing or not wanted, and a path without `folder:`.
    """
    kind, colon, location = (piece.strip() for piece in text.partition(":"))
    if kind not in KINDS:
        if text and expanded(text).exists():
            raise RegardError(f"data address {text!r} has no kind; did you mean '{_guess(Path(text))}:{text}'?")
        raise unknown("kind of data", kind, KINDS, where=f"data address {text!r}")
    wanted = _LOCATIONS.get(kind)
    if wanted is None and colon:
        raise RegardError(f"data address {text!r}: {kind!r} takes nothing after it; write {kind!r}")
    if wanted is not None and not location:
        raise RegardError(f"data address {text!r}: {kind!r} needs a {wanted}; write '{kind}:{wanted}'")
    return Address(kind, location)


def parse_address_of(sort: str, text: str) -> Address:
    """Read an address of one of `SORTS`. Raises RegardError, also where the data is of another sort."""
    address = parse_address(text)
    if address.kind not in SORTS[sort]:
        known = ", ".join(f"{kind}:{_LOCATIONS[kind]}" if kind in _LOCATIONS else kind for kind in SORTS[sort])
        other = next(name for name, kinds in SORTS.items() if address.kind in kinds)
        raise RegardError(f"data address {text!r} gives {other}; {sort} can come from: {known}")
    return address


def _guess(path: Path) -> str:
    """The kind of data that a path probably holds."""
    path = expanded(path)
    if path.is_dir():
        marks = {"coco": "annotations/*.json", "yolo": "data.y*ml", "voc": "JPEGImages"}
        more = {"coco": "*/_annotations.coco.json", "voc": "Annotations/*.xml"}
        marked = (kind for known in (marks, more) for kind, mark in known.items() if any(path.glob(mark)))
        return next(marked, "folder")
    return {".tsv": "pairs", ".json": "coco", ".csv": "csv"}.get(path.suffix.lower(), "text")
