"""What an image is known by, whatever it is called: a hash of its file's bytes, or of its pixels without a file."""

import hashlib
from pathlib import Path

from jaxtyping import UInt8
from torch import Tensor

from regard.data.images.files import BadImage


def digest_of_file(path: Path) -> str:
    """32 hexadecimal digits. Raises BadImage for a file that cannot be read."""
    try:
        with path.open("rb") as opened:
            return hashlib.file_digest(opened, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    except OSError as error:
        raise BadImage(str(path), error.strerror or str(error)) from None


def digest_of_pixels(image: UInt8[Tensor, "channels height width"]) -> str:
    """32 hexadecimal digits."""
    found = hashlib.blake2b(f"{tuple(image.shape)}".encode(), digest_size=16)
    found.update(image.contiguous().numpy().data)
    return found.hexdigest()
