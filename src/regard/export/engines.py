"""Engines: a file that an engine runs, behind one interface, and behind the predictors' own.

`EngineModel` stands in the place of a predictor's model, so that predict, evaluate and all that they offer are the
same for a run and for its file.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from regard.data import DetectionPreprocessing, Preprocessing
from regard.errors import RegardError, one_line, unknown
from regard.export.contract import LOGITS, QUERY_BOXES, QUERY_LOGITS, contract_of
from regard.export.extras import need
from regard.export.onnx_file import read_onnx
from regard.export.openvino_file import read_openvino

SUFFIXES = {".onnx": "onnx", ".xml": "openvino"}


class Engine(Protocol):
    """A file in use."""

    def run(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        """The outputs by name. RegardError where the engine refuses the input."""


class OnnxEngine:
    """ONNX Runtime on the CPU."""

    name = "onnx"

    def __init__(self, model: bytes, where: str, *, threads: int = 0) -> None:
        runtime = need("onnxruntime", f"{where}: running ONNX")
        options = runtime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = threads
        self.where = where
        try:
            self.session = runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the runtime's classes have no common one
            raise RegardError(f"{where}: ONNX Runtime cannot open it: {one_line(error)}") from None
        self.inputs = [one.name for one in self.session.get_inputs()]
        self.outputs = [one.name for one in self.session.get_outputs()]

    def run(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        try:
            found = self.session.run(None, {self.inputs[0]: pixels})
        except Exception as error:
            raise RegardError(f"{self.where}: ONNX Runtime cannot run it: {one_line(error)}") from None
        return dict(zip(self.outputs, found, strict=True))


class OpenVinoEngine:
    """OpenVINO on the CPU, in the file's precision: unless told, it takes bf16 where the processor is fast at it."""

    name = "openvino"

    def __init__(self, model: Any, where: str, precision: str, *, threads: int = 0) -> None:
        openvino = need("openvino", f"{where}: running OpenVINO")
        self.where = where
        options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32"}
        if threads:
            options["INFERENCE_NUM_THREADS"] = threads
        try:
            self.compiled = openvino.Core().compile_model(model, "CPU", options)
        except Exception as error:
            raise RegardError(f"{where}: OpenVINO cannot open it: {one_line(error)}") from None
        self.inputs = [one.any_name for one in self.compiled.inputs]
        self._names = [sorted(one.names) for one in self.compiled.outputs]  # an output may have several
        self.outputs = [name for names in self._names for name in names]

    def run(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        try:
            found = self.compiled([pixels])
        except Exception as error:
            raise RegardError(f"{self.where}: OpenVINO cannot run it: {one_line(error)}") from None
        return {name: np.array(found[index]) for index, names in enumerate(self._names) for name in names}


class Opened(NamedTuple):
    """A file that an engine has opened, and its contract."""

    engine: Any
    contract: dict[str, Any]


def open_file(file: Path, *, threads: int = 0) -> Opened:
    """Opens an exported file in the engine of its suffix. RegardError for anything that `regard export` does not make.

    A .pt2 is not opened: PyTorch's reader of it can run code that the file holds.
    """
    suffix = file.suffix.lower()
    if suffix == ".pt2":
        raise RegardError(
            f"{file}: a .pt2 is not read, since PyTorch's reader can run code out of it; export to onnx or openvino"
        )
    if suffix not in SUFFIXES:
        raise unknown("kind of file", suffix, SUFFIXES, where=str(file))
    where = str(file)
    if suffix == ".onnx":
        model, text = read_onnx(file)
        contract = contract_of(text, where)
        engine: Any = OnnxEngine(model.SerializeToString(), where, threads=threads)
    else:
        model, text = read_openvino(file)
        contract = contract_of(text, where)
        engine = OpenVinoEngine(model, where, contract["precision"], threads=threads)
    wanted = {"classification": (LOGITS,), "detection": (QUERY_LOGITS, QUERY_BOXES)}[contract["task"]]
    missing = [name for name in wanted if name not in engine.outputs]
    if missing or len(engine.inputs) != 1:
        raise RegardError(
            f"{file}: has {len(engine.inputs)} inputs and the outputs {', '.join(engine.outputs)[:200]}; "
            f"an export has one input and {', '.join(wanted)}"
        )
    return Opened(engine, contract)


class QueryOutput(NamedTuple):
    """What a detector's model gives, of its last layer alone."""

    logits: Tensor
    boxes_cxcywh: Tensor


class EngineModel(nn.Module):
    """An engine in the place of a model: normalised images -> logits; of a detector also the boxes of its queries.

    Normalisation is undone first, exactly, since the file takes pixels and has its own.
    """

    def __init__(
        self, engine: Any, contract: Mapping[str, Any], preprocessing: Preprocessing | DetectionPreprocessing
    ) -> None:
        super().__init__()
        self.engine, self.preprocessing = engine, preprocessing
        self.kind = contract["input"]["kind"]
        self.batch = contract["input"].get("batch")
        self.classes = len(contract["class_names"])
        self.is_detector = contract["task"] == "detection"
        self.scores = contract.get("scores", "softmax")
        self.on_cpu = nn.Parameter(torch.zeros(0), requires_grad=False)

    @property
    def config(self) -> Any:
        """RegardError: a file has no configuration, weights and layers that others could work with."""
        raise RegardError(f"{self.engine.where}: is an exported file, which answers alone; take the run for this")

    def forward(self, images: Tensor, mask: Tensor | None = None) -> Any:
        if mask is not None and not bool(mask.all()):
            raise RegardError("an exported file takes images without padding")
        parts = images.split(self.batch) if self.batch else (images,)
        found = [self._run(part) for part in parts]
        joined = {name: torch.cat([one[name] for one in found]) for name in found[0]}
        if self.is_detector:
            return QueryOutput(joined[QUERY_LOGITS][None], joined[QUERY_BOXES][None])
        return joined[LOGITS]

    def _run(self, images: Tensor) -> dict[str, Tensor]:
        count = len(images)
        if self.batch and count < self.batch:  # a file of a fixed batch gets it full
            images = torch.cat([images, images[-1:].expand(self.batch - count, -1, -1, -1)])
        names = (QUERY_LOGITS, QUERY_BOXES) if self.is_detector else (LOGITS,)
        found = self.engine.run(self.pixels(images))
        self._require_classes(found[names[0]])
        return {name: torch.from_numpy(np.ascontiguousarray(found[name][:count])) for name in names}

    def _require_classes(self, logits: np.ndarray) -> None:
        """RegardError where the file's numbers are not of as many classes as it names."""
        wanted = self.classes + (self.is_detector and self.scores == "softmax")
        if logits.ndim != 2 + self.is_detector or logits.shape[-1] != wanted:
            raise RegardError(
                f"{self.engine.where}: answers with {logits.shape[-1]} classes, and its metadata name {wanted}"
            )

    def pixels(self, images: Tensor) -> np.ndarray:
        """What the file takes for normalised images."""
        if self.kind == "float":
            return images.numpy()
        seen = torch.stack([self.preprocessing.seen(image) for image in images])
        return seen.permute(0, 2, 3, 1).contiguous().numpy()

    def __deepcopy__(self, memo: Any) -> "EngineModel":
        """Itself: an engine is not copied, and nothing of it changes."""
        return self
