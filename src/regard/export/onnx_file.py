"""ONNX: a program becomes one file with its contract, and a stranger's file is looked at before an engine opens it.

What a detector reports is added as nodes of ONNX: no boxes below the score of their class, suppression class by class,
the most certain first.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from regard.errors import RegardError, first_few, one_line
from regard.export.contract import BOXES, COUNT, KEY, LABELS, MOST_CHARACTERS, QUERY_BOXES, QUERY_LOGITS, SCORES
from regard.export.extras import need, silent
from regard.export.program import Program
from regard.reading import require_file

LARGEST = 2**31 - 1  # bytes: what protobuf can hold
MOST_NODES = 1_000_000
SMALL = 1024  # numbers of a weight that may be a shape
# A node of these holds graphs, which may run for ever; none of our files has one.
WITH_GRAPHS = ("If", "Loop", "Scan", "SequenceMap")
MOST_DETECTIONS = 300


@dataclass(frozen=True)
class Reported:
    """Which of a detector's boxes are answers."""

    sigmoid: bool
    """Each pair of a query and a class counts; else each query gives its best class, and the last one is no object."""
    thresholds: tuple[float, ...]
    """The least score of each class."""
    overlap: float | None
    """A box is suppressed at an IoU above this with a more certain one of its class; None: none is."""
    most: int = MOST_DETECTIONS
    """Answers of an image; rows beyond `num_detections` are zeros."""


def to_onnx(program: Program, reported: Reported | None) -> tuple[Any, Any]:
    """The program as an onnx.ModelProto, with what a detector reports; and the program whose values have its names."""
    import torch

    need("onnx", "exporting to ONNX")
    need("onnxscript", "exporting to ONNX")
    try:
        with silent():
            made = torch.onnx.export(
                program.exported,
                dynamo=True,
                verbose=False,
                input_names=[program.input_name],
                output_names=list(program.output_names),
            )
            assert made is not None  # without a file to write into, the program is returned
            model = made.model_proto
    except Exception as error:  # the exporter has dozens of classes
        raise RegardError(f"export: the program cannot be written as ONNX: {one_line(error)}") from error
    _require_plain(model)
    for key in ("doc_string", "producer_version"):
        model.ClearField(key)
    model.producer_name = "regard"
    for node in model.graph.node:
        node.ClearField("metadata_props")  # where each node came from, in paths of this machine
        node.ClearField("doc_string")
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        value.ClearField("metadata_props")
    for tensor in model.graph.initializer:
        tensor.ClearField("metadata_props")
    del model.metadata_props[:], model.graph.metadata_props[:]
    if reported is not None:
        _add_report(model, program, reported)
    return model, made.exported_program


def _require_plain(model: Any) -> None:
    """RegardError where a node is none of ONNX's own: no engine knows it."""
    strange = sorted(
        {f"{node.domain}.{node.op_type}" for node in model.graph.node if node.domain not in ("", "ai.onnx")}
    )
    if strange or model.functions:
        raise RegardError(
            f"export: the graph holds operations that are not ONNX's: {first_few(strange) or 'functions'}"
        )


def write_onnx(model: Any, file: Path, contract: str) -> None:
    """Writes the file with its contract inside. RegardError for more than ONNX's files hold."""
    onnx = need("onnx", "exporting to ONNX")
    onnx.helper.set_model_props(model, {KEY: contract})
    size = model.ByteSize()
    if size > LARGEST:
        raise RegardError(
            f"{file}: has {size / 2**30:.1f} GB; an ONNX file holds up to 2 GB (--to openvino has no limit)"
        )
    file.write_bytes(model.SerializeToString())


