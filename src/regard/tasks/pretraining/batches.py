"""Batches of images without labels, and what is to be learned of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

from regard.data import Normalise, Preprocessing, Skipped, with_colours
from regard.models import Features


@dataclass(slots=True)
class Lesson:
    """One image as the student sees it, with a teacher's features of it, or with its patches in a random order.

    colours: factors of a change of its colours, which is made for the whole batch; the image is then uint8.
    """

    image: Shaped[Tensor, "channels height width"]
    name: str
    features: Sequence[Tensor] = ()
    order: Int64[Tensor, " patches"] | None = None
    colours: Float[Tensor, "3"] | None = None


@dataclass
class PretrainingBatch:
    """Lessons, joined. `skipped` names the images that could not be read, with the reason; no other field has them."""

    images: Float[Tensor, " batch *shape"]
    names: list[str]
    skipped: list[str]
    features: Features | None = None
    order: Int64[Tensor, "batch patches"] | None = None

    def __len__(self) -> int:
        return len(self.names)

    def to(self, device: torch.device | str) -> "PretrainingBatch":
        return self._each(lambda tensor: tensor.to(device))

    def pin_memory(self) -> "PretrainingBatch":
        """The same batch in page-locked memory; a DataLoader asks for it."""
        return self._each(lambda tensor: tensor.pin_memory())

    def _each(self, change: Callable[[Tensor], Tensor]) -> "PretrainingBatch":
        features = self.features
        if features is not None:
            logits = None if features.logits is None else change(features.logits)
            features = Features(change(features.pooled), change(features.pixels), logits)
        order = None if self.order is None else change(self.order)
        return replace(self, images=change(self.images), features=features, order=order)


def joined(items: Sequence[Lesson | Skipped], pre: Preprocessing | None = None) -> PretrainingBatch:
    """A batch of lessons, without the images that were skipped.

    pre: normalises images that are uint8 yet, once their colours are changed.
    """
    found = [item for item in items if isinstance(item, Lesson)]
    features, order = None, None
    if found and found[0].features:
        kinds = zip(*(one.features for one in found), strict=True)
        features = Features(*(torch.stack(kind).float() for kind in kinds))
    if found and found[0].order is not None:
        order = torch.stack([one.order for one in found if one.order is not None])
    return PretrainingBatch(
        images=_images(found, pre) if found else torch.zeros(0, 0, 0, 0),
        names=[one.name for one in found],
        skipped=[item.reason for item in items if isinstance(item, Skipped)],
        features=features,
        order=order,
    )


def _images(lessons: Sequence[Lesson], pre: Preprocessing | None) -> Float[Tensor, "batch channels height width"]:
    images = torch.stack([one.image for one in lessons])
    if pre is None or images.is_floating_point():
        return images
    colours = [one.colours for one in lessons if one.colours is not None]
    if colours:
        images = with_colours(images.float() / 255, torch.stack(colours)) * 255
    return Normalise(pre.mean, pre.std)(images)
