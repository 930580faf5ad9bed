"""int8 by NNCF's and ONNX Runtime's quantizers: a ladder of ways, each verified by the caller, the first that passes.

No way is safe for every model: NNCF's own for transformers (SmoothQuant) takes a ViT from 93% to 24% without a word.
"""

import io
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from regard.errors import RegardError, one_line
from regard.export.extras import need, silent

RUNGS = ("transformer preset", "without SmoothQuant", "default", "exclusions by sensitivity", "ORT dynamic")
MOST_EXCLUDED = 8  # layers, one a turn; each turn measures the whole model again
CLOSE = 0.02  # the mean difference of an answer that exclusions aim at
BEATS = 1.1  # int8 is chosen by `auto` only where it is as many times as fast as the alternative

Closeness = Callable[[Any, np.ndarray], float]
"""closeness(model, pixels of a batch) -> 1 minus the difference of its answers to the run's."""


def quantised(model: Any, rung: str, batches: Sequence[np.ndarray], closeness: Closeness) -> Any:
    """A model in eight bits, of the same kind: an onnx.ModelProto, or OpenVINO's. The model given stays as it is.

    batches: prepared pixels of training images. RegardError where the quantizer cannot do it.
    """
    nncf = need("nncf", "--precision int8")
    if rung not in RUNGS:
        raise RegardError(f"int8: unknown rung {rung}; known: {', '.join(RUNGS)}")
    try:
        with silent(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):  # progress bars
            if rung == "ORT dynamic":
                return _dynamic(model)
            return _by_nncf(nncf, model, rung, batches, closeness)
    except RegardError:
        raise
    except Exception as error:  # NNCF and ORT have dozens of classes
        raise RegardError(f"int8, {rung}: {one_line(error)}") from error


def _by_nncf(nncf: Any, model: Any, rung: str, batches: Sequence[np.ndarray], closeness: Closeness) -> Any:
    nncf.set_log_level(100)  # its progress is not the command's
    is_onnx = hasattr(model, "graph")
    name = model.graph.input[0].name if is_onnx else model.inputs[0].any_name
    data = nncf.Dataset(batches, lambda pixels: {name: pixels})
    # What a detector reports is arithmetic of boxes and scores, no layer.
    options: dict[str, Any] = {
        "subset_size": len(batches),
        "ignored_scope": nncf.IgnoredScope(patterns=["report/.*", "r_.*"], validate=False),
    }
    without_smoothing = nncf.AdvancedQuantizationParameters(
        smooth_quant_alphas=nncf.AdvancedSmoothQuantParameters(convolution=-1, matmul=-1)
    )
    if rung == "default":
        return nncf.quantize(model, data, **options)
    options["model_type"] = nncf.ModelType.TRANSFORMER
    if rung == "transformer preset":
        return nncf.quantize(model, data, **options)
    if rung == "without SmoothQuant":
        return nncf.quantize(model, data, **options, advanced_parameters=without_smoothing)

    def validate(compiled: Any, items: Any) -> tuple[float, list[float]]:
        each = [closeness(compiled, next(iter(item.values()))) for item in items]
        return float(np.mean(each)), each

    return nncf.quantize_with_accuracy_control(
        model,
        data,
        data,
        validate,
        max_drop=CLOSE,
        **options,
        advanced_quantization_parameters=without_smoothing,
        advanced_accuracy_restorer_parameters=nncf.AdvancedAccuracyRestorerParameters(
            max_num_iterations=MOST_EXCLUDED, ranking_subset_size=len(batches)
        ),
    )


def _dynamic(model: Any) -> Any:
    """Weights in eight bits; activations are quantised as they come. For ONNX alone."""
    if not hasattr(model, "graph"):
        raise RegardError("int8, ORT dynamic: is for ONNX")
    onnx = need("onnx", "--precision int8")
    need("onnxruntime", "--precision int8")
    from onnxruntime.quantization import quantize_dynamic

    plain = onnx.ModelProto()
    plain.CopyFrom(model)
    del plain.graph.value_info[:]  # the quantizer fails on the exporter's
    with TemporaryDirectory() as folder:
        source, target = Path(folder) / "fp32.onnx", Path(folder) / "int8.onnx"
        onnx.save(plain, source)
        quantize_dynamic(source, target, op_types_to_quantize=["MatMul", "Gemm"])
        return onnx.load(target)


def rungs(to: str) -> tuple[str, ...]:
    """The ways that a kind of file can go, in order."""
    return RUNGS if to == "onnx" else RUNGS[:-1]


def speed_ratio(first: Any, second: Any, pixels: np.ndarray, *, turns: int = 15) -> float:
    """How many times as fast the first engine is as the second: the median ratio of interleaved turns, warm."""
    ratios = list(_ratios(first, second, pixels, turns + 2))
    return statistics.median(ratios[2:])


def _ratios(first: Any, second: Any, pixels: np.ndarray, turns: int) -> Iterator[float]:
    for turn in range(turns):
        seconds = {}
        for name in (0, 1) if turn % 2 else (1, 0):
            start = time.perf_counter()
            (first, second)[name].run(pixels)
            seconds[name] = time.perf_counter() - start
        yield seconds[1] / max(seconds[0], 1e-9)
