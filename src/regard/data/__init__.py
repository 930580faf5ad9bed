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
    from regard.data.check import Summary as Summary
    from regard.data.check import check_data as check_data
    from regard.data.check import check_images as check_images
    from regard.data.check_texts import PairSummary as PairSummary
    from regard.data.check_texts import TextSummary as TextSummary
    from regard.data.check_texts import check_pairs as check_pairs
    from regard.data.check_texts import check_text as check_text
    from regard.data.coco import Annotations as Annotations
    from regard.data.detection import DetectionData as DetectionData
    from regard.data.detection import DetectionSource as DetectionSource
    from regard.data.detection import JoinedScenes as JoinedScenes
    from regard.data.detection import Objects as Objects
    from regard.data.detection import SelectedScenes as SelectedScenes
    from regard.data.detection_check import DetectionSummary as DetectionSummary
    from regard.data.detection_check import check_detection as check_detection
    from regard.data.detection_check import check_scenes as check_scenes
    from regard.data.detection_loading import AspectOrder as AspectOrder
    from regard.data.detection_loading import DetectionBatch as DetectionBatch
    from regard.data.detection_loading import ReducedScenes as ReducedScenes
    from regard.data.detection_loading import cached as cached
    from regard.data.detection_loading import detection_evaluation_loader as detection_evaluation_loader
    from regard.data.detection_loading import detection_training_loader as detection_training_loader
    from regard.data.detection_loading import pad as pad
    from regard.data.detection_opening import open_detection as open_detection
    from regard.data.detection_transforms import IMAGENET_MEAN as IMAGENET_MEAN
    from regard.data.detection_transforms import IMAGENET_STD as IMAGENET_STD
    from regard.data.detection_transforms import DetectionAugmentation as DetectionAugmentation
    from regard.data.detection_transforms import DetectionPreprocessing as DetectionPreprocessing
    from regard.data.detection_transforms import detection_evaluation_transform as detection_evaluation_transform
    from regard.data.detection_transforms import detection_training_transform as detection_training_transform
    from regard.data.finding import Finding as Finding
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
    from regard.data.mosaic import VariedScenes as VariedScenes
    from regard.data.numbers import LANGUAGES as LANGUAGES
    from regard.data.numbers import NumberPairs as NumberPairs
    from regard.data.numbers import number_words as number_words
    from regard.data.opening import default_root as default_root
    from regard.data.opening import open_images as open_images
    from regard.data.opening import open_pairs as open_pairs
    from regard.data.opening import open_text as open_text
    from regard.data.pairs import LinePairs as LinePairs
    from regard.data.pairs import OnBadLine as OnBadLine
    from regard.data.pairs import PairSource as PairSource
    from regard.data.pairs import TextPairs as TextPairs
    from regard.data.sequences import PairBatch as PairBatch
    from regard.data.sequences import TrainingWindows as TrainingWindows
    from regard.data.sequences import WindowBatch as WindowBatch
    from regard.data.sequences import evaluation_pairs as evaluation_pairs
    from regard.data.sequences import num_windows as num_windows
    from regard.data.sequences import pair_batch as pair_batch
    from regard.data.sequences import training_pairs as training_pairs
    from regard.data.sequences import training_windows as training_windows
    from regard.data.sources import ImageClasses as ImageClasses
    from regard.data.sources import ImageSource as ImageSource
    from regard.data.sources import InMemoryImages as InMemoryImages
    from regard.data.sources import Joined as Joined
    from regard.data.sources import Selected as Selected
    from regard.data.suspects import Suspect as Suspect
    from regard.data.text import TextData as TextData
    from regard.data.tokenizing import BOS as BOS
    from regard.data.tokenizing import EOS as EOS
    from regard.data.tokenizing import PAD as PAD
    from regard.data.tokenizing import TOKENIZERS as TOKENIZERS
    from regard.data.tokenizing import BPETokenizer as BPETokenizer
    from regard.data.tokenizing import ByteTokenizer as ByteTokenizer
    from regard.data.tokenizing import Tokenizer as Tokenizer
    from regard.data.tokenizing import TokenizerKind as TokenizerKind
    from regard.data.tokenizing import create_tokenizer as create_tokenizer
    from regard.data.tokenizing import tokenizer_from_dict as tokenizer_from_dict
    from regard.data.transforms import Augmentation as Augmentation
    from regard.data.transforms import Preprocessing as Preprocessing
    from regard.data.transforms import evaluation_transform as evaluation_transform
    from regard.data.transforms import measure_mean_std as measure_mean_std
    from regard.data.transforms import training_transform as training_transform

# File -> the names that `regard.data` offers from it.
_OFFERED = {
    "addresses": ("KINDS", "SORTS", "Address", "parse_address", "parse_address_of"),
    "check": ("Summary", "check_data", "check_images"),
    "check_texts": ("PairSummary", "TextSummary", "check_pairs", "check_text"),
    "coco": ("Annotations",),
    "detection": ("DetectionData", "DetectionSource", "JoinedScenes", "Objects", "SelectedScenes"),
    "detection_check": ("DetectionSummary", "check_detection", "check_scenes"),
    "detection_loading": (
        *("AspectOrder", "DetectionBatch", "ReducedScenes", "cached"),
        *("detection_evaluation_loader", "detection_training_loader", "pad"),
    ),
    "detection_opening": ("open_detection",),
    "detection_transforms": (
        *("IMAGENET_MEAN", "IMAGENET_STD", "DetectionAugmentation"),
        *("DetectionPreprocessing", "detection_evaluation_transform", "detection_training_transform"),
    ),
    "finding": ("Finding",),
    "images": ("IMAGE_EXTENSIONS", "BadImage", "OnBadImage", "check_header", "from_pil", "read_image"),
    "loading": (
        *("Batch", "EvaluationImages", "TrainingImages", "TrainingOrder"),
        *("collate", "evaluation_loader", "seed_for", "training_loader"),
    ),
    "making": ("make_folder",),
    "mosaic": ("VariedScenes",),
    "numbers": ("LANGUAGES", "NumberPairs", "number_words"),
    "opening": ("default_root", "open_images", "open_pairs", "open_text"),
    "pairs": ("LinePairs", "OnBadLine", "PairSource", "TextPairs"),
    "sequences": (
        *("PairBatch", "TrainingWindows", "WindowBatch", "evaluation_pairs", "num_windows"),
        *("pair_batch", "training_pairs", "training_windows"),
    ),
    "sources": ("ImageClasses", "ImageSource", "InMemoryImages", "Joined", "Selected"),
    "suspects": ("Suspect",),
    "text": ("TextData",),
    "tokenizing": (
        *("BOS", "EOS", "PAD", "TOKENIZERS", "BPETokenizer"),
        *("ByteTokenizer", "Tokenizer", "TokenizerKind", "create_tokenizer", "tokenizer_from_dict"),
    ),
    "transforms": ("Augmentation", "Preprocessing", "evaluation_transform", "measure_mean_std", "training_transform"),
}


def __getattr__(name: str) -> object:
    for file, names in _OFFERED.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{file}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(name for names in _OFFERED.values() for name in names)
