"""Data: what is behind a data address, and how it becomes batches. It knows no recipe, task or model.

    addresses.py          "digits", "folder:PATH", "coco:PATH", ...: an address, and the sort of data behind it
    bare_paths.py         a path without a kind -> the address of what it holds
    without_boxes.py      the images of data with boxes, for what learns without labels
    open.py               an address -> opened data: training and validation split, each a source of numbered samples
    images/  boxes/  text/    how each kind of file is read, and how samples become batches
    memory.py             how much of it may be taken
    fingerprints.py       opened data -> names and labels, which tell them from others
    order.py              which samples a step takes, and the seeds of what is random: the same on every machine
    checks/               opened data -> issues and a summary
    check.py              an address -> opened data -> checks; `regard data check` and the start of a training
    fix.py                an address -> a folder with mended annotations
    video.py              frames of videos and cameras, read and written
    write_examples.py     embedded data, written out as files

Names are imported when they are asked for, so that listing the kinds of data doesn't wait for torch.
"""

# ruff: noqa: F403  (for type checkers the names are those of whole files, so that no name stands here twice)
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from regard.data.addresses import *
    from regard.data.bare_paths import *
    from regard.data.boxes.batches import *
    from regard.data.boxes.cache import *
    from regard.data.boxes.coco_layout import Annotations as Annotations
    from regard.data.boxes.mosaic import *
    from regard.data.boxes.sources import *
    from regard.data.boxes.transforms import *
    from regard.data.boxes.views import *
    from regard.data.check import *
    from regard.data.checks.alike import *
    from regard.data.checks.boxes import *
    from regard.data.checks.images import *
    from regard.data.checks.issue import *
    from regard.data.checks.seen import *
    from regard.data.checks.small_objects import *
    from regard.data.checks.suspect_images import *
    from regard.data.checks.texts import *
    from regard.data.fingerprints import *
    from regard.data.fix import *
    from regard.data.images.batches import *
    from regard.data.images.cache import *
    from regard.data.images.colours import *
    from regard.data.images.csv_rows import *
    from regard.data.images.files import *
    from regard.data.images.labels import *
    from regard.data.images.leave_out import *
    from regard.data.images.names import *
    from regard.data.images.near_doubles import look_of as look_of
    from regard.data.images.near_doubles import near_doubles as near_doubles
    from regard.data.images.per_class import *
    from regard.data.images.pixels import *
    from regard.data.images.shuffled import *
    from regard.data.images.sources import *
    from regard.data.images.stratify import *
    from regard.data.images.transforms import *
    from regard.data.images.views import *
    from regard.data.images.walk import *
    from regard.data.open import *
    from regard.data.order import *
    from regard.data.repairs import *
    from regard.data.text.batches import *
    from regard.data.text.corpus import *
    from regard.data.text.numbers import *
    from regard.data.text.pairs import *
    from regard.data.text.tokenizers import *
    from regard.data.video import *
    from regard.data.write_examples import *

# File -> the names that `regard.data` offers from it.
_OFFERED = {
    "addresses": "Address KINDS SORTS parse_address parse_address_of",
    "bare_paths": "HOLDS address_of",
    "boxes.batches": "AspectOrder DetectionBatch detection_evaluation_loader detection_training_loader pad",
    "boxes.cache": "PreparedDetectionSource ResizedDetectionSource cached no_room_for prepared_areas",
    "boxes.coco_layout": "Annotations",
    "boxes.mosaic": "MosaicAndJitter",
    "boxes.sources": "DetectionData DetectionSource JoinedDetectionSource Objects SelectedDetectionSource",
    "boxes.transforms": (
        "DetectionAugmentation DetectionPreprocessing IMAGENET_MEAN IMAGENET_STD "
        "detection_evaluation_transform detection_training_transform"
    ),
    "boxes.views": "Views Window",
    "check": "check_data check_detection check_images check_pairs check_text",
    "checks.alike": "Alike Found check_alike",
    "checks.boxes": "DetectionSummary check_opened_detection queries_for",
    "checks.images": "Summary check_image_files check_opened_images",
    "checks.issue": "Issue group",
    "checks.seen": "Seen",
    "checks.small_objects": "enlarged sides_of too_small",
    "checks.suspect_images": "Suspect",
    "checks.texts": "PairSummary TextSummary",
    "fingerprints": "Fingerprint Part data_root differences fingerprint pair_hash relative_name",
    "fix": "fix_data",
    "images.batches": "Batch ByEpoch EvaluationImages Skipped TrainingImages collate evaluation_loader training_loader",
    "images.cache": "PixelCache no_room prepared_once",
    "images.colours": "colour_factors with_colours",
    "images.csv_rows": "CsvOptions",
    "images.files": "BadImage OnBadImage check_header has_deep_pixels measure_decoding read_image",
    "images.leave_out": "LeaveOut write_leave_out",
    "images.near_doubles": "look_of near_doubles",
    "images.labels": "Label balancing_weights classes_of label_tensor label_text",
    "images.names": "normal told_alike",
    "images.per_class": "draw_per_class fewer_than indices_per_class",
    "images.pixels": "AS_STORED Decoding MAX_MEGAPIXELS from_pil",
    "images.shuffled": "ShuffledLabels",
    "images.sources": "ImageClasses ImageSource InMemoryImages Joined Selected",
    "images.stratify": "split_label_sets",
    "images.transforms": (
        "Augmentation Normalise Preprocessing evaluation_transform measure_mean_std training_transform"
    ),
    "images.views": "ImageViews normalised",
    "images.walk": "IMAGE_EXTENSIONS image_endings image_files is_image_file passed_over_line",
    "open": "default_root open_detection open_images open_pairs open_text place_of",
    "order": "TrainingOrder batches_of_a_shard drawing_from endless_batches seed_for",
    "repairs": "OnBadAnnotation Repairs sentences",
    "text.batches": (
        "PairBatch TrainingWindows WindowBatch evaluation_pairs num_windows pair_batch training_pairs training_windows"
    ),
    "text.corpus": "TextData",
    "text.numbers": "LANGUAGES NumberPairs number_words",
    "text.pairs": "LinePairs OnBadLine PairSource SelectedPairs TextPairs",
    "text.tokenizers": (
        "BOS BPETokenizer ByteTokenizer EOS PAD TOKENIZERS Tokenizer TokenizerKind create_tokenizer tokenizer_from_dict"
    ),
    "video": "Frame VideoWriter is_video read_video",
    "write_examples": "make_folder",
}
_FILES = {name: file for file, names in _OFFERED.items() for name in names.split()}


if not TYPE_CHECKING:  # so that a type checker reports a name that is nowhere

    def __getattr__(name: str) -> object:
        if name not in _FILES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_FILES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(_FILES)
