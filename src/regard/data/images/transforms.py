"""From an image as it was read (uint8, any size) to the model's input: float32, one size, normalised."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Real, UInt8
from torch import Tensor

from regard.data.images.files import BadImage
from regard.data.images.parts import drawn_box, turned
from regard.data.images.pixels import AS_STORED, Decoding, require_channels
from regard.data.images.sources import ImageSource
from regard.errors import RegardError, first_few, unknown

# Plain functions of an image, not modules: calling a module costs more than most of these do on a small image.
Transform = Callable[[Tensor], Tensor]

INTERPOLATIONS = ("bilinear", "bicubic", "nearest")
RESIZES = ("crop", "squash", "letterbox")

# No standard deviation is below one grey level, so that images of one colour don't divide by zero.
SMALLEST_STD = 1 / 255

# An image that is longer than this many of its crops is cut before it is resized: a strip of 1 × 5000 pixels would
# become one of a million pixels' length, of which the crop keeps the middle.
LONGEST = 8


@dataclass(frozen=True)
class Preprocessing:
    """What is done to every image of a run, in training and after: it is stored with the weights.

    img_size: (height, width) in pixels. channels: 1 or 3. mean, std: of each channel, in units where white is 1.
    interpolation: one of `INTERPOLATIONS`. crop_fraction: the fraction of the resized image's height and width, in
    (0, 1], that the centre crop keeps. decoding: how files become 8 bits. resize: how an image of another aspect gets
    this size: "crop" keeps the middle of it; "squash" and "letterbox" keep the whole image, the first with its aspect
    changed, the second between bars of the mean colour. Raises RegardError for a value out of range.
    """

    img_size: tuple[int, int]
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    crop_fraction: float
    decoding: Decoding = AS_STORED
    resize: str = "crop"

    def __post_init__(self) -> None:
        require_channels(self.channels)
        _require(min(self.img_size) >= 1, "img_size", self.img_size, "at least 1 × 1")
        _require(len(self.mean) == self.channels, "mean", self.mean, f"one number for each of {self.channels} channels")
        _require(len(self.std) == self.channels, "std", self.std, f"one number for each of {self.channels} channels")
        _require(min(self.std) > 0, "std", self.std, "above 0")
        _require(0 < self.crop_fraction <= 1, "crop_fraction", self.crop_fraction, "above 0 and at most 1")
        if self.interpolation not in INTERPOLATIONS:
            raise unknown("interpolation", self.interpolation, INTERPOLATIONS)
        if self.resize not in RESIZES:
            raise unknown("resize", self.resize, RESIZES)
        if self.resize != "crop":
            _require(self.crop_fraction == 1, "crop_fraction", self.crop_fraction, f"1 where resize is {self.resize}")

    def seen(self, image: Float32[Tensor, "channels height width"]) -> UInt8[Tensor, "channels height width"]:
        """A preprocessed image as a picture again: normalisation undone."""
        mean, std = (torch.tensor(values)[:, None, None] for values in (self.mean, self.std))
        return ((image * std + mean) * 255).round().clamp(0, 255).byte()

    def to_dict(self) -> dict[str, object]:
        """Plain values, as they are stored in JSON; `decoding` and `resize` only where they are not the usual ones."""
        values = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
        usual = (("decoding", self.decoding == AS_STORED), ("resize", self.resize == "crop"))
        left_out = {key for key, is_usual in usual if is_usual}
        return {key: value for key, value in values.items() if key not in left_out}

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> "Preprocessing":
        """The inverse of `to_dict`. Raises RegardError for missing or unknown keys and for values of a wrong type."""
        wanted = {field.name for field in fields(cls)}
        needed = wanted - {"decoding", "resize"}
        if not needed <= values.keys() <= wanted:
            missing = ", ".join(sorted(needed - values.keys())) or "none"
            surplus = ", ".join(sorted(values.keys() - wanted)) or "none"
            raise RegardError(f"preprocessing: missing keys: {missing}; unknown keys: {surplus}")
        img_size = _items(values, "img_size")
        _require(len(img_size) == 2, "img_size", img_size, "two numbers, height and width")
        return cls(
            img_size=(_whole("img_size", img_size[0]), _whole("img_size", img_size[1])),
            channels=_whole("channels", values["channels"]),
            mean=tuple(_number("mean", value) for value in _items(values, "mean")),
            std=tuple(_number("std", value) for value in _items(values, "std")),
            interpolation=str(values["interpolation"]),
            crop_fraction=_number("crop_fraction", values["crop_fraction"]),
            decoding=Decoding.from_dict(values.get("decoding", {})),
            resize=str(values.get("resize", "crop")),
        )


@dataclass(frozen=True)
class Augmentation:
    """Random changes to training images, each with a value that turns it off.

    shift: by up to so many pixels along both axes (0: off). flip: left and right, half of the time.
    crop_scale: the smallest fraction of the area that a random crop keeps (1: off, the centre crop instead).
    rand_augment: how many operations of RandAugment (0: off), of magnitude 0 to 30.
    erase: how often a random box becomes the mean colour, 0 to 1 (0: off).
    rotation: degrees by which the image, or its part, is turned, at most, to either side (0: off).
    colour: strength of random changes of brightness, contrast and saturation, 0 to 1 (0: off).
    """

    shift: int
    flip: bool
    crop_scale: float
    rand_augment: int
    rand_augment_magnitude: int
    erase: float
    rotation: float
    colour: float

    def __post_init__(self) -> None:
        _require(self.shift >= 0, "shift", self.shift, "at least 0 pixels")
        _require(0 < self.crop_scale <= 1, "crop_scale", self.crop_scale, "above 0 and at most 1 (off)")
        _require(self.rand_augment >= 0, "rand_augment", self.rand_augment, "at least 0 operations")
        _require(
            0 <= self.rand_augment_magnitude <= 30, "rand_augment_magnitude", self.rand_augment_magnitude, "0 to 30"
        )
        _require(0 <= self.erase <= 1, "erase", self.erase, "between 0 (never) and 1 (always)")
        _require(0 <= self.rotation <= 180, "rotation", self.rotation, "0 to 180 degrees")
        _require(0 <= self.colour <= 1, "colour", self.colour, "between 0 (off) and 1")


def evaluation_transform(pre: Preprocessing) -> Transform:
    """uint8 (channels, height, width) -> float32 (channels, *img_size): resize, crop or pad, normalise."""
    from torchvision.transforms import v2  # it takes over a second to import

    return v2.Compose([Resize(pre), Normalise(pre.mean, pre.std), *_bars(pre)])


def training_transform(pre: Preprocessing, augmentation: Augmentation) -> Transform:
    """As `evaluation_transform`, with random changes drawn from torch's global generator; only those that are on."""
    from torchvision.transforms import v2

    steps: list[Transform] = [Resize(pre) if augmentation.crop_scale == 1 else RandomCrop(pre, augmentation.crop_scale)]
    if augmentation.rotation:
        steps = [RandomPart(pre, augmentation.crop_scale, augmentation.rotation)]
    if augmentation.shift:
        steps.append(Shift(augmentation.shift))
    if augmentation.flip:
        steps.append(v2.RandomHorizontalFlip())
    if augmentation.rand_augment:
        steps.append(v2.RandAugment(augmentation.rand_augment, augmentation.rand_augment_magnitude))
    if augmentation.colour:
        steps.append(recoloured(pre.channels, augmentation.colour))
    steps += [Normalise(pre.mean, pre.std), *_bars(pre)]
    if augmentation.erase:
        steps.append(v2.RandomErasing(p=augmentation.erase))  # with 0, which is the mean by now
    return v2.Compose(steps)


