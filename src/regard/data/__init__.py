"""Data: what is behind a data address, and how it becomes batches. It knows no recipe, task or model.

Names are imported when they are asked for, so that listing the kinds of data doesn't wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from regard.data.addresses import KINDS as KINDS
    from regard.data.addresses import Address as Address
    from regard.data.addresses import parse_address as parse_address
    from regard.data.check import Finding as Finding
    from regard.data.check import Summary as Summary
    from regard.data.check import check_images as check_images
    from regard.data.images import IMAGE_EXTENSIONS as IMAGE_EXTENSIONS
    from regard.data.images import BadImage as BadImage
    from regard.data.images import OnBadImage as OnBadImage
    from regard.data.images import check_header as check_header
    from regard.data.images import from_pil as from_pil
    from regard.data.images import read_image as read_image
    from regard.data.loading import Batch as Batch
    from regard.data.loading import EvaluationImages as EvaluationImages
    from regard.data.loading import TrainingImages as TrainingImages
    from regard.data.loading import TrainingOrder as TrainingOrder
    from regard.data.loading import collate as collate
    from regard.data.loading import evaluation_loader as evaluation_loader
    from regard.data.loading import seed_for as seed_for
    from regard.data.loading import training_loader as training_loader
    from regard.data.making import make_folder as make_folder
    from regard.data.opening import default_root as default_root
    from regard.data.opening import open_images as open_images
    from regard.data.sources import ImageClasses as ImageClasses
    from regard.data.sources import ImageSource as ImageSource
    from regard.data.sources import InMemoryImages as InMemoryImages
    from regard.data.sources import Joined as Joined
    from regard.data.sources import Selected as Selected
    from regard.data.transforms import Augmentation as Augmentation
    from regard.data.transforms import Preprocessing as Preprocessing
    from regard.data.transforms import evaluation_transform as evaluation_transform
    from regard.data.transforms import measure_mean_std as measure_mean_std
    from regard.data.transforms import training_transform as training_transform

# File -> the names that `regard.data` offers from it.
_OFFERED = {
    "addresses": ("KINDS", "Address", "parse_address"),
    "check": ("Finding", "Summary", "check_images"),
    "images": ("IMAGE_EXTENSIONS", "BadImage", "OnBadImage", "check_header", "from_pil", "read_image"),
    "loading": (
        *("Batch", "EvaluationImages", "TrainingImages", "TrainingOrder", "collate"),
        *("evaluation_loader", "seed_for", "training_loader"),
    ),
    "making": ("make_folder",),
    "opening": ("default_root", "open_images"),
    "sources": ("ImageClasses", "ImageSource", "InMemoryImages", "Joined", "Selected"),
    "transforms": (
        *("Augmentation", "Preprocessing", "evaluation_transform", "measure_mean_std", "training_transform"),
    ),
}


def __getattr__(name: str) -> object:
    for file, names in _OFFERED.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{file}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(name for names in _OFFERED.values() for name in names)
