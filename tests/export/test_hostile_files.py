"""A stranger's file: each fault is one line of error, and nothing is run, loaded or waited for."""

import json
import re

import numpy as np
import pytest
from PIL import Image

import regard
from regard import RegardError

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
helper, TensorProto = onnx.helper, onnx.TensorProto

CONTRACT = {
    "schema": 1,
    "task": "classification",
    "producer": "regard 0.1.0",
    "precision": "fp32",
    "model": {"name": "vit", "config": {"num_classes": 2, "in_chans": 1}},
    "class_names": ["cat", "dog"],
    "preprocessing": {
        "img_size": [4, 4],
        "channels": 1,
        "mean": [0.0],
        "std": [1.0],
        "interpolation": "bilinear",
        "crop_fraction": 1.0,
    },
    "input": {"kind": "uint8", "size": [4, 4], "multiple": 1, "batch": None},
}


def model(contract=CONTRACT, nodes=None, weights=None, classes=2):
    """logits[c] = weight[c] * the mean of the pixels."""
    weights = weights or [onnx.numpy_helper.from_array(np.arange(1, classes + 1, dtype=np.float32), "weight")]
    nodes = nodes or [
        helper.make_node("Cast", ["pixels"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["numbers", "axes"], ["mean"], keepdims=1),
        helper.make_node("Reshape", ["mean", "column"], ["flat"]),
        helper.make_node("Mul", ["flat", "weight"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    weights.append(onnx.numpy_helper.from_array(np.array([1, 2, 3]), "axes"))
    weights.append(onnx.numpy_helper.from_array(np.array([-1, 1]), "column"))
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["batch", 4, 4, 1])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", classes])
            for name in ("probabilities", "logits")
        ],
        weights,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    if contract is not None:
        helper.set_model_props(made, {"regard": contract if isinstance(contract, str) else json.dumps(contract)})
    return made


def refused(path, *parts):
    """Asserts that the file is refused in one line that names it, and returns the line."""
    with pytest.raises(RegardError) as caught:
        regard.load(path).predict(np.zeros((4, 4), np.uint8))
    line = str(caught.value)
    assert line.startswith(str(path)), line
    assert "\n" not in line
    for part in parts:
        assert part in line
    return line


@pytest.fixture
def written(tmp_path):
    def write(made, name="model.onnx"):
        path = tmp_path / name
        path.write_bytes(made if isinstance(made, bytes) else made.SerializeToString())
        return path

    return write


def test_a_harmless_file_is_read(written):
    classifier = regard.load(written(model()))
    assert classifier.class_names == ("cat", "dog")
    answer = classifier.predict(np.full((4, 4), 3, np.uint8))
    assert answer.label == "dog"  # logits are 3 and 6
    assert answer.probabilities[0] == pytest.approx(1 / (1 + np.exp(-3.0)))
    assert str(classifier.device) == "cpu"


def test_bytes_that_are_no_model(written):
    refused(written(b"\xff" * 100), "not an ONNX file")
    refused(written(b""), "not an ONNX file")
    refused(written(model().SerializeToString()[:150]), "ONNX")


def test_a_file_of_another_package(written):
    refused(written(model(contract=None)), "no file of `regard export`")


def test_a_newer_schema(written):
    refused(written(model({**CONTRACT, "schema": 99})), "newer Regard", "schema 99", "pip install")


@pytest.mark.parametrize("key", ["task", "producer", "precision", "model", "class_names", "preprocessing", "input"])
def test_metadata_that_lack_a_key(written, key):
    refused(written(model({name: value for name, value in CONTRACT.items() if name != key})), repr(key))


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"task": "seq2seq"}, "task"),
        ({"class_names": ["cat"]}, "1 class names, 2 classes"),
        ({"class_names": [1, 2]}, "class_names"),
        ({"input": {"kind": "float64"}}, "input.kind"),
        ({"preprocessing": {**CONTRACT["preprocessing"], "img_size": [10**6, 10**6]}}, "pixels"),
        ({"preprocessing": {**CONTRACT["preprocessing"], "std": ["x"]}}, "std"),
        ({"calibration": 3}, "calibration"),
        ({"schema": "1"}, "schema"),
        ({"input": {"kind": "uint8", "batch": -1}}, "input.batch"),
    ],
)
def test_metadata_that_are_wrong(written, changes, part):
    refused(written(model({**CONTRACT, **changes})), part)


def test_metadata_without_end(written):
    refused(written(model(json.dumps({**CONTRACT, "class_names": ["x" * 17 * 2**20]}))), "16 MB")
    refused(written(model("[" * 100_000)), "metadata")
    refused(written(model('{"schema": ' + "9" * 5000 + "}")), "metadata")


def test_weights_in_another_file(written, tmp_path):
    (tmp_path / "secret").write_bytes(b"12345678")
    for location in ("../secret", "/etc/passwd", "secret"):
        tensor = TensorProto(name="weight", data_type=TensorProto.FLOAT, dims=[2])
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.append(onnx.StringStringEntryProto(key="location", value=location))
        refused(written(model(weights=[tensor])), "another file")


def test_weights_that_claim_more_than_there_is(written):
    for dims in ([2**29], [2**40, 2**20], [3]):
        tensor = TensorProto(name="weight", data_type=TensorProto.FLOAT, dims=dims, raw_data=bytes(8))
        assert re.search(r"claims [\d,]+ numbers", refused(written(model(weights=[tensor])), "weight"))


def test_a_constant_that_claims_more_than_there_is(written):
    value = TensorProto(name="value", data_type=TensorProto.FLOAT, dims=[2**30], raw_data=bytes(8))
    node = helper.make_node("Constant", [], ["logits"], value=value)
    refused(written(model(nodes=[node])), "claims 1,073,741,824 numbers")