def recoloured(channels: int, strength: float) -> Transform:
    """Changes brightness, contrast and saturation, each at random by at most the strength."""
    from torchvision.transforms import v2

    changed: Transform = v2.ColorJitter(strength, strength, None if channels == 1 else strength)
    return changed


class Resize:
    """Crop: resizes to the smallest image of the same aspect that covers img_size / crop_fraction; crops the middle.

    Squash: resizes to img_size. Letterbox: to the largest image of the same aspect within it; the bars come later.
    An image that has the size already is left as it is.
    """

    def __init__(self, pre: Preprocessing) -> None:
        self.pre = pre
        self.img_size = pre.img_size
        self.crop_fraction = pre.crop_fraction
        self.interpolation = interpolation_of(pre)

    def __call__(self, image: UInt8[Tensor, "channels height width"]) -> UInt8[Tensor, "channels out_height out_width"]:
        height, width = self.img_size
        if image.shape[1:] == self.img_size:
            return image
        from torchvision.transforms.v2 import functional

        if self.pre.resize != "crop":
            whole = whole_size(self.pre, image.shape[1], image.shape[2])
            return functional.resize(image, list(whole), self.interpolation, antialias=True)
        scale = max(height / image.shape[1], width / image.shape[2]) / self.crop_fraction
        longest = [math.ceil(LONGEST * height / scale), math.ceil(LONGEST * width / scale)]
        image = functional.center_crop(image, [min(image.shape[1], longest[0]), min(image.shape[2], longest[1])])
        covering = [max(round(image.shape[1] * scale), height), max(round(image.shape[2] * scale), width)]
        image = functional.resize(image, covering, self.interpolation, antialias=True)
        return functional.center_crop(image, [height, width])


