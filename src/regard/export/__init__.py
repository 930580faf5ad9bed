"""A run becomes a file that needs neither its folder nor PyTorch, and a file is used as a run is.

The journey of an export, and the files in which it happens:

    program.py        the model between uint8 pixels and its answers, captured strictly, with free sizes
    onnx_file.py      the program as ONNX, with what a detector reports; a stranger's file looked at before it is opened
    openvino_file.py  the same for OpenVINO's IR
    pt2_file.py       the program as PyTorch's own file
    contract.py       what the file says of itself: classes, preprocessing, thresholds, precision, recipe
    write.py          options -> program -> graph -> file
    verify.py         the file's answers against the run's: parity, agreement, the figure before and after, the layer
    engines.py        a file in ONNX Runtime or OpenVINO, and an engine in the place of a predictor's model
    predictor.py      a file as a Classifier or a Detector
    reader.py         the reader that `--snippet` prints: NumPy, Pillow and the engine alone
    extras.py         packages that may be missing
    optimize.py       without a file: a copy of the model with packed weights, inside PyTorch
    ways_to_attend.py which way to compute attention is the faster one here
    random_images.py  what engines are compared and timed on where no images are at hand
    decide.py         which of several contenders is the fastest, from times taken in turns

Which images a file is verified on is for `regard.api.export` to say, which opens data.
"""

from regard.export.contract import KEY, SCHEMA
from regard.export.engines import Engine, EngineModel, open_file
from regard.export.extras import EXTRAS, installed
from regard.export.predictor import is_exported, load_exported
from regard.export.verify import Report, paired_interval
from regard.export.write import KINDS, PRECISIONS

__all__ = [
    "EXTRAS",
    "KEY",
    "KINDS",
    "PRECISIONS",
    "SCHEMA",
    "Engine",
    "EngineModel",
    "Report",
    "installed",
    "is_exported",
    "load_exported",
    "open_file",
    "paired_interval",
]
