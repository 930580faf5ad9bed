"""What docs/deploy.md shows to copy: the server answers, configurations are valid, and the image suffices."""

import importlib.util
import json
import re
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from regard.export import reader

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

DOCS = Path(__file__).parents[2] / "docs"
SERVE = DOCS / "serve"
CONTRACT = {
    "schema": 1,
    "task": "classification",
    "precision": "fp32",
    "class_names": ["dark", "bright"],
    "preprocessing": {"img_size": [4, 4], "channels": 1, "interpolation": "bilinear", "crop_fraction": 1.0},
    "input": {"kind": "uint8", "size": [4, 4], "multiple": 1, "batch": None},
}


@pytest.fixture
def model(tmp_path):
    """A file whose second class is the brightness of the image, from 0 to 1."""
    helper, kinds = onnx.helper, onnx.TensorProto
    constants = {
        "axes": np.array([1, 2, 3]),
        "column": np.array([-1, 1]),
        "white": np.array(255, np.float32),
        "one": np.array(1, np.float32),
    }
    nodes = [
        helper.make_node("Cast", ["pixels"], ["numbers"], to=kinds.FLOAT),
        helper.make_node("ReduceMean", ["numbers", "axes"], ["mean"], keepdims=1),
        helper.make_node("Reshape", ["mean", "column"], ["flat"]),
        helper.make_node("Div", ["flat", "white"], ["bright"]),
        helper.make_node("Sub", ["one", "bright"], ["dark"]),
        helper.make_node("Concat", ["dark", "bright"], ["probabilities"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("pixels", kinds.UINT8, ["batch", 4, 4, 1])],
        [helper.make_tensor_value_info("probabilities", kinds.FLOAT, ["batch", 2])],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(made, {"regard": json.dumps(CONTRACT)})
    onnx.save(made, tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def picture(level):
    data = BytesIO()
    Image.fromarray(np.full((9, 7), level, np.uint8)).save(data, "PNG")
    return data.getvalue()


def test_the_page_shows_the_files_as_they_are():
    page = (DOCS / "deploy.md").read_text(encoding="utf-8")
    for name in ("Dockerfile", "app.py", "config.json", "config.pbtxt"):
        assert f"\n{(SERVE / name).read_text(encoding='utf-8')}```\n" in page, f"deploy.md: {name} is another one"


def test_the_server_answers(model, monkeypatch):
    pytest.importorskip("fastapi")
    pytest.importorskip("httpx")
    from fastapi.testclient import TestClient

    monkeypatch.setenv("MODEL", str(model))
    monkeypatch.setitem(sys.modules, "reader", reader)
    spec = importlib.util.spec_from_file_location("app_of_the_page", SERVE / "app.py")
    app = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(app)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    client = TestClient(app.app)
    assert client.get("/health").json() == {
        "task": "classification",
        "classes": ["dark", "bright"],
        "precision": "fp32",
    }
    for level, label in ((20, "dark"), (230, "bright")):
        name, probability = client.post("/predict", content=picture(level)).json()["answer"]
        assert name == label
        assert probability == pytest.approx(max(level, 255 - level) / 255, abs=1e-6)
    answer = client.post("/predict", content=b"no image")
    assert (answer.status_code, "cannot be read" in answer.json()["detail"]) == (400, True)
    monkeypatch.setattr(app, "LARGEST", 10)
    assert client.post("/predict", content=picture(0)).status_code == 413


def test_the_server_is_short_and_needs_no_torch():
    text = (SERVE / "app.py").read_text(encoding="utf-8")
    compile(text, "app.py", "exec")
    assert len(text.splitlines()) <= 60
    assert not re.search(r"import (torch|regard)|from (torch|regard)", text)


# What Model Server takes (its src/schema.cpp): the keys of a model that can be named, and their types.
MODEL_SERVER = {
    "type": "object",
    "required": ["model_config_list"],
    "additionalProperties": False,
    "properties": {
        "model_config_list": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["config"],
                "additionalProperties": False,
                "properties": {
                    "config": {
                        "type": "object",
                        "required": ["name", "base_path"],
                        "additionalProperties": False,
                        "properties": {
                            "name": {"type": "string"},
                            "base_path": {"type": "string"},
                            "batch_size": {"type": ["integer", "string"]},
                            "shape": {"type": ["object", "string"]},
                            "nireq": {"type": "integer", "minimum": 0},
                            "target_device": {"type": "string"},
                            "plugin_config": {"type": "object"},
                            "model_version_policy": {"type": "object"},
                        },
                    }
                },
            },
        }
    },
}


def test_the_configuration_of_model_server_is_valid():
    jsonschema = pytest.importorskip("jsonschema")
    found = json.loads((SERVE / "config.json").read_text(encoding="utf-8"))
    jsonschema.validate(found, MODEL_SERVER)
    found["model_config_list"][0]["config"]["threads"] = 2
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(found, MODEL_SERVER)


# Of Triton's model_config.proto: the messages and fields that the file may name. Numbers don't matter to a text.
TRITON = """
name: "triton.proto" syntax: "proto3"
enum_type { name: "Kind" value { name: "KIND_AUTO" number: 0 } value { name: "KIND_GPU" number: 1 }
  value { name: "KIND_CPU" number: 2 } }
enum_type { name: "DataType" value { name: "TYPE_INVALID" number: 0 } value { name: "TYPE_UINT8" number: 2 }
  value { name: "TYPE_INT64" number: 9 } value { name: "TYPE_FP32" number: 11 } }
message_type { name: "Tensor" FIELD(name,STRING) FIELD(data_type,.DataType) FIELD(dims,INT64*) }
message_type { name: "Batching" FIELD(preferred_batch_size,INT32*) FIELD(max_queue_delay_microseconds,UINT64) }
message_type { name: "Group" FIELD(name,STRING) FIELD(count,INT32) FIELD(kind,.Kind) }
message_type { name: "ModelConfig" FIELD(name,STRING) FIELD(backend,STRING) FIELD(max_batch_size,INT32)
  FIELD(input,.Tensor*) FIELD(output,.Tensor*) FIELD(dynamic_batching,.Batching) FIELD(instance_group,.Group*) }
"""


def parsed_for_triton(text):
    """RegardError's like of protobuf, ParseError, for an unknown field or a value of another type."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

    numbers = iter(range(1, 100))

    def field(found):
        name, kind = found[1], found[2].rstrip("*")
        label = "LABEL_REPEATED" if found[2].endswith("*") else "LABEL_OPTIONAL"
        of = f'type_name: "{kind}" type: TYPE_{"ENUM" if kind in (".Kind", ".DataType") else "MESSAGE"}'
        own = of if kind.startswith(".") else f"type: TYPE_{kind}"
        return f'field {{ name: "{name}" number: {next(numbers)} label: {label} {own} }}'

    file = text_format.Parse(re.sub(r"FIELD\((\w+),([.\w*]+)\)", field, TRITON), descriptor_pb2.FileDescriptorProto())
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    kind = message_factory.GetMessageClass(pool.FindMessageTypeByName("ModelConfig"))
    return text_format.Parse(text, kind())


def test_the_configuration_of_triton_is_valid():
    from google.protobuf.text_format import ParseError

    text = (SERVE / "config.pbtxt").read_text(encoding="utf-8")
    found = parsed_for_triton(text)
    assert (found.name, found.backend) == ("mine", "onnxruntime")
    assert [one.name for one in found.input] == ["pixels"]
    assert [one.name for one in found.output] == ["probabilities"]
    assert list(found.input[0].dims)[2] == 3
    for wrong in (text.replace("backend", "back_end"), text.replace("TYPE_UINT8", "UINT8"), text.replace("16", '"16"')):
        with pytest.raises(ParseError):
            parsed_for_triton(wrong)


# Nothing can be imported but Python's own library and what the Dockerfile installs.
BARE = """
import sys
known = set(sys.argv.pop(1).split(",")) | set(sys.stdlib_module_names)
class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in known:
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Nothing())
import runpy
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_the_image_has_all_that_the_reader_needs(model):
    installs = re.search(r"pip install (.*)", (SERVE / "Dockerfile").read_text(encoding="utf-8"))[1]
    packages = [word for word in installs.split() if not word.startswith("-")]
    modules = {"pillow": "PIL"}
    known = ",".join(modules.get(package, package) for package in packages)
    (model.parent / "bright.png").write_bytes(picture(250))
    call = [sys.executable, "-c", BARE, known, reader.__file__, str(model), "bright.png"]
    done = subprocess.run(call, capture_output=True, text=True, check=False, cwd=model.parent)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[1][0] == "bright"