def test_a_value_that_is_larger_than_the_memory(written):
    """A few bytes ask an engine for 256 GB."""
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["huge"]),
        helper.make_node("ReduceMean", ["huge", "all"], ["logits"]),
    ]
    weights = [
        onnx.numpy_helper.from_array(np.array(value), name) for name, value in (("shape", [2**36]), ("all", [0]))
    ]
    refused(written(model(nodes=nodes, weights=weights)), "huge", "asks for 68,719,476,736 numbers")


def test_a_file_that_is_too_large(tmp_path):
    path = tmp_path / "model.onnx"
    with path.open("wb") as file:
        file.truncate(3 * 2**30)  # takes no room
    refused(path, "3.0 GB", "2 GB")


def test_a_graph_that_is_a_circle(written):
    nodes = [
        helper.make_node("Cast", ["pixels"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["numbers", "logits"], ["sum"]),
        helper.make_node("Identity", ["sum"], ["logits"]),
    ]
    refused(written(model(nodes=nodes)), "circle")


def test_a_long_chain_is_no_circle(written):
    chain = [helper.make_node("Identity", [f"v{i}"], [f"v{i + 1}"]) for i in range(20_000)]
    first = helper.make_node("Identity", ["v20000"], ["v0"])
    refused(written(model(nodes=[first, *chain])), "circle")


def test_a_loop(written):
    body = helper.make_graph([], "body", [], [])
    refused(written(model(nodes=[helper.make_node("Loop", ["n", "c"], ["logits"], body=body)])), "Loop", "for ever")


def test_operations_that_are_not_onnxs(written):
    node = helper.make_node("Run", ["pixels"], ["logits"], domain="com.evil")
    refused(written(model(nodes=[node])), "com.evil.Run")


def test_outputs_that_are_not_an_exports(written):
    made = model()
    del made.graph.output[:]
    made.graph.output.append(helper.make_tensor_value_info("other", TensorProto.FLOAT, ["batch", 2]))
    made.graph.node.append(helper.make_node("Identity", ["logits"], ["other"]))
    refused(written(made), "outputs other")


def test_another_number_of_classes_than_it_says(written):
    refused(written(model(classes=3)), "3 classes", "2")


def test_a_pt2_is_not_opened(written):
    """PyTorch's reader of it unpickles."""
    refused(written(b"PK\x03\x04", "model.pt2"), "not read")


def test_a_folder_with_the_name_of_a_file(tmp_path):
    (tmp_path / "model.onnx").mkdir()
    with pytest.raises(RegardError, match=r"model\.onnx"):
        regard.load(tmp_path / "model.onnx")


XML = """<?xml version="1.0"?><net name="x" version="11"><layers>{layers}</layers><edges>{edges}</edges>
<rt_info><regard value="{contract}"/></rt_info></net>"""
CONSTANT = (
    '<layer id="0" name="c" type="Const"><data element_type="f32" shape="4" offset="{offset}" size="{size}"/></layer>'
)


def test_an_ir_is_looked_at_before_openvino_reads_it(tmp_path):
    path = tmp_path / "model.xml"
    cases = [
        ('<!DOCTYPE x [<!ENTITY a "b">]><net/>', "entities"),
        ("<other/>", "not <net>"),
        ("<net>" * 200, "nested"),
        (XML.format(layers=CONSTANT.format(offset=0, size=2**31), edges="", contract=""), "2,147,483,648 bytes"),
        (XML.format(layers=CONSTANT.format(offset=-8, size=8), edges="", contract=""), "claims"),
        (XML.format(layers='<layer id="0" type="Loop"/>', edges="", contract=""), "Loop"),
        (
            XML.format(
                layers='<layer id="1" type="Add"/><layer id="2" type="Add"/>',
                edges='<edge from-layer="1" to-layer="2"/><edge from-layer="2" to-layer="1"/>',
                contract="",
            ),
            "circle",
        ),
    ]
    for text, part in cases:
        path.write_text(text, encoding="utf-8")
        with pytest.raises(RegardError, match=re.escape(part)):
            regard.load(path)


def test_the_command_line(written, tmp_path, monkeypatch, capsys):
    """`predict` reads a file as it reads a run; a fault is one line and status 1."""
    from regard.cli.main import main

    Image.fromarray(np.full((4, 4), 3, np.uint8)).save(tmp_path / "three.png")

    def told(file):
        monkeypatch.setattr("sys.argv", ["regard", "predict", str(file), str(tmp_path / "three.png"), "--json"])
        status = 0
        try:
            main()
        except SystemExit as end:
            status = end.code or 0
        return status, *capsys.readouterr()

    status, out, err = told(written(model()))
    assert (status, err) == (0, "")
    assert '"dog"' in out
    status, out, err = told(written(model(nodes=[helper.make_node("Run", ["pixels"], ["logits"], domain="evil")])))
    assert (status, out) == (1, "")
    assert len(err.splitlines()) == 1
    assert "evil.Run" in err


def test_a_file_has_one_set_of_weights_and_runs_on_the_cpu(written, tmp_path):
    path = written(model())
    for options in ({"weights": "best"}, {"device": "cuda"}):
        with pytest.raises(RegardError, match="one set of weights"):
            regard.load(path, **options)
    with pytest.raises(RegardError, match="no data of its own"):
        regard.evaluate(path)
    with pytest.raises(RegardError, match="exported already"):
        regard.export_model(path)
    with pytest.raises(RegardError, match="no layers to look into"):
        regard.explain_image(path, np.zeros((4, 4), np.uint8))
    with pytest.raises(RegardError, match="take the run"):
        regard.save(regard.load(path), tmp_path / "new")
