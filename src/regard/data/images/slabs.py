"""Small images that stay in memory, side by side in large blocks."""

import torch
from torch import Tensor

SLAB = 2**22  # bytes


class Slabs:
    """Copies of uint8 images. Each for itself would keep a hole in the heap from closing, which the next large tensor
    does not fit into: a training on thousands of small images then takes gigabytes more."""

    def __init__(self) -> None:
        self._images: dict[int, Tensor] = {}
        self._free = torch.empty(0, dtype=torch.uint8)

    def get(self, number: int) -> Tensor | None:
        return self._images.get(number)

    def put(self, number: int, image: Tensor) -> Tensor:
        """The copy, which `get` gives from now on."""
        size = image.numel()
        if size > len(self._free):
            self._free = torch.empty(max(SLAB, size), dtype=torch.uint8)
        kept, self._free = self._free[:size].view(image.shape), self._free[size:]
        self._images[number] = kept.copy_(image)
        return kept

    def clear(self) -> None:
        self._images.clear()
        self._free = self._free[:0]
