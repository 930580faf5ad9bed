"""What is kept of the images that a check decodes, so that each is decoded once."""

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from regard.data.images.digests import digest_of_pixels
from regard.data.images.near_doubles import Look, look_of

Place = tuple[str, int]
"""The part, "train" or "val", and the index of an image there."""
See = Callable[[str, int, Tensor], object]
"""Is given the part, the index and the pixels of each image."""


def see_nothing(part: str, index: int, image: Tensor) -> None:
    """Keeps nothing."""


@dataclass
class Seen:
    """What is kept of each image that a check decodes. `told` is called after each."""

    told: Callable[[int], object] | None = None
    places: list[Place] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)

    def see(self, part: str, index: int, image: Tensor) -> None:
        self.places.append((part, index))
        self.looks.append(look_of(image))
        self.digests.append(digest_of_pixels(image))
        if self.told is not None:
            self.told(len(self.places))
