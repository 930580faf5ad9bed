"""A predictor becomes a file: program, graph, contract, file."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from regard.errors import RegardError, unknown
from regard.export.contract import CLASSIFICATION, DETECTION, MOST_IN_A_BATCH, text_of
from regard.export.extras import need
from regard.export.onnx_file import Reported, to_onnx, write_onnx
from regard.export.openvino_file import to_openvino, write_openvino
from regard.export.program import LARGEST_SIDE, Program, Shape, program_of, size_multiple
from regard.export.pt2_file import write_pt2
from regard.models import config_values
from regard.tasks import Classifier, Detector
from regard.weights.checksum import checksum

KINDS = ("onnx", "openvino", "pt2")
PRECISIONS = ("fp32", "bf16", "int8", "auto")
PIXELS = ("auto", "uint8", "float")
FILE_NAMES = {"onnx": "model.onnx", "openvino": "model.xml", "pt2": "model.pt2"}
_PACKAGES = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "openvino": ("onnx", "onnxscript", "openvino"), "pt2": ()}


@dataclass(frozen=True)
class Made:
    """What a file is written from, and what a fault in it is looked for with."""

    program: Program
    onnx: Any
    """None for a .pt2."""
    named: Any
    """The program whose values have the names of the ONNX graph's."""
    contract: dict[str, Any]


def require_known(to: str, precision: str, pixels: str) -> None:
    """RegardError for an unknown kind, precision or input, and for a package that is not installed."""
    for what, value, known, option in (
        ("kind of file", to, KINDS, "--to"),
        ("precision", precision, PRECISIONS, "--precision"),
        ("input", pixels, PIXELS, "--pixels"),
    ):
        if value not in known:
            raise unknown(what, value, known, where=option)
    if precision == "bf16" and to != "openvino":
        raise RegardError(f"--precision bf16: is for --to openvino; a file for {to} is in fp32")
    if precision in ("int8", "auto") and to == "pt2":
        raise RegardError(f"--precision {precision}: is for --to onnx or openvino; a file for pt2 is in fp32")
    for package in (*_PACKAGES[to], *(("nncf",) if precision == "int8" else ())):
        need(package, f"export --to {to}", "int8" if precision == "int8" else to)


def with_size(predictor: Classifier | Detector, size: str | None) -> tuple[Classifier | Detector, Shape]:
    """The predictor for images of a size, and the shape of its file's input.

    size: "224", "480x640" (height x width), "dynamic", or None: that of the run, and of a detector, whose images keep
    their aspects, dynamic. RegardError for anything else.
    """
    given = None if size in (None, "dynamic") else _sides(str(size))
    if isinstance(predictor, Detector):
        multiple = size_multiple(predictor.model, predictor.preprocessing.divisor)
        if given is None:
            return predictor, Shape(None, None, multiple=multiple)
        raise RegardError(
            f"--size {size}: a detector's images keep their aspects, so that its file takes any size; leave --size out"
        )
    pre = predictor.preprocessing
    if size == "dynamic":
        return predictor, Shape(None, None, multiple=size_multiple(predictor.model, 1))
    if given is None or given == tuple(pre.img_size):
        return predictor, Shape(*pre.img_size)
    other = Classifier(predictor.model, predictor.class_names, replace(pre, img_size=given), predictor.calibration)
    other.model_name, other.source = predictor.model_name, predictor.source
    return other, Shape(*given)


def _sides(size: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{1,6})(?:[x×](\d{1,6}))?", size.lower())
    sides = (0, 0) if found is None else (int(found[1]), int(found[2] or found[1]))
    if not 1 <= min(sides) <= max(sides) <= LARGEST_SIDE:
        raise RegardError(f"--size {size}: must be pixels such as 224, HEIGHTxWIDTH such as 480x640, or dynamic")
    return sides


def batch_of(batch: str | int) -> int | None:
    """None for a free batch. RegardError for what is neither "dynamic" nor a number."""
    if batch == "dynamic":
        return None
    if not re.fullmatch(r"\d{1,6}", str(batch)) or not 1 <= int(batch) <= MOST_IN_A_BATCH:
        raise RegardError(f"--batch {batch}: must be dynamic, or a number from 1 to {MOST_IN_A_BATCH:,}")
    return int(batch)


def make(
    predictor: Classifier | Detector,
    shape: Shape,
    *,
    pixels: str = "auto",
    precision: str = "fp32",
    recipe: str | None = None,
    to: str = "onnx",
) -> Made:
    """The graph of a predictor, and what its file is to say. RegardError where the model cannot take the shape."""
    letterbox = isinstance(predictor, Classifier) and predictor.preprocessing.resize == "letterbox"
    if pixels == "uint8" and letterbox:
        raise RegardError("--pixels uint8: the bars of a letterbox have the mean colour, which no byte has; take float")
    kind = "float" if letterbox or pixels == "float" else "uint8"
    program = program_of(predictor, shape, kind=kind)
    onnx, named = (None, None) if to == "pt2" else to_onnx(program, reported_of(predictor))
    return Made(program, onnx, named, contract_for(predictor, shape, kind, precision, recipe))


def reported_of(predictor: Classifier | Detector) -> Reported | None:
    """What of a detector's boxes the file gives as answers: what `predict` gives unless asked for something else."""
    if not isinstance(predictor, Detector):
        return None
    overlap = None if predictor.calibration is None else predictor.calibration.nms
    sigmoid = getattr(predictor.model, "scores", "softmax") == "sigmoid"
    return Reported(sigmoid, predictor.least_scores(), overlap)


def contract_for(
    predictor: Classifier | Detector, shape: Shape, kind: str, precision: str, recipe: str | None
) -> dict[str, Any]:
    """What a file says of itself: all that is needed to read an image and to name the answer."""
    from regard import __version__

    model: Any = predictor.model
    is_detector = isinstance(predictor, Detector)
    sides = None if shape.height is None else [shape.height, shape.width]
    found: dict[str, Any] = {
        "task": DETECTION if is_detector else CLASSIFICATION,
        "producer": f"regard {__version__}",
        "precision": precision,
        "model": {"name": predictor.model_name or "", "config": config_values(model.config)},
        "class_names": list(predictor.class_names),
        "preprocessing": predictor.preprocessing.to_dict(),
        "input": {"kind": kind, "size": sides, "multiple": shape.multiple, "batch": shape.batch},
        "weights": checksum(model.state_dict()),
    }
    if predictor.calibration is not None:
        found["calibration"] = predictor.calibration.to_dict()
    if isinstance(predictor, Detector):
        reported = reported_of(predictor)
        assert reported is not None
        found |= {
            "category_ids": list(predictor.category_ids),
            "scores": "sigmoid" if reported.sigmoid else "softmax",
            "max_detections": reported.most,
        }
    if recipe is not None:
        found["recipe"] = recipe
    return found


def write(made: Made, file: Path, to: str) -> None:
    """Writes the file, and beside an .xml its .bin."""
    contract = text_of(made.contract)
    if to == "onnx":
        write_onnx(made.onnx, file, contract)
    elif to == "pt2":
        write_pt2(made.program, file, contract)
    else:
        write_openvino(to_openvino(made.onnx, contract), file)