class RandomCrop:
    """A random part of an image in the size that `Resize` gives, of `scale` to all of the area.

    Its aspect is at most 4 / 3 times or 3 / 4 of that of img_size; of the image itself, where it is resized as a whole.
    """

    def __init__(self, pre: Preprocessing, scale: float) -> None:
        self.pre, self.scale = pre, scale
        self.interpolation = interpolation_of(pre)

    def __call__(self, image: UInt8[Tensor, "channels height width"]) -> UInt8[Tensor, "channels out_height out_width"]:
        from torchvision.transforms import v2

        (height, width), size = self.pre.img_size, self.pre.img_size
        if self.pre.resize != "crop":
            height, width = image.shape[1:]
            size = whole_size(self.pre, height, width)
        ratio = (3 / 4 * width / height, 4 / 3 * width / height)
        crop = v2.RandomResizedCrop(size, scale=(self.scale, 1.0), ratio=ratio, interpolation=self.interpolation)
        cropped: Tensor = crop(image)
        return cropped


class RandomPart:
    """A random part of an image, of `crop_scale` to all of it, turned by up to `rotation` degrees to either side.

    Corners that lie outside repeat the image as in a mirror. The size is that of `Resize`.
    """

    def __init__(self, pre: Preprocessing, crop_scale: float, rotation: float) -> None:
        self.pre, self.crop_scale, self.rotation = pre, crop_scale, rotation

    def __call__(self, image: UInt8[Tensor, "channels height width"]) -> UInt8[Tensor, "channels out_height out_width"]:
        from torchvision.transforms.v2 import functional

        stored, pre = (image.shape[1], image.shape[2]), self.pre
        size = pre.img_size if pre.resize == "crop" else whole_size(pre, *stored)
        # Where the whole image is kept, its aspect changes with it.
        box = drawn_box(stored, size if pre.resize == "crop" else stored, self.crop_scale)
        angle = math.radians(self.rotation) * (2 * torch.rand(()).item() - 1)
        if angle:
            return turned(image, box, angle, size)
        top, left, height, width = (round(place) for place in box)
        sides, how = (max(height, 1), max(width, 1)), interpolation_of(pre)
        part: Tensor = functional.resized_crop(image, top, left, *sides, list(size), interpolation=how, antialias=True)
        return part


class Bars:
    """Pads a normalised image to img_size with 0, which is the mean colour, as much on either side."""

    def __init__(self, pre: Preprocessing) -> None:
        self.img_size = pre.img_size

    def __call__(
        self, image: Float32[Tensor, "channels height width"]
    ) -> Float32[Tensor, "channels out_height out_width"]:
        rows, columns = (side - own for side, own in zip(self.img_size, image.shape[1:], strict=True))
        left, top = columns // 2, rows // 2
        return torch.nn.functional.pad(image, (left, columns - left, top, rows - top))


def whole_size(pre: Preprocessing, height: int, width: int) -> tuple[int, int]:
    """(height, width) of a whole image once it is resized: img_size, or the largest of its aspect in it."""
    if pre.resize == "squash":
        return pre.img_size
    scale = min(pre.img_size[0] / height, pre.img_size[1] / width)
    return max(round(height * scale), 1), max(round(width * scale), 1)