def _add_report(model: Any, program: Program, reported: Reported) -> None:
    """Nodes behind the queries' logits and boxes: boxes_xyxy in pixels of the input, scores, labels, num_detections."""
    from onnx import TensorProto, helper, numpy_helper

    graph, nodes = model.graph, []

    def constant(name: str, values: Any, dtype: Any) -> str:
        graph.initializer.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def node(kind: str, inputs: list[str], *outputs: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, inputs, list(outputs), name=f"report/{outputs[0]}", **attributes))
        return outputs[0]

    zero, one, two = (constant(f"report/{i}", [i], np.int64) for i in (0, 1, 2))
    classes = len(reported.thresholds)
    node(
        "Sigmoid" if reported.sigmoid else "Softmax",
        [QUERY_LOGITS],
        "r_every",
        **({} if reported.sigmoid else {"axis": -1}),
    )
    own = constant("report/classes", [classes], np.int64)
    # Without "no object", which comes last.
    node("Slice", ["r_every", zero, own, two], "r_classes")
    least = constant("report/thresholds", [list(reported.thresholds)], np.float32)
    node("GreaterOrEqual", ["r_classes", least], "r_enough")
    if not reported.sigmoid:
        node("ReduceMax", ["r_classes", constant("report/last", [-1], np.int64)], "r_best", keepdims=1)
        node("GreaterOrEqual", ["r_classes", "r_best"], "r_is_best")
        node("And", ["r_enough", "r_is_best"], "r_both")
    nothing = constant("report/nothing", -1.0, np.float32)
    node("Where", ["r_enough" if reported.sigmoid else "r_both", "r_classes", nothing], "r_kept")
    node("Split", [QUERY_BOXES], "r_cx", "r_cy", "r_w", "r_h", axis=2, num_outputs=4)
    half = constant("report/half", 0.5, np.float32)
    for side in "wh":
        node("Mul", [f"r_{side}", half], f"r_half_{side}")
    for corner, (centre, side, kind) in {
        "left": ("cx", "w", "Sub"),
        "top": ("cy", "h", "Sub"),
        "right": ("cx", "w", "Add"),
        "bottom": ("cy", "h", "Add"),
    }.items():
        node(kind, [f"r_{centre}", f"r_half_{side}"], f"r_edge_{corner}")
    node("Concat", ["r_edge_left", "r_edge_top", "r_edge_right", "r_edge_bottom"], "r_unit", axis=2)
    low, high = constant("report/low", 0.0, np.float32), constant("report/high", 1.0, np.float32)
    node("Clip", ["r_unit", low, high], "r_inside")
    node("Shape", [program.input_name], "r_input")
    rows, columns = (1, 2) if program.input_name == "pixels" else (2, 3)
    places = constant("report/places", [columns, rows, columns, rows], np.int64)
    node("Gather", ["r_input", places], "r_extent")
    node("Cast", ["r_extent"], "r_pixels", to=TensorProto.FLOAT)
    node("Mul", ["r_inside", "r_pixels"], "r_corners")
    kept = "r_kept"
    if reported.overlap is not None:
        node("Transpose", ["r_kept"], "r_by_class", perm=[0, 2, 1])
        everything = constant("report/everything", [LARGEST], np.int64)
        iou = constant("report/overlap", [reported.overlap], np.float32)
        above = constant("report/above", [-0.5], np.float32)
        node("NonMaxSuppression", ["r_corners", "r_by_class", everything, iou, above], "r_selected")
        node("Shape", ["r_by_class"], "r_shape")
        node("ConstantOfShape", ["r_shape"], "r_none", value=helper.make_tensor("v", TensorProto.FLOAT, [1], [0.0]))
        node("Shape", ["r_selected"], "r_count_shape")
        node("Slice", ["r_count_shape", zero, one], "r_count")
        node("ConstantOfShape", ["r_count"], "r_ones", value=helper.make_tensor("v", TensorProto.FLOAT, [1], [1.0]))
        node("ScatterND", ["r_none", "r_selected", "r_ones"], "r_stays")
        node("Greater", ["r_stays", low], "r_stays_there")
        node("Where", ["r_stays_there", "r_by_class", nothing], "r_left_by_class")
        node("Transpose", ["r_left_by_class"], "r_left_over", perm=[0, 2, 1])
        kept = "r_left_over"
    flat = constant("report/flat", [0, -1], np.int64)
    node("Reshape", [kept, flat], "r_flat")
    node("Shape", ["r_flat"], "r_flat_shape")
    node("Slice", ["r_flat_shape", one, two], "r_pairs")
    node("Min", ["r_pairs", constant("report/most", [reported.most], np.int64)], "r_most")
    node("TopK", ["r_flat", "r_most"], "r_top", "r_place", axis=1, largest=1, sorted=1)
    node("Mod", ["r_place", own], "r_label")
    node("Div", ["r_place", own], "r_query")
    node("Unsqueeze", ["r_query", two], "r_query_column")
    node("Expand", ["r_query_column", constant("report/four", [1, 1, 4], np.int64)], "r_query_four")
    node("GatherElements", ["r_corners", "r_query_four"], "r_found", axis=1)
    node("GreaterOrEqual", ["r_top", low], "r_is_answer")
    node("Cast", ["r_is_answer"], "r_answers", to=TensorProto.INT64)
    node("ReduceSum", ["r_answers", one], COUNT, keepdims=0)
    node("Where", ["r_is_answer", "r_top", low], SCORES)
    no_label = constant("report/no_label", 0, np.int64)
    node("Where", ["r_is_answer", "r_label", no_label], LABELS)
    node("Unsqueeze", ["r_is_answer", two], "r_answer_column")
    node("Where", ["r_answer_column", "r_found", low], BOXES)
    graph.node.extend(nodes)
    batch = graph.output[0].type.tensor_type.shape.dim[0]
    free: Any = batch.dim_param or batch.dim_value
    raw = [graph.output[i] for i in range(2)]
    del graph.output[:]
    graph.output.extend(
        [
            helper.make_tensor_value_info(BOXES, TensorProto.FLOAT, [free, "detections", 4]),
            helper.make_tensor_value_info(SCORES, TensorProto.FLOAT, [free, "detections"]),
            helper.make_tensor_value_info(LABELS, TensorProto.INT64, [free, "detections"]),
            helper.make_tensor_value_info(COUNT, TensorProto.INT64, [free]),
            *raw,
        ]
    )


