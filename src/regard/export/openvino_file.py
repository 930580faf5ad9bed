"""OpenVINO: an ONNX model becomes an IR, a text of layers (.xml) beside its weights (.bin), with its contract."""

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from regard.errors import RegardError, one_line
from regard.export.contract import KEY, MOST_CHARACTERS
from regard.export.extras import need
from regard.export.onnx_file import WITH_GRAPHS, _require_acyclic
from regard.files import printable
from regard.reading import require_file

INNER = {"TensorIterator", *WITH_GRAPHS}


def to_openvino(model: Any, contract: str) -> Any:
    """The ONNX model as OpenVINO's, with its contract."""
    openvino = need("openvino", "exporting to OpenVINO")
    try:
        made = openvino.Core().read_model(model=model.SerializeToString(), weights=b"")
    except Exception as error:
        raise RegardError(f"export: OpenVINO cannot read the graph: {one_line(error)}") from error
    made.set_rt_info(contract, [KEY])
    return made


def write_openvino(model: Any, file: Path) -> None:
    """Writes FILE.xml and FILE.bin, in float32."""
    openvino = need("openvino", "exporting to OpenVINO")
    try:
        openvino.save_model(model, str(file), compress_to_fp16=False)
    except RuntimeError as error:
        raise OSError(one_line(error)) from error


def read_openvino(file: Path) -> tuple[Any, str | None]:
    """A stranger's IR: its model, and the text of its contract. Its text is looked at before OpenVINO reads it.

    RegardError for what is no IR, for weights that are not where it says, for a circle, and for graphs within it.
    """
    root = _root(file)
    weights = file.with_suffix(".bin")
    held = require_file(weights) if weights.exists() else 0
    inputs_of: dict[str, list[str]] = {}
    for layer in root.iter("layer"):
        if layer.get("type") in INNER:
            raise RegardError(f"{file}: holds a {layer.get('type')}, which could run for ever; exports have none")
        data = layer.find("data")
        if layer.get("type") == "Const" and data is not None:
            _require_held(data, held, weights)
        inputs_of[layer.get("id", "")] = []
    for edge in root.iter("edge"):
        inputs_of.setdefault(edge.get("to-layer", ""), []).append(edge.get("from-layer", ""))
    _require_acyclic(inputs_of, file)
    text = root.find(f"rt_info/{KEY}")
    found = None if text is None else text.get("value", "")
    if found is not None and len(found) > MOST_CHARACTERS:
        raise RegardError(f"{file}: its metadata are longer than {MOST_CHARACTERS // 2**20} MB")
    openvino = need("openvino", f"{printable(file)}: reading an IR")
    try:
        return openvino.Core().read_model(str(file)), found
    except Exception as error:
        raise RegardError(f"{file}: OpenVINO cannot read it: {one_line(error)}") from None


def _require_held(data: ElementTree.Element, held: int, weights: Path) -> None:
    try:
        offset, size = int(data.get("offset", "0")), int(data.get("size", "0"))
    except ValueError:
        raise RegardError(f"{weights}: the .xml beside it says no place of some numbers") from None
    if offset < 0 or size < 0 or offset + size > held:
        raise RegardError(
            f"{weights}: the .xml beside it claims {size:,} bytes from {offset:,} on, and there are {held:,}"
        )


def _root(file: Path) -> ElementTree.Element:
    from regard.reading import read_xml

    root = read_xml(file)
    if root.tag != "net":
        raise RegardError(f"{file}: is no IR of OpenVINO (it begins with <{root.tag[:60]}>, not <net>)")
    return root
