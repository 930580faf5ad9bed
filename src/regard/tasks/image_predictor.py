"""What classifiers and detectors share: they take images of every usual kind, in batches, and know their classes."""

from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import replace
from io import BytesIO
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO, Generic, NamedTuple, TypeVar

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from PIL import Image
from torch import Tensor, nn

from regard.data import (
    AS_STORED,
    BadImage,
    Decoding,
    DetectionPreprocessing,
    Preprocessing,
    from_pil,
    normal,
    read_image,
    told_alike,
)
from regard.errors import RegardError, one_line
from regard.tasks.predictor import Predictor, many, require_count

OneImage = str | PathLike[str] | bytes | BinaryIO | Image.Image | np.ndarray | Tensor
KINDS = (
    "a path, a Pillow image, a uint8 array (height, width[, channels]), a file's bytes, an open file or "
    "a uint8 tensor (channels, height, width)"
)
LARGEST_FILE = 2**30  # bytes of a file that is handed over open
WINDOW = 4  # batches of images that may wait for others of their size
# Of the images of one batch of an evaluation.
PIXELS_ON_CPU, PIXELS_ON_GPU = 2**20, 2**23
Answer = TypeVar("Answer")


class LoadedImage(NamedTuple):
    """An image before the model: its path, or "images[3]"; its stored (height, width); and what the model takes."""

    name: str
    size: tuple[int, int]
    prepared: Float32[Tensor, "channels height width"]
    pixels: UInt8[Tensor, "channels stored_height stored_width"] | None
    """None for a file, which can be read again."""


class ImagePredictor(Predictor, Generic[Answer]):
    """A model with its preprocessing and the names of its classes."""

    engine = "torch fp32"
    """What answers, and in which precision; see `regard.load`."""

    def __init__(
        self, model: nn.Module, class_names: Sequence[str], preprocessing: Preprocessing | DetectionPreprocessing
    ) -> None:
        super().__init__(model)
        self.class_names = tuple(class_names)
        self._channels = preprocessing.channels
        self._decoding = preprocessing.decoding

    @property
    def max_megapixels(self) -> float:
        """A file with more pixels is not decoded: it counts as one that cannot be read. It may be set."""
        return self._decoding.max_megapixels

    @max_megapixels.setter
    def max_megapixels(self, limit: float | int) -> None:
        self._decoding = replace(self._decoding, max_megapixels=float(limit))

    @abstractmethod
    def _preprocess(
        self, pixels: UInt8[Tensor, "channels stored_height stored_width"]
    ) -> Float32[Tensor, "channels height width"]:
        """From stored pixels to what the model takes."""

    def prepare(self, image: OneImage) -> Float32[Tensor, "channels height width"]:
        """An image, of any kind that `predict` takes, as the model takes it."""
        return self._load(image, "image").prepared

    def _load(self, image: object, name: str) -> LoadedImage:
        pixels, is_file = pixels_of(image, self._channels, name, self._decoding), isinstance(image, str | PathLike)
        size = (pixels.shape[1], pixels.shape[2])
        return LoadedImage(str(image) if is_file else name, size, self._preprocess(pixels), None if is_file else pixels)

    def _predict(
        self,
        images: OneImage | Iterable[OneImage],
        batch_size: int,
        answer: Callable[[list[LoadedImage]], list[Answer]],
    ) -> Answer | list[Answer]:
        """One image -> its answer; many -> a list of answers, computed in batches."""
        require_count("batch_size", batch_size)
        if is_one_image(images):
            return answer([self._load(images, "image")])[0]
        numbered = enumerate(many(images, f"predict: give {KINDS}"))
        loaded = (self._load(image, f"images[{number}]") for number, image in numbered)
        return [one for one in answers_in_order(loaded, batch_size, answer) if not isinstance(one, BadImage)]

    def _predict_files(
        self, files: Iterable[str | Path], batch_size: int, answer: Callable[[list[LoadedImage]], list[Answer]]
    ) -> Iterator[Answer | BadImage]:
        """For each file, in order: its answer, or the error that names it where it cannot be read."""
        require_count("batch_size", batch_size)
        return answers_in_order(map(self._load_file, files), batch_size, answer)

    def _load_file(self, file: str | Path) -> LoadedImage | BadImage:
        try:
            return self._load(file, str(file))
        except BadImage as error:
            return error

    def _class_indices(self, class_names: Sequence[str] | None, used: Container[int] | None = None) -> Tensor:
        """The model's index of each class of a data set, and -1 for an unknown one that is not `used`.

        None: they are the model's own; all of them are used.
        """
        names = self.class_names if class_names is None else class_names
        numbered = list(reversed(list(enumerate(self.class_names))))
        # As they are written, and else in Unicode's one form.
        place = {normal(name): index for index, name in numbered} | {name: index for index, name in numbered}
        places = [place.get(name, place.get(normal(name), -1)) for name in names]
        unexpected = [names[i] for i, own in enumerate(places) if own < 0 and (used is None or i in used)]
        if unexpected:
            alike = told_alike([*unexpected, *self.class_names])
            raise RegardError(
                f"the data have classes that the model does not know: {', '.join(unexpected)}; "
                f"it knows: {', '.join(self.class_names)}{f'; {alike}' if alike else ''}"
            )
        return torch.tensor(places)


