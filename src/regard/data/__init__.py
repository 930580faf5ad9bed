"""Data: what is behind a data address, and how it becomes batches. It knows no recipe, task or model.

Names are imported when they are asked for, so that listing the kinds of data doesn't wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from regard.data.addresses import KINDS as KINDS
    from regard.data.addresses import SORTS as SORTS
    from regard.data.addresses import Address as Address
    from regard.data.addresses import parse_address as parse_address
    from regard.data.addresses import parse_address_of as parse_address_of
    from regard.data.boxes.batches import AspectOrder as AspectOrder
    from regard.data.boxes.batches import DetectionBatch as DetectionBatch
    from regard.data.boxes.batches import detection_evaluation_loader as detection_evaluation_loader
    from regard.data.boxes.batches import detection_training_loader as detection_training_loader
    from regard.data.boxes.batches import pad as pad
    from regard.data.boxes.cache import ResizedDetectionSource as ResizedDetectionSource
    from regard.data.boxes.cache import cached as cached
    from regard.data.boxes.coco import Annotations as Annotations
    from regard.data.boxes.mosaic import MosaicAndJitter as MosaicAndJitter
    from regard.data.boxes.sources import DetectionData as DetectionData
    from regard.data.boxes.sources import DetectionSource as DetectionSource
    from regard.data.boxes.sources import JoinedDetectionSource as JoinedDetectionSource
    from regard.data.boxes.sources import Objects as Objects
    from regard.data.boxes.sources import SelectedDetectionSource as SelectedDetectionSource
    from regard.data.boxes.transforms import IMAGENET_MEAN as IMAGENET_MEAN
    from regard.data.boxes.transforms import IMAGENET_STD as IMAGENET_STD
    from regard.data.boxes.transforms import DetectionAugmentation as DetectionAugmentation
    from regard.data.boxes.transforms import DetectionPreprocessing as DetectionPreprocessing
    from regard.data.boxes.transforms import detection_evaluation_transform as detection_evaluation_transform
    from regard.data.boxes.transforms import detection_training_transform as detection_training_transform
    from regard.data.check import check_data as check_data
    from regard.data.check import check_detection as check_detection
    from regard.data.check import check_images as check_images
    from regard.data.check import check_pairs as check_pairs
    from regard.data.check import check_text as check_text
    from regard.data.checks.boxes import DetectionSummary as DetectionSummary
    from regard.data.checks.boxes import check_opened_detection as check_opened_detection
    from regard.data.checks.images import Summary as Summary
    from regard.data.checks.issue import Issue as Issue
    from regard.data.checks.suspect_images import Suspect as Suspect
    from regard.data.checks.texts import PairSummary as PairSummary
    from regard.data.checks.texts import TextSummary as TextSummary
    from regard.data.images.batches import Batch as Batch
    from regard.data.images.batches import EvaluationImages as EvaluationImages
    from regard.data.images.batches import TrainingImages as TrainingImages
    from regard.data.images.batches import collate as collate
    from regard.data.images.batches import evaluation_loader as evaluation_loader
    from regard.data.images.batches import training_loader as training_loader
    from regard.data.images.files import IMAGE_EXTENSIONS as IMAGE_EXTENSIONS
    from regard.data.images.files import BadImage as BadImage
    from regard.data.images.files import OnBadImage as OnBadImage
    from regard.data.images.files import check_header as check_header
    from regard.data.images.files import from_pil as from_pil
    from regard.data.images.files import read_image as read_image
    from regard.data.images.sources import ImageClasses as ImageClasses
    from regard.data.images.sources import ImageSource as ImageSource
    from regard.data.images.sources import InMemoryImages as InMemoryImages
    from regard.data.images.sources import Joined as Joined
    from regard.data.images.sources import Selected as Selected
    from regard.data.images.transforms import Augmentation as Augmentation
    from regard.data.images.transforms import Preprocessing as Preprocessing
    from regard.data.images.transforms import evaluation_transform as evaluation_transform
    from regard.data.images.transforms import measure_mean_std as measure_mean_std
    from regard.data.images.transforms import training_transform as training_transform
    from regard.data.open import default_root as default_root
    from regard.data.open import open_detection as open_detection
    from regard.data.open import open_images as open_images
    from regard.data.open import open_pairs as open_pairs
    from regard.data.open import open_text as open_text
    from regard.data.order import TrainingOrder as TrainingOrder
    from regard.data.order import seed_for as seed_for
    from regard.data.text.batches import PairBatch as PairBatch
    from regard.data.text.batches import TrainingWindows as TrainingWindows
    from regard.data.text.batches import WindowBatch as WindowBatch
    from regard.data.text.batches import evaluation_pairs as evaluation_pairs
    from regard.data.text.batches import num_windows as num_windows
    from regard.data.text.batches import pair_batch as pair_batch
    from regard.data.text.batches import training_pairs as training_pairs
    from regard.data.text.batches import training_windows as training_windows
    from regard.data.text.corpus import TextData as TextData
    from regard.data.text.numbers import LANGUAGES as LANGUAGES
    from regard.data.text.numbers import NumberPairs as NumberPairs
    from regard.data.text.numbers import number_words as number_words
    from regard.data.text.pairs import LinePairs as LinePairs
    from regard.data.text.pairs import OnBadLine as OnBadLine
    from regard.data.text.pairs import PairSource as PairSource
    from regard.data.text.pairs import TextPairs as TextPairs
    from regard.data.text.tokenizers import BOS as BOS
    from regard.data.text.tokenizers import EOS as EOS
    from regard.data.text.tokenizers import PAD as PAD
    from regard.data.text.tokenizers import TOKENIZERS as TOKENIZERS
    from regard.data.text.tokenizers import BPETokenizer as BPETokenizer
    from regard.data.text.tokenizers import ByteTokenizer as ByteTokenizer
    from regard.data.text.tokenizers import Tokenizer as Tokenizer
    from regard.data.text.tokenizers import TokenizerKind as TokenizerKind
    from regard.data.text.tokenizers import create_tokenizer as create_tokenizer
    from regard.data.text.tokenizers import tokenizer_from_dict as tokenizer_from_dict
    from regard.data.write_examples import make_folder as make_folder

# File -> the names that `regard.data` offers from it.
_OFFERED = {
    "addresses": (
        "Address",
        "KINDS",
        "SORTS",
        "parse_address",
        "parse_address_of",
    ),
    "boxes.batches": (
        "AspectOrder",
        "DetectionBatch",
        "detection_evaluation_loader",
        "detection_training_loader",
        "pad",
    ),
    "boxes.cache": (
        "ResizedDetectionSource",
        "cached",
    ),
    "boxes.coco": ("Annotations",),
    "boxes.mosaic": ("MosaicAndJitter",),
    "boxes.sources": (
        "DetectionData",
        "DetectionSource",
        "JoinedDetectionSource",
        "Objects",
        "SelectedDetectionSource",
    ),
    "boxes.transforms": (
        "DetectionAugmentation",
        "DetectionPreprocessing",
        "IMAGENET_MEAN",
        "IMAGENET_STD",
        "detection_evaluation_transform",
        "detection_training_transform",
    ),
    "check": (
        "check_data",
        "check_detection",
        "check_images",
        "check_pairs",
        "check_text",
    ),
    "checks.boxes": (
        "DetectionSummary",
        "check_opened_detection",
    ),
    "checks.images": ("Summary",),
    "checks.issue": ("Issue",),
    "checks.suspect_images": ("Suspect",),
    "checks.texts": (
        "PairSummary",
        "TextSummary",
    ),
    "images.batches": (
        "Batch",
        "EvaluationImages",
        "TrainingImages",
        "collate",
        "evaluation_loader",
        "training_loader",
    ),
    "images.files": (
        "BadImage",
        "IMAGE_EXTENSIONS",
        "OnBadImage",
        "check_header",
        "from_pil",
        "read_image",
    ),
    "images.sources": (
        "ImageClasses",
        "ImageSource",
        "InMemoryImages",
        "Joined",
        "Selected",
    ),
    "images.transforms": (
        "Augmentation",
        "Preprocessing",
        "evaluation_transform",
        "measure_mean_std",
        "training_transform",
    ),
    "open": (
        "default_root",
        "open_detection",
        "open_images",
        "open_pairs",
        "open_text",
    ),
    "order": (
        "TrainingOrder",
        "seed_for",
    ),
    "text.batches": (
        "PairBatch",
        "TrainingWindows",
        "WindowBatch",
        "evaluation_pairs",
        "num_windows",
        "pair_batch",
        "training_pairs",
        "training_windows",
    ),
    "text.corpus": ("TextData",),
    "text.numbers": (
        "LANGUAGES",
        "NumberPairs",
        "number_words",
    ),
    "text.pairs": (
        "LinePairs",
        "OnBadLine",
        "PairSource",
        "TextPairs",
    ),
    "text.tokenizers": (
        "BOS",
        "BPETokenizer",
        "ByteTokenizer",
        "EOS",
        "PAD",
        "TOKENIZERS",
        "Tokenizer",
        "TokenizerKind",
        "create_tokenizer",
        "tokenizer_from_dict",
    ),
    "write_examples": ("make_folder",),
}


def __getattr__(name: str) -> object:
    for file, names in _OFFERED.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{file}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(name for names in _OFFERED.values() for name in names)
