"""From an image with boxes as it was read to a detector's input: resized, perhaps changed at random, normalised."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

from regard.data.boxes.sources import Objects
from regard.data.images.pixels import AS_STORED, Decoding, require_channels
from regard.data.images.transforms import Normalise
from regard.errors import RegardError

DetectionTransform = Callable[[Tensor, Objects], tuple[Tensor, Objects]]

# ImageNet's: the images that backbones are pretrained on.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class DetectionPreprocessing:
    """What is done to every image of a run, in training and after: it is stored with the weights.

    shortest: pixels of the shorter side, unless the longer side would come to more than `longest`. channels: 1 or 3.
    mean, std: of each channel, in units where white is 1. decoding: how files become 8 bits. divisor: both sides are
    rounded to a multiple of it, as patches want it. Raises RegardError for a value out of range.
    """

    shortest: int
    longest: int
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    decoding: Decoding = AS_STORED
    divisor: int = 1

    def __post_init__(self) -> None:
        require_channels(self.channels)
        if self.divisor < 1:
            raise RegardError(f"divisor is {self.divisor}; it must be at least 1")
        if not 1 <= self.shortest <= self.longest:
            raise RegardError(f"shortest is {self.shortest}; it must be between 1 and longest, {self.longest}")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != self.channels:
                raise RegardError(f"{name} is {values}; it must be one number for each of {self.channels} channels")
        if min(self.std) <= 0:
            raise RegardError(f"std is {self.std}; it must be above 0")

    def prepared_size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) that an image of this size is brought to."""
        return resized(height, width, self.shortest, self.longest, self.divisor)

    def seen(self, image: Float32[Tensor, "channels height width"]) -> UInt8[Tensor, "channels height width"]:
        """A preprocessed image as a picture again: normalisation undone."""
        mean, std = (torch.tensor(values)[:, None, None] for values in (self.mean, self.std))
        return ((image * std + mean) * 255).round().clamp(0, 255).byte()

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as they are stored in JSON; `decoding` and `divisor` only where they are not the usual ones."""
        values = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
        usual = {"decoding": self.decoding == AS_STORED, "divisor": self.divisor == 1}
        return {key: value for key, value in values.items() if not usual.get(key)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "DetectionPreprocessing":
        """The inverse of `to_dict`. Raises RegardError for missing or unknown keys and for values of a wrong type."""
        wanted = {field.name for field in fields(cls)}
        needed = wanted - {"decoding", "divisor"}
        if not needed <= values.keys() <= wanted:
            missing = ", ".join(sorted(needed - values.keys())) or "none"
            surplus = ", ".join(sorted(values.keys() - wanted)) or "none"
            raise RegardError(f"preprocessing: missing keys: {missing}; unknown keys: {surplus}")
        try:
            shortest, longest, channels = (int(values[name]) for name in ("shortest", "longest", "channels"))
            divisor = int(values.get("divisor", 1))
            mean, std = (tuple(float(value) for value in values[name]) for name in ("mean", "std"))
        except (TypeError, ValueError) as error:
            raise RegardError(f"preprocessing: {error}") from None
        return cls(shortest, longest, channels, mean, std, Decoding.from_dict(values.get("decoding", {})), divisor)


@dataclass(frozen=True)
class DetectionAugmentation:
    """Random changes to training images and their boxes, each with a value that turns it off.

    flip: left and right, half of the time. scales: shorter sides, of which one is drawn (empty: `shortest`).
    crop: half of the time, DETR's: resized to half to three quarters, then cut. colour: strength of changes to
    brightness, contrast, saturation and hue, 0 to 1 (0: off). What `MosaicAndJitter` does comes before.
    """

    flip: bool
    scales: tuple[int, ...]
    crop: bool
    colour: float


def resized(height: int, width: int, shortest: float | int, longest: float | int, divisor: int = 1) -> tuple[int, int]:
    """The size of the same aspect whose shorter side is `shortest`, or whose longer is `longest` if that is smaller.

    Both sides are rounded to a multiple of `divisor`, and are at least that.
    """
    scale = min(shortest / min(height, width), longest / max(height, width)) / divisor
    return max(round(height * scale), 1) * divisor, max(round(width * scale), 1) * divisor


def detection_evaluation_transform(pre: DetectionPreprocessing) -> DetectionTransform:
    """uint8 (channels, height, width) and its boxes -> float32, resized and normalised, and boxes in its pixels."""
    normalise = Normalise(pre.mean, pre.std)

    def transform(image: Tensor, objects: Objects) -> tuple[Tensor, Objects]:
        size = pre.prepared_size(image.shape[1], image.shape[2])
        return normalise(scaled(image, size)), scaled_objects(objects, image.shape[1:], size)

    return transform


def detection_training_transform(
    pre: DetectionPreprocessing, augmentation: DetectionAugmentation
) -> DetectionTransform:
    """As `detection_evaluation_transform`, with random changes drawn from torch's global generator.

    Boxes are cropped with the image; those with less than a pixel left are dropped with their labels.
    """
    from torchvision.transforms import v2
    from torchvision.tv_tensors import BoundingBoxes, BoundingBoxFormat, Image, wrap

    scales = list(augmentation.scales) or [pre.shortest]
    whole = v2.RandomShortestSize(scales, max_size=pre.longest)
    steps: list[Any] = [whole]
    if augmentation.crop:
        # In the paper's pixels: resized to 400, 500 or 600 of 800, and cut to 384 to 600.
        smaller = v2.RandomShortestSize([round(pre.shortest * fraction) for fraction in (0.5, 0.625, 0.75)])
        cut = RandomCutOut(round(pre.shortest * 0.48), round(pre.shortest * 0.75))
        steps = [v2.RandomChoice([whole, v2.Compose([smaller, cut, whole])])]
    if augmentation.flip:
        steps.insert(0, v2.RandomHorizontalFlip())
    if augmentation.colour:
        strength = augmentation.colour
        steps.append(v2.ColorJitter(strength, strength, strength if pre.channels == 3 else None, strength / 4))
    change, normalise = v2.Compose(steps), Normalise(pre.mean, pre.std)

    def transform(image: Tensor, objects: Objects) -> tuple[Tensor, Objects]:
        size = (image.shape[1], image.shape[2])
        boxes = BoundingBoxes(objects.boxes_xyxy, format=BoundingBoxFormat.XYXY, canvas_size=size)
        seen, boxes = change(Image(image), boxes)
        corners = wrap(v2.functional.clamp_bounding_boxes(boxes), like=boxes).as_subclass(Tensor)
        kept = (corners[:, 2:] - corners[:, :2] >= 1).all(1)
        objects = Objects(corners[kept], objects.labels[kept], objects.areas[kept], objects.crowd[kept])
        return normalise(seen.as_subclass(Tensor)), objects

    return transform


def RandomCutOut(low: int, high: int) -> Any:  # noqa: N802 (torchvision's transforms are called so)
    """A transform of torchvision's that cuts out a rectangle with sides drawn between `low` and `high` pixels."""
    from torchvision.transforms import v2

    class Cut(v2.Transform):  # type: ignore[misc] # torchvision has no types
        def make_params(self, flat_inputs: list[Any]) -> dict[str, int]:
            size = v2.functional.get_size(flat_inputs[0])
            # Sides at least as long as `low` where the image has them, and never longer than the image.
            height, width = (_drawn(min(low, side), min(high, side)) for side in size)
            return {"top": _drawn(0, size[0] - height), "left": _drawn(0, size[1] - width)} | {
                "height": height,
                "width": width,
            }

        def transform(self, inpt: Any, params: dict[str, int]) -> Any:
            return self._call_kernel(v2.functional.crop, inpt, **params)

    return Cut()


def _drawn(low: int, high: int) -> int:
    return int(torch.randint(low, high + 1, ()).item())


def scaled(image: Tensor, size: Sequence[int]) -> Tensor:
    """The image, brought to (height, width)."""
    from torchvision.transforms.v2 import functional

    return image if tuple(image.shape[1:]) == tuple(size) else functional.resize(image, list(size), antialias=True)


def scaled_objects(objects: Objects, stored: Sequence[int], size: Sequence[int]) -> Objects:
    """The objects of an image that is brought from one (height, width) to another; areas stay as they were stated."""
    scale = torch.tensor([size[1] / stored[1], size[0] / stored[0]]).repeat(2)
    return Objects(objects.boxes_xyxy * scale, objects.labels, objects.areas, objects.crowd)
