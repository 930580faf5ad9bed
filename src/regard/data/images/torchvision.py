"""`torchvision:NAME`: the standard sets, as torchvision downloads and reads them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxtyping import UInt8
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from regard.data.images.digests import digest_of_file
from regard.data.images.files import BadImage, check_header
from regard.data.images.labels import single_labels
from regard.data.images.pixels import MAX_MEGAPIXELS, Decoding, from_pil
from regard.data.images.sources import ImageClasses, ImageSource, split_source
from regard.errors import RegardError, one_line, unknown

Split = dict[str, bool | str]

# How a set is asked for its training and its validation split (None: it has none, and is split by seed). Where there
# are both a validation and a test split, the one for validation is taken.
SETS: dict[str, tuple[Split, Split | None]] = {
    "CIFAR10": ({"train": True}, {"train": False}),
    "CIFAR100": ({"train": True}, {"train": False}),
    "Country211": ({"split": "train"}, {"split": "valid"}),
    "DTD": ({"split": "train"}, {"split": "val"}),
    "EuroSAT": ({}, None),
    "FGVCAircraft": ({"split": "train"}, {"split": "val"}),
    "FashionMNIST": ({"train": True}, {"train": False}),
    "Flowers102": ({"split": "train"}, {"split": "val"}),
    "Food101": ({"split": "train"}, {"split": "test"}),
    "GTSRB": ({"split": "train"}, {"split": "test"}),
    "Imagenette": ({"split": "train"}, {"split": "val"}),
    "KMNIST": ({"train": True}, {"train": False}),
    "MNIST": ({"train": True}, {"train": False}),
    "OxfordIIITPet": ({"split": "trainval"}, {"split": "test"}),
    "RenderedSST2": ({"split": "train"}, {"split": "val"}),
    "SEMEION": ({}, None),
    "STL10": ({"split": "train"}, {"split": "test"}),
    "SUN397": ({}, None),
    "SVHN": ({"split": "train"}, {"split": "test"}),
    "USPS": ({"train": True}, {"train": False}),
}


class TorchvisionImages(ImageSource):
    """A set of torchvision; image i is called `name[i]`."""

    def __init__(
        self,
        dataset: Dataset[tuple[Image.Image, int]],
        labels: tuple[int, ...],
        channels: int,
        name: str,
        max_megapixels: float = MAX_MEGAPIXELS,
    ) -> None:
        self.dataset = dataset
        self.labels = labels
        self.channels = channels
        self._name = name
        self._decoding = Decoding(max_megapixels)

    def read(self, index: int) -> UInt8[Tensor, "channels height width"]:
        try:
            file = _file(self.dataset, index)
            if file is not None:  # torchvision opens files of any format and size
                check_header(file, self._decoding)
            image, _ = self.dataset[index]
            return from_pil(image, self.channels)
        except MemoryError:
            raise
        except Exception as error:  # on damaged bytes decoders raise whatever their parsing ran into
            raise BadImage(self.name(index), one_line(error)) from error

    def name(self, index: int) -> str:
        return f"{self._name}[{index}]"

    def digest(self, index: int) -> str:
        file = _file(self.dataset, index)
        return super().digest(index) if file is None else digest_of_file(file)


def _file(dataset: Any, index: int) -> Path | None:
    """The file of an image, where the set is made of files."""
    for attribute in ("samples", "_samples", "_image_files", "_images"):
        entries = getattr(dataset, attribute, None)
        if isinstance(entries, list | tuple) and index < len(entries):
            entry = entries[index][0] if isinstance(entries[index], tuple) else entries[index]
            return Path(entry) if isinstance(entry, str | Path) else None
    return None


def open_torchvision(
    name: str,
    channels: int,
    val_fraction: float,
    split_seed: int,
    root: Path,
    max_megapixels: float = MAX_MEGAPIXELS,
) -> ImageClasses:
    """The set `name` (a key of `SETS`) from below `root`, where it is downloaded to if it isn't there.

    Raises RegardError for an unknown name, and where the set is neither there nor to be had.
    """
    address = f"torchvision:{name}"
    if name not in SETS:
        raise unknown("set of torchvision", name, SETS, where=address)
    train_split, val_split = SETS[name]
    train_set = _load(name, train_split, root)
    shown = f"{name}/train" if val_split else name
    train = TorchvisionImages(train_set, _labels(train_set), channels, shown, max_megapixels)
    if val_split is None:
        class_names = _class_names(train_set, single_labels(train.labels))
        return split_source(train, class_names, address=address, val_fraction=val_fraction, split_seed=split_seed)
    val_set = _load(name, val_split, root)
    val = TorchvisionImages(val_set, _labels(val_set), channels, f"{name}/val", max_megapixels)
    class_names = _class_names(train_set, single_labels(train.labels + val.labels))
    return ImageClasses(address, class_names, train, val, has_val=True)


def _load(name: str, split: Split, root: Path) -> Any:
    import torchvision.datasets  # it takes over a second to import

    make = getattr(torchvision.datasets, name)
    try:
        return make(root, download=False, **split)
    except (RuntimeError, OSError):  # how torchvision says that it isn't there, or only half
        pass
    try:
        # The cache folder is the user's alone: a kernel that lies in a folder others can write to is not loaded.
        root.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        root.mkdir(exist_ok=True)
        return make(root, download=True, **split)
    except (RuntimeError, OSError) as error:  # a refused or missing connection is an OSError, or one in words
        raise RegardError(
            f"torchvision:{name} is not in {root} and could not be downloaded ({one_line(error)}); put its files there "
            "as torchvision lays them out, or use your own images with folder:PATH"
        ) from error


def _labels(dataset: Any) -> tuple[int, ...]:
    """The labels, without decoding an image where the set keeps them apart."""
    for attribute in ("targets", "labels", "_labels"):
        labels = getattr(dataset, attribute, None)
        if labels is not None:
            return tuple(int(label) for label in labels)
    samples: Sequence[tuple[str, int]] | None = getattr(dataset, "_samples", None)  # (path, label)
    if samples is not None:
        return tuple(label for _, label in samples)
    return tuple(int(dataset[index][1]) for index in range(len(dataset)))


def _class_names(dataset: Any, labels: tuple[int, ...]) -> tuple[str, ...]:
    names = getattr(dataset, "classes", None)
    if names is None:
        return tuple(str(label) for label in range(max(labels) + 1))
    return tuple(name if isinstance(name, str) else name[0] for name in names)  # Imagenette's are lists of synonyms