def resized_to(
    pre: Preprocessing, image: UInt8[Tensor, "channels height width"], size: tuple[int, int]
) -> UInt8[Tensor, "channels new_height new_width"]:
    """The image in another (height, width), by the interpolation of the preprocessing."""
    from torchvision.transforms.v2 import functional

    if image.shape[1:] == size:
        return image
    return functional.resize(image, list(size), interpolation_of(pre), antialias=True)


def _bars(pre: Preprocessing) -> list[Transform]:
    return [Bars(pre)] if pre.resize == "letterbox" else []


class Shift:
    """Move the image by up to `pixels` along both axes, each distance equally likely, and fill with 0.

    Zeros, because they are the background of digits and what the usual recipes for CIFAR do; repeating the border
    would lengthen the strokes that touch it. This is v2.RandomCrop with padding, in NumPy because on small images that
    takes a tenth of the time, and without it the shift would take longer than all the rest of loading.
    """

    def __init__(self, pixels: int) -> None:
        self.pixels = pixels

    def __call__(self, image: UInt8[Tensor, "channels height width"]) -> UInt8[Tensor, "channels height width"]:
        channels, height, width = image.shape
        top, left = torch.randint(2 * self.pixels + 1, (2,)).tolist()
        padded = np.zeros((channels, height + 2 * self.pixels, width + 2 * self.pixels), np.uint8)
        padded[:, self.pixels : self.pixels + height, self.pixels : self.pixels + width] = image.numpy()
        return torch.from_numpy(padded[:, top : top + height, left : left + width])


class Normalise:
    """(image / 255 - mean) / std, as one multiplication and one addition a pixel; of one image, or of a batch."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        means, stds = (torch.tensor(values, dtype=torch.float64)[:, None, None] for values in (mean, std))
        self.scale = (1 / (255 * stds)).float()
        self.offset = (-means / stds).float()

    def __call__(
        self, image: Real[Tensor, "*batch channels height width"]
    ) -> Float32[Tensor, "*batch channels height width"]:
        return torch.addcmul(self.offset, image.float(), self.scale)


def measure_mean_std(source: ImageSource, limit: int = 1000) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, white being 1, over at most `limit` evenly spaced images.

    Each image counts the same, whatever its size; one that cannot be read doesn't. The sums are of whole numbers, so
    the result depends on neither device nor threads. Raises RegardError if there is no image to measure.
    """
    number = min(limit, len(source))
    means, squares = [], []
    bad: list[str] = []
    for index in range(number):
        try:
            values = source.read(index * len(source) // number).flatten(1).long()
        except BadImage as error:
            bad.append(str(error))
            continue
        means.append([total / values.shape[1] / 255 for total in values.sum(1).tolist()])
        squares.append([total / values.shape[1] / 255**2 for total in values.square().sum(1).tolist()])
    if not means:
        why = f" ({first_few(bad, 1)})" if bad else ""
        raise RegardError(f"mean and standard deviation: no image that can be read{why}")
    mean = [sum(channel) / len(means) for channel in zip(*means, strict=True)]
    square = [sum(channel) / len(means) for channel in zip(*squares, strict=True)]
    std = [math.sqrt(max(s - m * m, 0.0)) for s, m in zip(square, mean, strict=True)]
    return tuple(round(m, 6) for m in mean), tuple(round(max(s, SMALLEST_STD), 6) for s in std)


def interpolation_of(pre: Preprocessing) -> Any:
    """torchvision's name of the preprocessing's interpolation."""
    from torchvision.transforms.v2 import InterpolationMode

    # "nearest" of torch rounds coordinates down; the exact one takes the pixel that is nearest, as Pillow does.
    return InterpolationMode("nearest-exact" if pre.interpolation == "nearest" else pre.interpolation)


def _require(condition: bool, name: str, value: object, allowed: str) -> None:
    if not condition:
        raise RegardError(f"{name} is {value}; it must be {allowed}")


def _items(values: Mapping[str, object], name: str) -> Sequence[object]:
    value = values[name]
    if not isinstance(value, list | tuple):
        raise RegardError(f"{name} is {value!r}; it must be a list of numbers")
    return value


def _whole(name: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise RegardError(f"{name} is {value!r}; it must be a whole number")
    return value


def _number(name: str, value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise RegardError(f"{name} is {value!r}; it must be a number")
    return float(value)