def most_images(pixels: int, device: torch.device) -> int:
    """How many images of so many pixels an evaluation takes at once: up to 256, and enough to keep a device at work."""
    return min(max((PIXELS_ON_CPU if device.type == "cpu" else PIXELS_ON_GPU) // pixels, 1), 256)


def answers_in_order(
    loaded: Iterable[LoadedImage | BadImage], batch_size: int, answer: Callable[[list[LoadedImage]], list[Answer]]
) -> Iterator[Answer | BadImage]:
    """The answer of each image, or its error, in the order of the images.

    A batch holds images of one prepared size: padding would change their answers, since convolutions and attention
    carry it into the image. Images wait for others of their size until a batch is full; when WINDOW batches wait, the
    size of the first is answered as it is.
    """
    waiting: dict[tuple[int, ...], list[tuple[LoadedImage, list[Answer | BadImage]]]] = {}
    places: deque[tuple[tuple[int, ...], list[Answer | BadImage]]] = deque()  # a place is empty until it is answered

    def settle(size: tuple[int, ...]) -> None:
        group = waiting.pop(size)
        for one, (_, place) in zip(answer([image for image, _ in group]), group, strict=True):
            place.append(one)

    for image in loaded:
        if isinstance(image, BadImage):
            places.append(((), [image]))
        else:
            size = tuple(image.prepared.shape)
            places.append((size, []))
            group = waiting.setdefault(size, [])
            group.append((image, places[-1][1]))
            if len(group) == batch_size:
                settle(size)
        if len(places) == WINDOW * batch_size and not places[0][1]:
            settle(places[0][0])
        while places and places[0][1]:
            yield places.popleft()[1][0]
    for size, place in places:
        if not place:
            settle(size)
        yield place[0]


def pixels_of(
    image: object, channels: int, name: str, decoding: Decoding = AS_STORED
) -> UInt8[Tensor, "channels height width"]:
    """An image as uint8 on the CPU, grey (`channels` 1) or RGB (3), in its stored size.

    Files, Pillow images and arrays are brought to that many channels as `from_pil` says; a tensor must have them.
    Raises BadImage for a file that cannot be read, and RegardError, which begins with `name`, for any other kind.
    """
    if isinstance(image, str | PathLike):
        return read_image(Path(image), channels, decoding)
    if isinstance(image, bytes | bytearray | memoryview) or hasattr(image, "read"):
        try:
            return read_image(BytesIO(_bytes_of(image, name)), channels, decoding)
        except BadImage as error:
            raise BadImage(name, error.reason) from None
    if isinstance(image, Image.Image):
        try:
            return from_pil(image, channels, decoding)
        except RegardError as error:
            raise RegardError(f"{name}: {error}") from None
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (1, 3, 4))):
            wanted = "(height, width) or (height, width, 1, 3 or 4 channels)"
            raise _wrong(name, "an array", wanted, image)
        _require_pixels(image, name)
        plain = np.ascontiguousarray(image)  # of a masked array, its values
        return from_pil(Image.fromarray(plain[..., 0] if plain.shape[2:] == (1,) else plain), channels)
    if isinstance(image, Tensor):
        if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] != channels:
            raise _wrong(name, "a tensor", f"({channels}, height, width)", image)
        _require_pixels(image, name)
        if image.layout != torch.strided or image.is_meta:
            raise RegardError(f"{name}: a tensor must hold its values itself, got one that is sparse or on 'meta'")
        return image.cpu()
    raise RegardError(f"{name}: give {KINDS}, not a {type(image).__name__}")


def is_one_image(value: object) -> bool:
    """Whether it is of a kind that an image has; a list or a generator may hold several."""
    kinds = (str, PathLike, bytes, bytearray, memoryview, Image.Image, np.ndarray, Tensor)
    return isinstance(value, kinds) or hasattr(value, "read")


def _bytes_of(file: Any, name: str) -> bytes:
    """Those of a file from its beginning, or those that were handed over."""
    if not hasattr(file, "read"):
        return bytes(file)
    try:
        if getattr(file, "seekable", lambda: False)():
            file.seek(0)
        found = file.read(LARGEST_FILE + 1)
    except (OSError, ValueError, TypeError) as error:  # ValueError: it is closed, or opened for writing
        raise BadImage(name, one_line(error)) from None
    if not isinstance(found, bytes):
        raise RegardError(f"{name}: the file gives text; open it with mode 'rb'")
    if len(found) > LARGEST_FILE:
        raise BadImage(name, f"has more than {LARGEST_FILE:,} bytes")
    return found


def _require_pixels(image: np.ndarray | Tensor, name: str) -> None:
    if 0 in image.shape:
        raise RegardError(f"{name}: has no pixels: {tuple(image.shape)}")


def _wrong(name: str, what: str, shape: str, image: np.ndarray | Tensor) -> RegardError:
    hint = "; for a batch, give list(batch)" if image.ndim == 4 else ""
    is_array, shape_found = isinstance(image, np.ndarray), tuple(image.shape)
    if image.ndim == 3 and is_array and shape_found[0] in (1, 3, 4):
        hint = "; if its channels come first, give image.transpose(1, 2, 0)"
    elif image.ndim == 3 and not is_array and str(shape_found[2]) == shape.strip("(").partition(",")[0]:
        hint = "; if its channels come last, give image.permute(2, 0, 1)"
    return RegardError(f"{name}: {what} must be uint8 {shape}, got {image.dtype} {tuple(image.shape)}{hint}")