def read_onnx(file: Path) -> tuple[Any, str | None]:
    """A stranger's file: its model, and the text of its contract. Nothing is run, and no other file is opened.

    RegardError for what is no ONNX file, is longer than one can be, claims more numbers than it holds, keeps numbers in
    other files, or holds loops, a circle, or operations that are not ONNX's.
    """
    size = require_file(file)
    if size > LARGEST:
        raise RegardError(f"{file}: has {size / 2**30:.1f} GB; an ONNX file has up to 2 GB")
    onnx = need("onnx", f"{file}: reading ONNX")
    try:
        model = onnx.load_model_from_string(file.read_bytes())
    except Exception as error:  # protobuf's parser has errors of its own
        raise RegardError(f"{file}: is cut short or not an ONNX file: {one_line(error)}") from None
    if not model.HasField("graph") or not model.graph.output:
        raise RegardError(f"{file}: is cut short or not an ONNX file: it has no graph")
    if sum(len(entry.value) for entry in model.metadata_props) > MOST_CHARACTERS:
        raise RegardError(f"{file}: its metadata are longer than {MOST_CHARACTERS // 2**20} MB")
    text = next((entry.value for entry in model.metadata_props if entry.key == KEY), None)
    _require_harmless(model, file)
    return model, text


def _require_harmless(model: Any, file: Path) -> None:
    graph = model.graph
    if model.functions or len(graph.node) > MOST_NODES:
        raise RegardError(
            f"{file}: has {len(graph.node):,} nodes and {len(model.functions)} functions; it is no file of ours"
        )
    for node in graph.node:
        if node.domain not in ("", "ai.onnx"):
            raise RegardError(f"{file}: holds the operation {node.domain}.{node.op_type}, which is not ONNX's")
        if node.op_type in WITH_GRAPHS or any(one.HasField("g") or one.graphs for one in node.attribute):
            raise RegardError(f"{file}: holds a {node.op_type}, which could run for ever; exports have none")
    for tensor in _tensors(graph):
        _require_whole(tensor, file)
    if graph.sparse_initializer:
        raise RegardError(f"{file}: holds sparse weights; exports have none")
    _require_acyclic({value: list(node.input) for node in graph.node for value in node.output}, file)
    _require_bounded(model, file)


