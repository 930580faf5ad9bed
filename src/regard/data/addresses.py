"""A data address is one string that says what data a run uses: `digits`, `folder:PATH`, `torchvision:CIFAR10`."""

from dataclasses import dataclass
from pathlib import Path

from regard.errors import RegardError, unknown

# What `regard data list` shows: the kinds of address, one line each.
KINDS: dict[str, str] = {
    "digits": "scikit-learn's 1,797 handwritten digits, 8×8 pixels, 10 classes; they come with the package",
    "folder": "folder:PATH, your own images: PATH/CLASS/*.jpg, or PATH/train/CLASS/*.jpg and PATH/val/CLASS/*.jpg",
    "torchvision": "torchvision:NAME, a standard set (CIFAR10, MNIST, Flowers102, ...), downloaded on first use",
}

# What follows the colon; a kind that is not here takes nothing.
_LOCATIONS: dict[str, str] = {"folder": "PATH", "torchvision": "NAME"}


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
    kind, colon, location = (part.strip() for part in text.partition(":"))
    if kind not in KINDS:
        if text and Path(text).expanduser().exists():
            raise RegardError(f"data address {text!r} has no kind; did you mean 'folder:{text}'?")
        raise unknown("kind of data", kind, KINDS, where=f"data address {text!r}")
    wanted = _LOCATIONS.get(kind)
    if wanted is None and colon:
        raise RegardError(f"data address {text!r}: {kind!r} takes nothing after it; write {kind!r}")
    if wanted is not None and not location:
        raise RegardError(f"data address {text!r}: {kind!r} needs a {wanted}; write '{kind}:{wanted}'")
    return Address(kind, location)