def _require_bounded(model: Any, file: Path) -> None:
    """RegardError where a value of the graph is known to be larger than a file could be: a few bytes can ask for it."""
    import onnx

    light = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    graph = model.graph
    small = [tensor for tensor in graph.initializer if math.prod(tensor.dims) <= SMALL]
    large = [tensor for tensor in graph.initializer if math.prod(tensor.dims) > SMALL]
    light.graph.CopyFrom(onnx.GraphProto(name="g", node=graph.node, input=graph.input, initializer=small))
    light.graph.input.extend(onnx.helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in large)
    try:
        known = onnx.shape_inference.infer_shapes(light, data_prop=True).graph.value_info
    except Exception:  # what it cannot tell, the engine will
        return
    for value in known:
        numbers = math.prod(dim.dim_value for dim in value.type.tensor_type.shape.dim if dim.dim_value > 0)
        if numbers > LARGEST:
            raise RegardError(f"{file}: {value.name[:60]}: asks for {numbers:,} numbers")


def _tensors(graph: Any) -> Iterator[Any]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors


def _require_whole(tensor: Any, file: Path) -> None:
    """RegardError for numbers in another file, and for another number of them than the tensor's shape says."""
    import onnx

    if tensor.external_data or tensor.data_location == onnx.TensorProto.EXTERNAL:
        raise RegardError(
            f"{file}: keeps its weights in another file; exports hold all of them, and others are not opened"
        )
    if tensor.data_type == onnx.TensorProto.STRING:
        return
    try:
        width = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    except (KeyError, TypeError, ValueError):
        raise RegardError(f"{file}: {tensor.name[:60]}: has numbers of an unknown kind, {tensor.data_type}") from None
    wanted = math.prod(tensor.dims)
    if min(tensor.dims, default=0) < 0 or wanted > LARGEST:
        raise RegardError(f"{file}: {tensor.name[:60]}: claims {wanted:,} numbers")
    if tensor.raw_data and len(tensor.raw_data) != wanted * width and width * 8 > 8:
        raise RegardError(
            f"{file}: {tensor.name[:60]}: claims {wanted:,} numbers, and holds {len(tensor.raw_data) // width:,}"
        )
    if not tensor.raw_data:
        held = max(len(getattr(tensor, f"{name}_data")) for name in ("float", "int32", "int64", "double", "uint64"))
        if held > 2 * wanted or held * 8 < wanted:  # complex numbers take two entries, and small ones share one
            raise RegardError(f"{file}: {tensor.name[:60]}: claims {wanted:,} numbers, and holds {held:,}")


def _require_acyclic(inputs_of: Mapping[str, list[str]], file: Path) -> None:
    """RegardError for values that come, by a circle, from themselves."""
    done: dict[str, bool] = {}  # False while it is being followed
    for start in inputs_of:
        stack = [(start, iter(inputs_of[start]))] if start not in done else []
        done.setdefault(start, False)
        while stack:
            name, rest = stack[-1]
            for other in rest:
                if other not in inputs_of:
                    continue
                if done.get(other) is False:
                    raise RegardError(f"{file}: its graph is a circle: {other[:60]} comes from itself")
                if other not in done:
                    done[other] = False
                    stack.append((other, iter(inputs_of[other])))
                    break
            else:
                done[name] = True
                stack.pop()
